"""EWC: the Fisher information against a loop, the springs against their sum, and what they hold."""

import copy

import pytest
import torch
from tasks import Heads, cut_in_two, halves, make, same
from torch import nn
from torch.nn.functional import cross_entropy

from growlib import MLP, TaskNet, load
from growlib.continual import EWC, accuracy_matrix, fisher


@pytest.fixture(scope="module")
def tasks():
    return halves(load("digits"), 200)


def by_loop(model, data, index, **named):
    """The Fisher information one example and one class at a time."""
    model.eval()
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters() if p.requires_grad}
    inputs, _ = data.batch("train", index)
    for x in inputs:
        for label in range(len(data.classes)):
            log_probability = model(x[None], *named.values())[0].log_softmax(0)[label]
            model.zero_grad()
            log_probability.backward()
            for name in total:
                slope = model.get_parameter(name).grad
                total[name] += log_probability.exp().detach() * slope.square() if slope is not None else 0
    model.zero_grad()
    return {name: values / len(index) for name, values in total.items()}


def convolutional():
    layers = [nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 36, 5)]
    model = nn.Sequential(*layers)
    model[1].running_mean.normal_(), model[1].running_var.uniform_(0.5, 2)
    return model


@pytest.mark.parametrize("build", [lambda: MLP(64, [7], 5), convolutional])
def test_fisher_is_a_mean_over_examples_and_classes(tasks, build):
    torch.manual_seed(0)
    model = build()
    list(model.parameters())[0].requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    found = fisher(model.train(), tasks[0], 20, seed=3)
    assert model.training and all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    size = len(tasks[0].train)
    index = torch.randperm(size, generator=torch.Generator().manual_seed(3))[:20]
    wanted = by_loop(model, tasks[0], index)
    assert found.keys() == wanted.keys() and len(found) == len(list(model.parameters())) - 1
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name])


def test_the_square_of_a_batch_gradient_is_something_else(tasks):
    torch.manual_seed(0)
    model = MLP(64, [7], 5)
    found = fisher(model, tasks[0])
    inputs, labels = tasks[0].batch("train", torch.arange(len(tasks[0].train)))
    cross_entropy(model(inputs), labels).backward()
    assert model.output.weight.grad.square().sum() < 0.2 * found["output.weight"].sum()


def test_convolutions_of_a_task_read_colours(tasks):
    data = tasks[0].reshaped((3, 8, 8))
    model = TaskNet(data.shape, data.name, len(data.classes), [4, 6], norm=False)
    found = fisher(model, data, 10)
    index = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[:10]
    wanted = by_loop(model, data, index, task=data.name)
    assert found.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name])


def test_each_task_has_its_own_head(tasks):
    torch.manual_seed(0)
    model = Heads([data.name for data in tasks])
    found = fisher(model, tasks[1])
    wanted = by_loop(model, tasks[1], torch.arange(len(tasks[1].train)), task=tasks[1].name)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name])
    assert not found[f"heads.{tasks[0].name}.weight"].any() and found[f"heads.{tasks[1].name}.weight"].any()


def test_blocks_of_closed_tasks_have_no_springs(tasks):
    torch.manual_seed(0)
    one, two = tasks
    model = TaskNet(one.shape, one.name, 5, channels=[3], hidden=[4])
    model.close(one.name)
    model.grow(two.name, 2, 3, classes=5)
    found = fisher(model, two, 20)
    assert found.keys() == model.task_parameters(two.name).keys()
    index = torch.randperm(len(two.train), generator=torch.Generator().manual_seed(0))[:20]
    wanted = by_loop(model, two, index, task=two.name)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name])


class Springs(EWC):
    """Remembers every task's spring by itself."""

    def after_task(self, trainer):
        kept = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
        super().after_task(trainer)
        self.single = [*getattr(self, "single", []), (fisher(trainer.model, trainer.data), kept)]


