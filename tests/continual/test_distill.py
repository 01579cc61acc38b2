"""Distill: its loss against loops over single examples, what it keeps, and what it makes small."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.optim import Adam

from growlib import MLP, Trainer, load
from growlib.continual.distill import Distill
from growlib.data import split_by_class
from growlib.models import TaskNet


@pytest.fixture
def tasks():
    return split_by_class(load("digits"), 5)


def shared(tasks, hidden=(16,)):
    """One trunk with a head for every task."""
    model = TaskNet(tasks[0].shape, tasks[0].name, len(tasks[0].classes), hidden=hidden)
    for data in tasks[1:]:
        model.grow(data.name, classes=len(data.classes))
    return model


def divergence(logits, wanted, temperature):
    """Of one example: the sum of q log(q / p), both softened, in the units of the labels' loss."""
    p, q = ((values / temperature).softmax(0).tolist() for values in (logits, wanted))
    return temperature**2 * sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))


class Losses(nn.Module):
    """A trainer of one moment: what `after_loss` reads."""

    def __init__(self, model, data, logits_of, seed=3):
        super().__init__()
        self.model, self.data, self.device, self.seed = model, data, torch.device("cpu"), seed
        self.inputs, self.labels = data.batch("train", torch.arange(12))
        self.logits, self.loss = logits_of(self.inputs), nn.functional.cross_entropy
        self.batch_loss = self.loss(self.logits, self.labels)


def test_a_teacher_that_knows_the_task(tasks):
    torch.manual_seed(0)
    teacher, model = shared(tasks).double(), shared(tasks[:2]).double()
    data = tasks[1]
    now = Losses(model, data, lambda inputs: model(inputs.double(), data.name))
    now.inputs = now.inputs.double()
    hard, callback = now.batch_loss.item(), Distill(teacher, weight=0.3, temperature=3.0)
    callback.before_fit(now)
    callback.after_loss(now)
    pairs = zip(model(now.inputs, data.name), teacher(now.inputs, data.name), strict=True)
    soft = sum(divergence(*pair, 3.0) for pair in pairs) / len(now.inputs)
    assert now.batch_loss.item() == pytest.approx(0.7 * hard + 0.3 * soft)
    now.batch_loss.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert any(parameter.grad is not None for parameter in model.parameters())


def test_a_teacher_of_the_tasks_before_is_asked_about_them(tasks):
    torch.manual_seed(0)
    teacher = shared(tasks[:2]).double()
    model, data = shared(tasks[:3]).double(), tasks[2]
    now = Losses(model, data, lambda inputs: model(inputs.double(), data.name))
    now.inputs = now.inputs.double()
    hard = now.batch_loss.item()
    Distill(teacher, weight=0.5, temperature=2.0).after_loss(now)
    soft = 0
    for old in tasks[:2]:
        pairs = zip(model(now.inputs, old.name), teacher(now.inputs, old.name), strict=True)
        soft += sum(divergence(*pair, 2.0) for pair in pairs) / len(now.inputs) / 2
    assert now.batch_loss.item() == pytest.approx(0.5 * hard + 0.5 * soft)


def test_weight_zero_is_training_without_a_teacher_and_the_teacher_stays(tasks):
    ends = {}
    for weight in (None, 0.0, 0.5):
        torch.manual_seed(0)
        teacher, model = MLP(64, [9], 2), MLP(64, [8], 2)
        before = copy.deepcopy(teacher.state_dict())
        callbacks = [] if weight is None else [Distill(teacher, weight=weight)]
        Trainer(model, Adam(model.parameters(), 1e-2), callbacks, device="cpu").fit(tasks[0], epochs=1)
        ends[weight] = model.output.weight
        assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
        assert teacher.training
    assert torch.equal(ends[None], ends[0.0]) and not torch.allclose(ends[None], ends[0.5])


