"""TaskSpeedNet: SpeedNet for one task, and for several exact retention."""

import copy
from dataclasses import replace

import pytest
import torch
from networks import relative, shaken
from torch.nn.functional import cross_entropy

from growlib import (
    Callback,
    Freeze,
    Lookahead,
    LRSchedule,
    NeuronGenesis,
    SpeedNet,
    TaskSpeedNet,
    Trainer,
    Whiten,
    check_growth,
    every,
    load,
    new_task,
    norm_biases_apart,
    prune,
    retention_certificate,
    retention_snapshot,
    triangle,
    whiten,
    widen,
)


def net(**settings):
    torch.manual_seed(0)
    model = TaskSpeedNet((2, 9, 9), "a", 4, [3, 4, 5, 4], **settings)
    model.grow("b", 2, classes=3)
    return shaken(model).eval()


def images(size=6, dtype=torch.float32):
    return torch.randn(size, 2, 9, 9, generator=torch.Generator().manual_seed(0)).to(dtype)


def test_its_first_task_is_a_speednet():
    model, plain = net(), SpeedNet((2, 9, 9), [[3, 4], [5, 4]], 4).eval()
    state = {}
    for name, tensor in model.state_dict().items():
        layer, found, rest = name.partition(".blocks.0.")
        number = int(layer[4:]) if layer[4:].isdigit() else 0
        place = f"block{(number + 1) // 2}.{layer[:4]}{2 - number % 2}" if number else layer
        state |= {f"{place}.{rest}": tensor} if found else {}
    plain.load_state_dict(state)
    assert torch.equal(model(images(), "a"), plain(images()))


def test_what_learns_is_what_learns_in_a_speednet():
    model = net().train()
    model.close("a")
    cross_entropy(model(images(), "b"), torch.zeros(6, dtype=torch.int64)).backward()
    learned = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert {name for name in learned if "blocks.0" in name} == set()
    kinds = {"stem.blocks.1.bias", "output.blocks.1.weight"}
    kinds |= {
        f"{kind}.blocks.1.{part}" for n in range(1, 5) for kind, part in ((f"conv{n}", "weight"), (f"norm{n}", "bias"))
    }
    assert learned == kinds


def test_a_new_task_begins_by_passing_on_its_own_units():
    model = net()
    first, second = (model.conv2.block(task).weight for task in (0, 1))
    assert torch.equal(first[:3, :, 1, 1], torch.eye(3)) and first[:3].sum() == 3
    assert (
        torch.equal(second[:2, 3:, 1, 1], torch.eye(2)) and second[:2].sum() == 2
    )  # it reads 3 units of a and 2 of its own
    assert model.conv1.sources == {0: [0], 1: [1]} and model.conv2.sources == {0: [0], 1: [0, 1]}


def test_the_configuration_builds_the_same_architecture():
    for settings in ({}, {"transfer": False}, {"closed": ["a"]}, {"pools": [1]}):
        model = net(**settings)
        twin = TaskSpeedNet(**model.config()).eval()
        twin.load_state_dict(model.state_dict())
        for task in "ab":
            assert torch.equal(twin(images(), task), model(images(), task))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_the_open_task_grows_and_answers_as_before(dtype, tolerance):
    model = net().to(dtype)
    model.close("a")
    inputs = images(dtype=dtype)
    before = model(inputs, "a"), model(inputs, "b")
    model.grow("b", 2)
    assert relative(model(inputs, "b"), before[1]) <= tolerance
    for hidden in model.hidden:
        found = check_growth(model, widen(model, hidden, 2), inputs)
        assert found["moved"] <= tolerance and not found["twins"]
    prune(model, "conv3", [0])
    assert torch.equal(model(inputs, "a"), before[0])


def test_a_task_may_have_a_head_only():
    model = net()
    model.grow("c", classes=5)
    assert model(images(), "c").shape == (6, 5) and model.stem.block(2) is None
    assert torch.equal(model(images(), ["a", "c"])[1], model(images(), "c"))


def test_new_tensors_join_the_groups_of_their_kind():
    model = net()
    groups = norm_biases_apart(model, lr=0.1)
    optimizer = torch.optim.SGD(groups, lr=0.1)
    model.grow("c", 2, classes=3, optimizer=optimizer)
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    rest, biases = ({named[id(p)] for p in group["params"]} for group in optimizer.param_groups)
    learns = {name for name, parameter in model.task_parameters("c").items() if parameter.requires_grad}
    assert learns & biases == {f"norm{n}.blocks.2.bias" for n in range(1, 5)}
    assert learns - biases <= rest and "stem.blocks.2.bias" in rest


