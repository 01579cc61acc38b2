"""LwF: the divergence against sums, the teacher against a copy of the network, and what it holds."""

import copy
import math

import pytest
import torch
from tasks import Heads, cut_in_two, halves, make, same
from torch.nn.functional import cross_entropy

from growlib import MLP, Callback, TaskNet, load
from growlib.continual import LwF
from growlib.continual.lwf import divergence


@pytest.fixture(scope="module")
def tasks():
    return halves(load("digits"), 100)


def test_the_divergence_is_a_sum_over_classes():
    torch.manual_seed(0)
    logits, teacher = torch.randn(2, 7, 4, dtype=torch.double)
    total, cross = 0.0, 0.0
    for mine, its in zip(logits, teacher, strict=True):
        p, q = ((row / 3).exp() / (row / 3).exp().sum() for row in (its, mine))
        total += sum(float(a) * math.log(float(a) / float(b)) for a, b in zip(p, q, strict=True)) / 7
        cross -= sum(float(a) * math.log(float(b)) for a, b in zip(p, q, strict=True)) / 7
    assert float(divergence(logits, teacher, 3.0)) == pytest.approx(total)
    assert float(divergence(teacher, teacher, 3.0)) == pytest.approx(0, abs=1e-12)
    assert total != pytest.approx(cross)


def test_its_gradient_is_that_of_the_paper():
    torch.manual_seed(0)
    logits, teacher = torch.randn(7, 4, requires_grad=True), torch.randn(7, 4)
    (found,) = torch.autograd.grad(divergence(logits, teacher, 2.0), logits)
    recorded, now = teacher.softmax(1).sqrt(), logits.softmax(1).sqrt()  # y^(1/T), T = 2
    recorded, now = recorded / recorded.sum(1, keepdim=True), now / now.sum(1, keepdim=True)
    (wanted,) = torch.autograd.grad(-(recorded * now.log()).sum(1).mean(), logits)
    torch.testing.assert_close(found, wanted)


class Reference(Callback):
    """Distils from copies of the whole model; compares the loss of every step."""

    teacher, seen = None, 0

    def after_loss(self, trainer):
        inputs, data = trainer.inputs, trainer.data
        wanted = cross_entropy(trainer.logits, trainer.labels)
        if self.teacher is not None:
            for task in self.tasks:
                old = self.teacher(inputs, task).detach()
                wanted = wanted + 0.7 * divergence(trainer.model(inputs, task), old, 2.0)
                self.seen += 1
        assert data.name not in (self.tasks if self.teacher else [])
        if trainer.model.norm.training:
            torch.testing.assert_close(trainer.batch_loss, wanted)

    def after_task(self, trainer):
        self.teacher = copy.deepcopy(trainer.model).eval()
        self.tasks = [*getattr(self, "tasks", []), trainer.data.name]


def test_the_teacher_is_the_network_as_it_was(tasks):
    three = [*tasks, copy.copy(tasks[0])]
    object.__setattr__(three[2], "name", "digits-3")
    reference = Reference()
    model = Heads([data.name for data in three], norm=True)
    trainer = make([LwF(0.7), reference], three, model=model)
    trainer.fit(*three, epochs=1)
    assert reference.seen == 3 * 4  # 4 steps a task: one old head in the second, two in the third
    with pytest.raises(AssertionError):  # another strength is another loss
        make([LwF(0.8), Reference()], three, model=Heads([data.name for data in three])).fit(*three, epochs=1)


def test_it_holds_what_was_learned(tasks):
    found = {}
    for strength in (0.0, 3.0):
        trainer = make([LwF(strength)], tasks)
        trainer.fit(*tasks, epochs=8)
        inputs, labels = tasks[0].batch("train", torch.arange(100))
        found[strength] = (trainer.model(inputs, tasks[0].name).argmax(1) == labels).float().mean()
    assert found[3.0] > found[0.0] + 0.05


def test_a_task_that_comes_again_is_not_distilled(tasks):
    trainer = make([LwF(1.0)], tasks)
    trainer.fit(tasks[0], epochs=1)
    losses = trainer.history.losses[:]
    plain = make([], tasks)
    plain.fit(tasks[0], epochs=1)
    trainer.fit(tasks[0], epochs=1), plain.fit(tasks[0], epochs=1)
    assert trainer.history.losses == plain.history.losses and len(trainer.history.losses) > len(losses)


def test_a_resumed_run_is_the_run(tasks, tmp_path):
    whole, parted = cut_in_two(tmp_path / "file.pt", lambda: [LwF(1.0)], tasks, 8 + 3)
    assert same(whole, parted)
    forgetful = type("LwF", (LwF,), {"state_dict": lambda self: {}})
    whole, parted = cut_in_two(tmp_path / "other.pt", lambda: [forgetful(1.0)], tasks, 8 + 3)
    assert not same(whole, parted)


def test_what_it_can_not_do_is_refused(tasks):
    with pytest.raises(ValueError, match="LwF needs a head for every task, and MLP has no `.tasks`"):
        make([LwF(1.0)], tasks, model=MLP(64, [6], 5)).fit(*tasks, epochs=1)
    for settings in ((-1, 2.0), (1.0, 0.0)):
        with pytest.raises(ValueError, match="a finite number from 0 on, and one above 0"):
            LwF(*settings)


def test_a_network_that_shares_its_trunk_is_distilled_alike(tasks):
    class Slowly(TaskNet):  # one task at a time
        def forward(self, inputs, task=None):
            return super().forward(inputs, task)

    losses = []
    for kind in (TaskNet, Slowly):
        torch.manual_seed(0)
        model = kind(tasks[0].shape, tasks[0].name, 5, channels=[4, 6], pools=[1], norm=False)
        model.grow(tasks[1].name, classes=5)
        model.grow("third", classes=5)
        trainer = make([lwf := LwF(1.0)], tasks, model=model)
        trainer.fit(tasks[0], epochs=1)
        lwf.tasks.append("third")
        trainer.fit(tasks[1], epochs=1)
        losses.append(trainer.history.losses)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