def accuracy(trainer, data):
    return sum(trainer.evaluate(one)["accuracy"] for one in data) / len(data)


def test_a_compact_model_takes_over_all_tasks_of_a_finished_one(tasks):
    torch.manual_seed(0)
    teacher = TaskNet(tasks[0].shape, tasks[0].name, 2, hidden=[24])
    trainer = Trainer(teacher, Adam(teacher.parameters(), 1e-2), device="cpu", batch_size=32)
    for number, data in enumerate(tasks):
        if number:
            teacher.close(tasks[number - 1].name, optimizer=trainer.optimizer)
            teacher.grow(data.name, hidden=24, classes=2, optimizer=trainer.optimizer)
        trainer.fit(data, epochs=8)
    found, untrained = {}, shared(tasks)
    for name, source in (("finished", teacher), ("untrained", untrained)):
        torch.manual_seed(1)
        model = shared(tasks, hidden=[24])
        callbacks = [Distill(source, *tasks, weight=1.0)]  # no label is seen
        student = Trainer(model, Adam(model.parameters(), 1e-2), callbacks, device="cpu", batch_size=32)
        student.fit(*tasks, epochs=3)
        found[name] = accuracy(student, tasks)
    assert found["finished"] > max(0.95, accuracy(trainer, tasks) - 0.02) and found["untrained"] < 0.8
    assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in teacher.parameters()) / 3


def test_the_previous_model_keeps_old_answers(tasks):
    kept = {}
    for weight in (0.0, 0.7):
        torch.manual_seed(0)
        model = shared(tasks[:1], hidden=[32])
        trainer = Trainer(model, Adam(model.parameters(), 1e-2), device="cpu", batch_size=32)
        trainer.fit(tasks[0], epochs=5)
        before = copy.deepcopy(model)
        model.grow(tasks[1].name, classes=2, optimizer=trainer.optimizer)
        trainer.callbacks.append(Distill(before, weight=weight))
        trainer.fit(tasks[1], epochs=10)
        inputs, _ = tasks[0].batch("val", torch.arange(len(tasks[0].val)))
        kept[weight] = float((model(inputs, 0).softmax(1) - before(inputs, 0).softmax(1)).abs().mean())
    assert kept[0.7] < kept[0.0] / 2


def test_resuming_goes_on_as_if_it_had_not_stopped(tasks, tmp_path):
    def fresh():
        torch.manual_seed(0)
        teacher, model = shared(tasks), shared(tasks, hidden=[8])
        return model, Distill(teacher, *tasks)

    model, callback = fresh()
    whole = Trainer(model, Adam(model.parameters(), 1e-2), [callback], device="cpu")
    whole.fit(tasks[0], epochs=2)
    model, callback = fresh()
    part = Trainer(model, Adam(model.parameters(), 1e-2), [callback], device="cpu")
    part.fit(tasks[0], epochs=1)
    part.save(tmp_path / "part.pt")
    resumed = Trainer.load(tmp_path / "part.pt", callbacks=[fresh()[1]], device="cpu")
    resumed.fit(tasks[0], epochs=1)
    assert resumed.history.losses == whole.history.losses


def test_what_cannot_be_distilled_is_refused(tasks):
    model = MLP(64, [8], 2)
    with pytest.raises(ValueError, match="give Distill a copy"):
        Trainer(model, Adam(model.parameters()), [Distill(model)], device="cpu").fit(tasks[0], epochs=1)
    with pytest.raises(ValueError, match="of task 'digits-1' the teacher knows 3 classes, and the model 2"):
        Trainer(model, Adam(model.parameters()), [Distill(MLP(64, [8], 3))], device="cpu").fit(tasks[0], epochs=1)
    for weight, temperature in ((1.5, 2.0), (0.5, 0.0), (0.5, math.inf)):
        with pytest.raises(ValueError, match="the weight is a share from 0 to 1"):
            Distill(model, weight=weight, temperature=temperature)