# -------------------------------------------------------------------------------------------------------- retention


def tasks(size=120):
    data, found = load("digits"), []
    for number, name in enumerate(("one", "two", "three")):
        parts = {
            split: type(data.train)(
                getattr(data, split).images[:size].roll(number, 3), getattr(data, split).labels[:size]
            )
            for split in ("train", "val", "test")
        }
        found.append(replace(data, name=name, **parts).augmented(shift=1, flip="alternating", border="reflect"))
    return found


def recipe(growth=False):
    when = new_task() | every(1, "epoch") if growth else new_task()
    return [
        NeuronGenesis(channels=2, hidden=0, when=when),
        Whiten(examples=60),
        Freeze("stem*bias", after=1),
        LRSchedule(triangle, per="step"),
        Lookahead(),
    ]


def trainer_of(callbacks):
    torch.manual_seed(0)
    model = TaskSpeedNet((1, 8, 8), "one", 10, [3, 3])
    groups = norm_biases_apart(model, lr=0.05, weight_decay=0.01, factor=8)
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.85, nesterov=True)
    return Trainer(model, optimizer, callbacks, batch_size=30, device="cpu")


@torch.no_grad()
def photograph(model, data):
    """What a task says of its test images, and all that is stored under its name."""
    model.eval()
    number = model.tasks.index(data.name)
    own = {name: value.clone() for name, value in model.state_dict().items() if f".blocks.{number}." in name}
    return {"logits": model(data.normalize(data.test.images), data.name).clone(), **own}


@pytest.mark.filterwarnings("ignore:growlib. all new units:UserWarning")
@pytest.mark.parametrize("growth", [False, True])
@pytest.mark.parametrize("reload", [False, True])
def test_nothing_that_is_learned_later_changes_a_bit_of_a_closed_task(tmp_path, growth, reload):
    trainer, stream, seen = trainer_of(recipe(growth)), tasks(), []
    for data in stream:
        trainer.fit(data, epochs=2)
        for old, before, snapshot in seen:
            now = photograph(trainer.model, old)
            assert before.keys() == now.keys() and all(torch.equal(before[name], now[name]) for name in before)
            assert retention_certificate(snapshot, retention_snapshot(trainer.model, old))["exact"]
        seen.append((data, photograph(trainer.model, data), retention_snapshot(trainer.model, data)))
        if reload:
            trainer.save(tmp_path / "run.pt")
            trainer = Trainer.load(tmp_path / "run.pt", callbacks=recipe(growth), device="cpu")
    assert trainer.model.closed == {"one", "two"}
    assert bool(growth) == any(change["kind"] == "widen" for change in trainer.history.changes)


def test_the_negative_control_an_open_task_does_change():
    trainer, stream = trainer_of(recipe()), tasks()
    trainer.fit(stream[0], epochs=1)
    before = photograph(trainer.model, stream[0])
    trainer.fit(stream[0], epochs=1)
    assert not torch.equal(photograph(trainer.model, stream[0])["logits"], before["logits"])


def test_every_task_has_a_stem_whitened_by_its_own_images():
    trainer, stream = trainer_of(recipe()), tasks()
    trainer.fit(*stream[:2], epochs=1)
    for number, data in enumerate(stream[:2]):
        twin = copy.deepcopy(trainer.model.stem.block(number))
        whiten(twin, data.batch("train", torch.arange(60))[0])
        assert torch.equal(twin.weight, trainer.model.stem.block(number).weight)


class Stop(Callback):
    """Stops the run after a step."""

    def __init__(self, at):
        self.at = at

    def after_step(self, trainer):
        if trainer.step == self.at:
            trainer.stop_run("enough")


def test_a_resumed_run_equals_one_that_did_not_stop(tmp_path):
    whole = trainer_of(recipe())
    whole.fit(*tasks(), epochs=2)
    parted = trainer_of(recipe())
    parted.callbacks.append(Stop(at=11))
    parted.fit(*tasks(), epochs=2)
    parted.callbacks.pop()
    parted.save(tmp_path / "run.pt")
    parted = Trainer.load(tmp_path / "run.pt", callbacks=recipe(), device="cpu")
    assert parted.step == 11 and len(parted.model.tasks) == 2
    parted.fit(*tasks(), epochs=2)
    assert parted.history.losses == whole.history.losses
    mine, theirs = parted.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
