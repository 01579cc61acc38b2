"""PackNet: who owns what, and that what is owned stays as it is, bit for bit."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tasks import Heads, cut_in_two, halves, make, same
from torch import nn

from growlib import MLP, Callback, TaskNet, Trainer, load
from growlib.continual import PackNet
from growlib.continual.packnet import parts
from growlib.data import Split
from growlib.trainer import load_model


@pytest.fixture(scope="module")
def tasks():
    """Three of them: the third is the first with its labels turned."""
    one, two = halves(load("digits"), 100)
    turned = {n: Split(getattr(one, n).images, 4 - getattr(one, n).labels) for n in ("train", "val", "test")}
    return [one, two, replace(one, name="turned", **turned)]


class Deeper(Heads):
    """With a second hidden layer."""

    def __init__(self, tasks, **settings):
        super().__init__(tasks, **settings)
        self.hidden2 = nn.Linear(12, 12)

    def forward(self, x, task):
        hidden = self.norm(self.hidden1(x.flatten(1))).relu()
        return self.heads[task](self.hidden2(hidden).relu())


def answers(trainer, data):
    with torch.no_grad():
        training = trainer.model.training
        trainer.model.eval()
        found = trainer.model(data.batch("val", torch.arange(len(data.val)))[0], data.name)
        trainer.model.train(training)
        return found.clone()


def accuracy(trainer, data):
    return float((answers(trainer, data).argmax(1) == data.val.labels).float().mean())


class Snapshots(Callback):
    """The answers of a task when it ended, and after every later step whether they are the same."""

    def __init__(self, tasks):
        self.tasks, self.then, self.same = tasks, {}, []

    def after_step(self, trainer):
        self.same += [torch.equal(answers(trainer, data), self.then[data.name]) for data in self.done()]

    def done(self):
        return [data for data in self.tasks if data.name in self.then]

    def after_task(self, trainer):
        self.then[trainer.data.name] = answers(trainer, trainer.data)


def run(tasks, pack, optimizer="Adam", norm=False, epochs=3, **given):
    torch.manual_seed(0)
    model = Deeper([data.name for data in tasks], norm=norm)
    rate = {"SGD": 0.1, "RMSprop": 1e-3}.get(optimizer, 1e-2)
    optimizer = getattr(torch.optim, optimizer)(model.parameters(), lr=rate, **given)
    watch = Snapshots(tasks)
    trainer = Trainer(model, optimizer, [pack, watch], device="cpu", batch_size=32)
    trainer.fit(*tasks, epochs=epochs)
    return trainer, watch


OPTIMIZERS = [
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("Adam", {}),
    ("AdamW", {}),
    ("RMSprop", {}),
    ("Adagrad", {}),
]


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("optimizer, given", OPTIMIZERS)
def test_packed_tasks_answer_as_before_bit_for_bit(tasks, optimizer, given, norm, decay):
    _, watch = run(tasks, PackNet(0.3), optimizer, norm, weight_decay=decay, **given)
    assert len(watch.same) == 4 * 3 + 2 * 4 * 3 and all(watch.same)


class Unrestored(PackNet):
    def after_step(self, trainer):
        self.values = {name: trainer.model.get_parameter(name).detach() for name in self.fixed}
        super().after_step(trainer)


class Unmasked(PackNet):
    def before_task(self, trainer):
        super().before_task(trainer)
        trainer.model._forward_pre_hooks.clear()


class Moving(PackNet):
    def before_step(self, trainer):
        pass


@pytest.mark.parametrize(
    "kind, given",
    [(Unrestored, {"weight_decay": 0.1}), (Unmasked, {}), (Moving, {"norm": True})],
    ids=["weight decay moves owned weights", "old tasks see new weights", "statistics move"],
)
def test_the_tests_notice_what_would_leak(tasks, kind, given):
    _, watch = run(tasks, kind(0.3), "AdamW", **given)
    assert not all(watch.same)
    _, watch = run(tasks, PackNet(0.3), "AdamW", **given)
    assert all(watch.same)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.05, 0.33))
def test_every_task_owns_its_share_of_every_layer(tasks, keep):
    trainer, _ = run(tasks, pack := PackNet(keep), epochs=1)
    assert set(pack.owners) == {"hidden1.weight", "hidden2.weight"}
    for name, owner in pack.owners.items():
        assert owner.flatten().long().bincount(minlength=4)[1:].tolist() == [round(keep * owner.numel())] * 3
        weight = trainer.model.get_parameter(name)
        assert (weight[owner == 0] == 0).all() and (weight[owner == 1] != 0).all()


def test_the_largest_free_weights_are_kept(tasks):
    pack = PackNet(0.25)

    trainer = make([pack], tasks, model=Deeper([data.name for data in tasks]))
    trainer.fit(tasks[0], epochs=1)
    weight, owner = trainer.model.hidden1.weight, pack.owners["hidden1.weight"]
    weight.data = torch.randn_like(weight)
    old, sizes = owner == 1, weight.detach().abs().clone()
    pack.tasks.append("next")
    pack.prune(trainer)
    ours, others = sizes[owner == 2], sizes[owner == 0]
    assert len(ours) == round(0.25 * weight.numel()) and ours.min() >= others.max()
    assert torch.equal(owner == 1, old)


def test_what_is_given_back_leaves_nothing_in_the_optimizer(tasks):
    trainer, _ = run(tasks[:2], pack := PackNet(0.3), "Adam")
    for name, owner in pack.owners.items():
        state = trainer.optimizer.state[trainer.model.get_parameter(name)]
        assert (state["exp_avg"][owner == 0] == 0).all() and (state["exp_avg"][owner == 2] != 0).any()


def test_later_tasks_learn_with_what_is_left(tasks):
    trainer, _ = run(tasks, PackNet(0.3), epochs=20)
    for data in tasks:
        assert accuracy(trainer, data) > 0.7


def test_it_remembers_where_a_plain_network_forgets(tasks):
    torch.manual_seed(0)
    trainer = make([], tasks, model=Deeper([data.name for data in tasks]))
    trainer.fit(*tasks, epochs=20)
    assert accuracy(trainer, tasks[0]) < 0.7


def test_parts_tell_the_head_from_what_is_shared(tasks):
    model = Deeper([data.name for data in tasks])
    inputs = tasks[1].batch("train", torch.arange(2))[0]
    used, head = parts(model, inputs, tasks[1].name)
    assert head == [f"heads.{tasks[1].name}.weight", f"heads.{tasks[1].name}.bias"]
    assert set(used) - set(head) == {f"hidden{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias")}
    assert not any(module._forward_hooks for module in model.modules())


def test_a_resumed_run_is_the_run(tasks, tmp_path):
    for step in (4 * 2 + 1, 4 * 3 + 3):  # in the second task: before it is pruned, and after
        file = tmp_path / f"{step}.pt"
        whole, parted = cut_in_two(file, lambda: [PackNet(0.3)], tasks[:2], step, epochs=2)
        assert same(whole, parted)
        for data in tasks[:2]:
            assert torch.equal(answers(whole, data), answers(parted, data))
    forgetful = type("PackNet", (PackNet,), {"state_dict": lambda self: {}})
    with pytest.raises(ValueError, match="belong to tasks that this PackNet knows nothing of"):
        cut_in_two(tmp_path / "other.pt", lambda: [forgetful(0.3)], tasks[:2], 4 * 3 + 3)


def test_a_packed_model_answers_right_wherever_it_is_loaded(tasks, tmp_path):
    trainer, _ = run(tasks, PackNet(0.3))
    trainer.save(tmp_path / "file.pt")
    right = [answers(trainer, data) for data in tasks]
    names = [data.name for data in tasks]
    loaded = Trainer.load(tmp_path / "file.pt", Deeper(names), [PackNet(0.3), Snapshots(tasks)], device="cpu")
    for data, answer in zip(tasks, right, strict=True):
        assert torch.equal(answers(loaded, data), answer)
        assert loaded.evaluate(data) == trainer.evaluate(data)
    alone, twin = load_model(tmp_path / "file.pt", Deeper(names)), copy.deepcopy(trainer.model)
    for model in (alone, twin):
        assert all(torch.equal(answers(Trained(model), data), a) for data, a in zip(tasks, right, strict=True))


class Trained:
    """What `answers` asks for."""

    def __init__(self, model):
        self.model = model


def test_no_way_to_a_packed_model_is_silently_wrong(tasks):
    trainer, _ = run(tasks, pack := PackNet(0.3))
    right, state = answers(trainer, tasks[0]), trainer.model.state_dict()
    fresh = Deeper([data.name for data in tasks])
    with pytest.raises(RuntimeError, match='Unexpected key.* "packed_tasks", "hidden1.weight_owner"'):
        fresh.load_state_dict(state)
    fresh.load_state_dict({name: state[name] for name in fresh.state_dict()})  # on purpose: what would be the answer
    assert not torch.equal(answers(Trained(fresh), tasks[0]), right)
    with pytest.raises(ValueError, match="belong to tasks that this PackNet knows nothing of"):
        make([PackNet(0.3)], tasks, model=trainer.model).fit(tasks[0], epochs=1)
    assert pack.owners["hidden1.weight"] is trainer.model.hidden1.weight_owner


def test_a_task_that_ends_before_it_is_pruned_is_pruned_then(tasks):
    class Stop(Callback):
        def after_epoch(self, trainer):
            if trainer.data.name == tasks[0].name:
                trainer.stop_task("for the test")

    pack, watch = PackNet(0.3), Snapshots(tasks)
    with pytest.warns(UserWarning, match="'digits-1' ended before PackNet pruned it, at 70%"):
        trainer = make([pack, Stop(), watch], tasks, model=Deeper([data.name for data in tasks]))
        trainer.fit(*tasks, epochs=[10, 3, 3])
    for owner in pack.owners.values():
        counts = owner.flatten().long().bincount(minlength=4)[1:].tolist()
        assert counts == [round(0.3 * owner.numel())] * 3
    assert watch.same and all(watch.same)


def test_what_cannot_be_is_refused(tasks):
    with pytest.raises(ValueError, match=r"PackNet\(keep=1.5, train=0.5\): shares between 0 and 1"):
        PackNet(1.5, 0.5)
    with pytest.raises(ValueError, match="2 tasks own 0.5 of every layer each. Let PackNet keep less"):
        run(tasks, PackNet(0.5), epochs=1)
    with pytest.raises(ValueError, match="needs a model with a head for every task, and MLP has one"):
        make([PackNet(0.5)], tasks, model=MLP(64, [4], 5)).fit(tasks[0], epochs=1)
    trainer, _ = run(tasks, PackNet(0.3), epochs=1)
    with pytest.raises(ValueError, match="packed, its weights are fixed: train a new one"):
        trainer.fit(tasks[0], epochs=1)
    with pytest.raises(ValueError, match="ask the model under torch.no_grad"):
        trainer.model(torch.zeros(1, 64), tasks[0].name)


@pytest.mark.parametrize("norm", [False, True])
def test_a_task_net_that_all_tasks_share_is_packed(tasks, norm):
    torch.manual_seed(0)
    model = TaskNet(tasks[0].shape, tasks[0].name, 5, channels=[6, 8], norm=norm, pools=[1])
    for data in tasks[1:]:
        model.grow(data.name, classes=5)
    pack, watch = PackNet(0.3), Snapshots(tasks)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    Trainer(model, optimizer, [pack, watch], device="cpu", batch_size=32).fit(*tasks, epochs=3)
    assert set(pack.owners) == {"conv1.blocks.0.weight", "conv2.blocks.0.weight"} and all(watch.same)


def test_a_task_whose_first_step_failed_goes_on(tasks):
    class Fail(Callback):
        def after_loss(self, trainer):
            if trainer.data.name == tasks[1].name and not self.failed:
                self.failed = True
                raise RuntimeError("once")

    whole, failing = PackNet(0.3), Fail()
    failing.failed = False
    trainer = make([PackNet(0.3), failing], tasks)
    with pytest.raises(RuntimeError, match="once"):
        trainer.fit(*tasks[:2], epochs=2)
    trainer.fit(*tasks[:2], epochs=2)
    clean = make([whole], tasks)
    clean.fit(*tasks[:2], epochs=2)
    assert trainer.history.losses == clean.history.losses and trainer.callbacks[0].tasks == whole.tasks


def test_a_task_that_failed_to_begin_begins_again(tasks):
    class Fail(Callback):
        def before_task(self, trainer):
            self.before_task = lambda trainer: None
            raise RuntimeError("once")

    trainer = make([PackNet(0.3), Fail()], tasks)
    with pytest.raises(RuntimeError, match="once"):
        trainer.fit(tasks[0], epochs=1)
    trainer.fit(tasks[0], epochs=1)
    assert trainer.callbacks[0].tasks == [tasks[0].name]
