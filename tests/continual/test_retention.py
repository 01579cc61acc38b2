"""Exact retention: what is learned later changes no bit of a closed task, and where it would, the certificate tells."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import optim

from growlib import Callback, Certify, NeuronGenesis, TaskNet, TaskSpeedNet, Trainer, every, new_task, prune
from growlib.continual.retention import retention_certificate, retention_snapshot
from growlib.data import Dataset, Split

SHAPE = (1, 6, 6)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"))]
DECAYING = ["SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta", "ASGD", "Adafactor"]
KINDS = {name: getattr(optim, name) for name in [*DECAYING, "Rprop"]}
NETS = {
    "dense": {"hidden": [5]},
    "deep": {"hidden": [4, 3]},
    "conv": {"channels": [3], "hidden": [4], "norm": False},
    "conv, norm": {"channels": [3, 2], "pools": [2], "hidden": [4]},
    "conv, norm, no dense": {"channels": [3]},
    "speed": {"channels": [3, 2]},
}


def a_task(name: str, seed: int, classes: int = 3) -> Dataset:
    """Images of noise, brighter in the row that is their class."""
    draw, splits, sizes = torch.Generator().manual_seed(seed), {}, {"train": 30, "val": 12, "test": 12}
    for split, size in sizes.items():
        labels = torch.arange(size) % classes
        images = torch.randint(0, 150, (size, *SHAPE), generator=draw, dtype=torch.uint8)
        images[torch.arange(size), 0, 2 * labels] += 100
        splits[split] = Split(images, labels)
    told = {"name": name, "source": "noise", "sizes": sizes, "sha256": ""}
    names = [str(label) for label in range(classes)]
    mean, std = torch.full((1,), 0.2 + 0.1 * seed), torch.full((1,), 0.25)
    return Dataset(name, names, **splits, mean=mean, std=std, provenance=told)


STREAM = [a_task("first", 0), a_task("second", 1, classes=2), a_task("third", 2)]


def a_net(kind: str = "conv, norm", transfer: bool = True) -> TaskNet:
    torch.manual_seed(0)
    return (TaskSpeedNet if kind == "speed" else TaskNet)(SHAPE, "first", 3, transfer=transfer, **NETS[kind])


def an_optimizer(model, kind: str, decay: float = 0.0, momentum: float = 0.0):
    told = {"weight_decay": decay} if kind in DECAYING else {}
    told |= {"momentum": momentum} if kind in ("SGD", "RMSprop") else {}
    return KINDS[kind](model.parameters(), lr=0.02, **told)


def a_trainer(model, kind: str = "AdamW", callbacks=(), decay: float = 0.1, momentum: float = 0.9, device="cpu"):
    return Trainer(model, an_optimizer(model, kind, decay, momentum), callbacks, batch_size=16, device=device)


def genesis(channels=2, hidden=2, growth=False):
    width = {"channels": channels, "hidden": hidden}
    return NeuronGenesis(**width, when=new_task() | every(1, "epoch") if growth else new_task())


@torch.no_grad()
def photograph(model, data) -> dict:
    """Without growlib.retention: what a task says of its test images, and all that is stored under its name."""
    model.eval()
    images = data.to(next(model.parameters()).device).normalize(data.test.images.to(next(model.parameters()).device))
    number = model.tasks.index(data.name)
    own = {name: value.clone() for name, value in model.state_dict().items() if f".blocks.{number}." in name}
    assert own
    return {"logits": model(images, data.name).clone(), **own}


def same(old: dict, new: dict) -> bool:
    return old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)


def certified(model, before: dict, *data) -> dict:
    return retention_certificate(before, retention_snapshot(model, *data))


# The law


@pytest.mark.filterwarnings("ignore:growlib. all new units:UserWarning")  # nets as small as these may have dead ones
@pytest.mark.slow
@settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.generate])  # shrinking would take minutes
@given(
    kind=st.sampled_from(list(KINDS)),
    decay=st.sampled_from([0.0, 0.01, 0.5]),
    momentum=st.sampled_from([0.0, 0.9]),
    net=st.sampled_from(list(NETS)),
    transfer=st.booleans(),
    growth=st.booleans(),
    reload=st.booleans(),
)
def test_nothing_that_is_learned_later_changes_a_bit_of_a_closed_task(
    tmp_path_factory, kind, decay, momentum, net, transfer, growth, reload
):
    callbacks = [genesis(growth=growth)]
    trainer = a_trainer(a_net(net, transfer), kind, callbacks, decay, momentum)
    photographs, snapshots = [], []
    for number, data in enumerate(STREAM):
        trainer.fit(data, epochs=2)
        model = trainer.model
        assert model.closed == {one.name for one in STREAM[:number]}
        for old, before, certified_before in zip(STREAM, photographs, snapshots, strict=False):
            assert same(before, photograph(model, old))
            found = certified(model, certified_before, old)
            assert found["exact"] and not found["logits_changed"] and not found["tensors_changed"]
        photographs.append(photograph(model, data))
        snapshots.append(retention_snapshot(model, data))
        if reload and number < 2:
            path = tmp_path_factory.mktemp("retention") / "run.pt"
            trainer.save(path)
            trainer = Trainer.load(path, callbacks=[genesis(growth=growth)], device="cpu")
            assert same(photographs[-1], photograph(trainer.model, data))
    assert bool(growth) == any(change["kind"] == "widen" for change in trainer.history.changes)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("net", NETS)
def test_growing_and_training_by_hand_keep_every_bit_too(net, device):
    trainer = a_trainer(a_net(net), "Adam", device=device)
    trainer.fit(STREAM[0], epochs=2)
    model, known = trainer.model, []
    for old, new in zip(STREAM, STREAM[1:], strict=False):
        known.append((old, photograph(model, old)))
        model.grow(new.name, 2, 3, classes=len(new.classes), optimizer=trainer.optimizer)
        model.close(old.name, trainer.optimizer)
        assert all(same(before, photograph(model, data)) for data, before in known)  # growing alone moves nothing
        trainer.fit(new, epochs=1)
        model.grow(new.name, 1, 1, optimizer=trainer.optimizer)
        trainer.fit(new, epochs=1)
        prune(model, model.hidden[0], [0], optimizer=trainer.optimizer)
        assert all(same(before, photograph(model, data)) for data, before in known)
    known.append((STREAM[2], photograph(model, STREAM[2])))
    model.close("third", trainer.optimizer)
    model.grow("fourth", classes=3, optimizer=trainer.optimizer)  # a head only, which reads all that is there
    trainer.fit(a_task("fourth", 3), epochs=1)
    assert all(same(before, photograph(model, data)) for data, before in known)


def test_a_new_task_learns_while_the_old_ones_stay():
    trainer = a_trainer(a_net("dense"), callbacks=[genesis(hidden=6)])
    trainer.fit(*STREAM, epochs=[20, 20, 20])
    for data in STREAM:
        assert trainer.evaluate(data, "train")["accuracy"] > 0.9


def test_a_task_answers_alone_as_in_company():
    """Blocks are computed in their own shapes: a net that never learned anything else says the same, bit for bit."""
    trainer = a_trainer(a_net())
    trainer.fit(STREAM[0], epochs=2)
    trainer.model.close("first", trainer.optimizer)
    alone = copy.deepcopy(trainer.model)
    for number in range(4):
        trainer.model.grow(f"further{number}", 7, 5, classes=4, optimizer=trainer.optimizer)
    assert same(photograph(alone, STREAM[0]), photograph(trainer.model, STREAM[0]))


# What it rests on


@pytest.mark.parametrize("kind", KINDS)
def test_the_optimizer_holds_every_open_parameter_once_and_no_closed_one(kind):
    trainer = a_trainer(a_net(), kind, [genesis()])
    trainer.fit(*STREAM[:2], epochs=1)
    held = [id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]]
    of_task = {name: {id(p) for p in trainer.model.task_parameters(name).values()} for name in ("first", "second")}
    assert len(held) == len(set(held)) and set(held) == of_task["second"]
    assert {id(parameter) for parameter in trainer.optimizer.state} <= of_task["second"]


def test_closed_blocks_stay_in_eval_mode_and_get_no_gradient():
    trainer = a_trainer(a_net(), callbacks=[genesis()])
    trainer.fit(*STREAM[:2], epochs=1)
    model = trainer.model.train()
    images, labels = STREAM[1].batch("train", torch.arange(16))
    torch.nn.functional.cross_entropy(model(images, "second"), labels).backward()
    assert not any(layer.block(0).training for layer in model.layers.values())
    assert all(layer.block(1).training for layer in model.layers.values())
    assert all(p.grad is None and not p.requires_grad for p in model.task_parameters("first").values())
    assert all(p.grad is not None for p in model.task_parameters("second").values())


@pytest.mark.parametrize("net", NETS)
def test_old_units_never_read_new_ones_and_new_ones_read_old_ones_if_they_may(net):
    for transfer in (True, False):
        model = a_net(net, transfer)
        model.grow("second", 2, 2, classes=2)
        before = [photograph(model, data) for data in STREAM[:2]]
        with torch.no_grad():
            for parameter in model.task_parameters("second").values():
                parameter.add_(1.0)
        assert same(before[0], photograph(model, STREAM[0]))
        before[1] = photograph(model, STREAM[1])
        with torch.no_grad():
            for parameter in model.task_parameters("first").values():
                parameter.add_(1.0)
        assert same(before[1], photograph(model, STREAM[1])) != transfer


# The certificate


@settings(max_examples=40, deadline=None)
@given(data=st.data(), upwards=st.booleans())
def test_one_ulp_in_one_element_is_found(data, upwards):
    model = a_net()
    model.grow("second", 2, 2, classes=2)
    before = retention_snapshot(model, STREAM[0])
    tensors = {**model.task_parameters("first"), **model.task_buffers("first")}
    tensor = tensors[data.draw(st.sampled_from(sorted(tensors)))].detach()
    index = data.draw(st.integers(0, tensor.numel() - 1))
    value = tensor.view(-1)[index]
    towards = torch.tensor(float("inf") if upwards else -float("inf"))
    value.copy_(torch.nextafter(value, towards) if value.is_floating_point() else value + 1)
    found = certified(model, before, STREAM[0])
    assert not found["exact"] and found["tensors_changed"] == 1


def test_the_certificate_counts_what_changed():
    model = a_net("dense")
    before = retention_snapshot(model, STREAM[0], images=5)
    with torch.no_grad():
        model.output.block(0).bias[1] += 0.5
    after = retention_snapshot(model, STREAM[0], images=5)
    found = retention_certificate(before, after)
    assert (found["logits_changed"], found["tensors_changed"], found["exact"]) == (5, 1, False)
    assert found["largest_change"] == pytest.approx(0.5) and found["tasks"] == ["first"]
    assert retention_certificate(after, after)["exact"]


def test_what_belongs_to_other_tasks_does_not_matter():
    model = a_net()
    before = retention_snapshot(model, STREAM[0])
    model.grow("second", 2, 2, classes=2)
    with torch.no_grad():
        for tensor in (*model.task_parameters("second").values(), *model.task_buffers("second").values()):
            tensor.zero_()
    assert certified(model, before, *STREAM[:2])["exact"]


def test_a_snapshot_looks_and_does_not_touch():
    model = a_net().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    snapshot = retention_snapshot(model, STREAM[0])
    assert same(before, model.state_dict()) and model.training
    with torch.no_grad():
        model.output.block(0).bias.add_(1.0)
    assert not certified(model, snapshot, STREAM[0])["exact"]  # it holds copies


def test_what_cannot_be_compared_is_refused():
    model = a_net()
    before = retention_snapshot(model, STREAM[0])
    for name, other in (("device", "cuda:0"), ("threads", before["threads"] + 1)):
        with pytest.raises(ValueError, match=name):
            retention_certificate(before, before | {name: other})
    model.grow("second", 2, 2, classes=2)
    with pytest.raises(ValueError, match="lacks 'first'"):
        certified(model, before, STREAM[1])


def test_certify_compares_every_task_with_the_day_it_ended(tmp_path):
    callbacks = [genesis(), Certify(*STREAM)]
    whole = a_trainer(a_net(), callbacks=callbacks)
    whole.fit(*STREAM, epochs=1)
    certificates = callbacks[1].certificates
    assert [found["tasks"] for found in certificates] == [["first"], ["first", "second"]]
    assert all(found["exact"] for found in certificates)
    assert whole.history.column("logits_changed") == [0, 0]

    parted = a_trainer(a_net(), callbacks=[genesis(), Certify(*STREAM)])
    parted.callbacks.append(Saved(tmp_path / "run.pt", task=1))
    parted.fit(*STREAM, epochs=1)
    again = [genesis(), Certify(*STREAM), Saved(tmp_path / "never.pt", task=9)]
    resumed = Trainer.load(tmp_path / "run.pt", callbacks=again, device="cpu")
    resumed.fit(*STREAM, epochs=1)
    assert again[1].certificates == certificates
    assert resumed.history.losses == whole.history.losses


def test_what_compares_nothing_certifies_nothing():
    model, data = a_net("dense"), STREAM[0]
    with pytest.raises(ValueError, match="needs the data sets of the tasks"):
        retention_snapshot(model)
    with pytest.raises(ValueError, match="images=0 must be a whole number of at least 1"):
        retention_snapshot(model, data, images=0)
    empty = replace(data, val=Split(data.val.images[:0], data.val.labels[:0]))
    with pytest.raises(ValueError, match="first: no validation images"):
        retention_snapshot(model, empty)
    for nothing in ({}, {"first": {"logits": torch.zeros(0, 2), "tensors": {}}}):
        snapshot = {"tasks": nothing, "device": "cpu", "threads": 1}
        with pytest.raises(ValueError, match="it certifies nothing"):
            retention_certificate(snapshot, snapshot)
    with pytest.raises(ValueError, match="needs the data sets"):
        Certify()
    before = retention_snapshot(model, data)
    assert retention_certificate(before, before)["exact"] and before["tasks"]["first"]["logits"].numel()


class Saved(Callback):
    """Writes a checkpoint at the end of a task."""

    may_differ = ("path", "task")

    def __init__(self, path, task: int):
        self.path, self.task = path, task

    def after_task(self, trainer):
        if trainer.data.name == STREAM[self.task % 3].name and self.task < 3:
            trainer.save(self.path)

    def state_dict(self) -> dict:
        return {}


# What does not keep a task: each has to be found out


class Masked(Callback):
    """The original's protection: gradients of other tasks are set to zero, and nothing is closed."""

    def after_backward(self, trainer):
        trainer.model.apply_task_gradient_mask(trainer.data.name)