def test_two_numbers_a_weight_are_as_good_as_a_spring_for_every_task(tasks):
    springs = Springs(30.0)
    trainer = make([springs], [*tasks, tasks[0]])
    trainer.fit(*tasks, tasks[0], epochs=1)
    model = trainer.model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    total = 0
    for importance, anchors in springs.single:
        for name, parameter in model.named_parameters():
            total = total + 15 * (importance[name] * (parameter - anchors[name]).square()).sum()
    torch.testing.assert_close(springs.penalty(model), total)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    springs.after_backward(trainer)
    slopes = [parameter.grad for parameter in model.parameters()]
    for slope, wanted in zip(slopes, torch.autograd.grad(total, list(model.parameters())), strict=True):
        torch.testing.assert_close(slope, wanted)
    latest = sum(
        15 * (importance[name] * (p - anchors[name]).square()).sum()
        for importance, anchors in springs.single[-1:]
        for name, p in model.named_parameters()
    )
    assert not torch.isclose(springs.penalty(model), latest)  # the last spring alone would not do


def old_accuracy(callbacks, tasks, **settings):
    """Of the first task, after the second was learned."""
    trainer = make(callbacks, tasks, **settings)
    trainer.fit(*tasks, epochs=8)
    with torch.no_grad():
        inputs, labels = tasks[0].batch("val", torch.arange(len(tasks[0].val)))
        return (trainer.model.eval()(inputs, tasks[0].name).argmax(1) == labels).float().mean(), trainer


def test_springs_hold_what_was_learned(tasks):
    naive, free = old_accuracy([], tasks)
    held, _ = old_accuracy([EWC(1000.0)], tasks)
    assert held > naive + 0.1
    loose, other = old_accuracy([EWC(0.0)], tasks)
    assert loose == naive and all(map(torch.equal, free.model.parameters(), other.model.parameters()))


def test_a_resumed_run_is_the_run(tasks, tmp_path):
    steps = len(tasks[0].train) // 32 + 1
    whole, parted = cut_in_two(tmp_path / "file.pt", lambda: [EWC(50.0, examples=30)], tasks, 2 * steps + 3)
    assert same(whole, parted)
    forgetful = [type("EWC", (EWC,), {"state_dict": lambda self: {}})(50.0, examples=30)]
    whole, parted = cut_in_two(tmp_path / "other.pt", lambda: copy.deepcopy(forgetful), tasks, 2 * steps + 3)
    assert not same(whole, parted)


def test_a_network_that_was_widened_is_refused(tasks):
    trainer = make([EWC(1.0)], tasks)
    trainer.fit(tasks[0], epochs=1)
    trainer.model.hidden1 = nn.Linear(64, 13)
    with pytest.raises(ValueError, match=r"EWC remembers hidden1.weight of shape \(12, 64\), and it has \(13, 64\)"):
        trainer.callbacks[-1].penalty(trainer.model)


@pytest.mark.parametrize("settings", [{"strength": -1}, {"strength": float("nan")}, {"strength": 1, "examples": 0}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError, match="EWC"):
        EWC(**settings)


def test_accuracies_of_one_head_are_known_from_the_start(tasks):
    with pytest.raises(ValueError, match="train with Accuracies"):
        accuracy_matrix(make([], tasks).fit(tasks[0], epochs=1))


def test_the_logits_among_other_outputs_are_what_counts(tasks):
    """Of tuples and dicts the importance is that of the logits, see `logits_in`."""

    class Pair(MLP):
        def forward(self, x):
            return super().forward(x), x.sum()

    class Named(MLP):
        def forward(self, x):
            return {"other": x, "logits": super().forward(x)}

    found = []
    for kind in (MLP, Pair, Named):
        torch.manual_seed(0)
        found.append(fisher(kind(64, [4], 5), tasks[0], 20))
    for other in found[1:]:
        assert all(torch.equal(other[name], values) for name, values in found[0].items())