def after_masking(net, optimizer, fresh=True, units=2):
    """Two tasks under the gradient mask alone: what the certificate says of the first."""
    model = a_net(net)
    trainer = Trainer(model, optimizer(model), [Masked()], batch_size=16, device="cpu")
    trainer.fit(STREAM[0], epochs=2)
    before = retention_snapshot(model, STREAM[0])
    width = units if model.convolutions else 0
    model.grow("second", width, units if model.dense else 0, classes=2, optimizer=trainer.optimizer)
    if fresh:
        trainer = Trainer(model, optimizer(model), [Masked()], batch_size=16, device="cpu")
    trainer.fit(STREAM[1], epochs=2)
    return certified(model, before, STREAM[0])


@pytest.mark.parametrize("kind", ["SGD", "Adam", "RMSprop", "Adagrad"])
def test_the_gradient_mask_keeps_a_task_as_long_as_nothing_else_moves_weights(kind):
    assert after_masking("conv", lambda model: an_optimizer(model, kind))["exact"]


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_weight_decay_passes_by_the_gradient_mask(kind):
    found = after_masking("conv", lambda model: an_optimizer(model, kind, decay=0.01))
    assert not found["exact"] and found["logits_changed"]
    assert found["tensors_changed"] == found["tensors"] - 2  # the old head has no gradient at all, and is passed over


@pytest.mark.parametrize("kind, momentum", [("Adam", 0.0), ("SGD", 0.9), ("RMSprop", 0.9)])
def test_a_warm_optimizer_passes_by_the_gradient_mask(kind, momentum):
    for fresh in (True, False):
        found = after_masking("conv", lambda model: an_optimizer(model, kind, momentum=momentum), fresh)
        assert found["exact"] == fresh


def test_shared_statistics_pass_by_the_gradient_mask():
    """A second head on the same convolutions: no weight of the first task moves, and its answers do."""
    plain = lambda model: an_optimizer(model, "SGD")  # noqa: E731
    found = after_masking("conv, norm", plain, units=0)
    assert not found["exact"] and found["logits_changed"]
    assert found["tensors_changed"] == 2 * 3  # mean, variance and count of two normalisations
    assert after_masking("conv", plain, units=0)["exact"]
