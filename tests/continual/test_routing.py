"""Inference without a task: entropy, prototypes and accuracies against loops over single images."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from growlib import TaskNet, Trainer, load
from growlib.continual.routing import Prototypes, accuracy_without_task, entropy, route
from growlib.data import Split, split_by_class


class Heads(nn.Module):
    """A trunk with dropout and a head a task, of 2, 3, 4, ... classes unless they are given."""

    def __init__(self, inputs, tasks, classes=None):
        super().__init__()
        self.tasks = list(tasks)
        classes = classes or range(2, 2 + len(self.tasks))
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 8), nn.ReLU(), nn.Dropout(0.5))
        self.heads = nn.ModuleDict({task: nn.Linear(8, count) for task, count in zip(tasks, classes, strict=True)})
        self.sizes = dict.fromkeys(self.tasks, 1.0)

    def features(self, inputs, task):
        return self.trunk(inputs) * self.sizes[task]

    def forward(self, inputs, task):
        return self.heads[task](self.features(inputs, task))


@pytest.fixture
def tasks():
    return split_by_class(load("digits"), 5)


@pytest.fixture
def model(tasks):
    torch.manual_seed(0)
    return Heads(64, [task.name for task in tasks], [2] * 5)


def test_a_class_without_training_examples_attracts_nothing(model, tasks):
    """Its mean would be nan, which is less than any distance to argmin."""
    one = tasks[1].train.labels == 1
    split = Split(tasks[1].train.images[one], tasks[1].train.labels[one])
    lacking = [tasks[0], replace(tasks[1], train=split), *tasks[2:]]
    prototypes = Prototypes(model, *lacking)
    assert len(prototypes.means[tasks[1].name]) == 1 and len(prototypes.means[tasks[0].name]) == 2
    assert all(means.isfinite().all() for means in prototypes.means.values())
    images = tasks[0].normalize(tasks[0].test.images)
    assert prototypes(model.eval(), images, tasks[1].name).isfinite().all()
    assert (route(model, images, prototypes) == 0).any()
    alone = Split(split.images[:1], split.labels[:1])
    with pytest.raises(ValueError, match=r"\(1 examples of 1 classes\): prototypes need more than one example a class"):
        Prototypes(model, replace(tasks[1], train=alone))


def least(values):
    return min(range(len(values)), key=values.__getitem__)


def test_entropy_of_single_images():
    torch.manual_seed(0)
    model, inputs = Heads(4, ["a", "b", "c"]).eval(), torch.randn(6, 4)
    for task, classes in zip(model.tasks, (2, 3, 4), strict=True):
        expected = []
        for row in inputs:
            odds = model(row[None], task)[0].softmax(0).tolist()
            expected.append(-sum(p * math.log(p) for p in odds) / math.log(classes))
        torch.testing.assert_close(entropy(model, inputs, task), torch.tensor(expected))


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=6), st.floats(-10, 10))
def test_entropy_is_a_share_and_knows_no_offset(logits, offset):
    def says(values, task=None):
        return lambda inputs, task: torch.tensor([values], dtype=torch.float64)

    found = entropy(says(logits), None, None)
    assert -1e-12 <= found <= 1 + 1e-12
    torch.testing.assert_close(entropy(says([value + offset for value in logits]), None, None), found)
    torch.testing.assert_close(entropy(says([offset] * len(logits)), None, None), torch.ones(1, dtype=torch.float64))


def test_entropy_of_a_sure_head_is_zero():
    assert entropy(lambda inputs, task: torch.tensor([[200.0, 0, 0]]), None, None) == 0


def test_route_asks_every_head_about_every_image():
    torch.manual_seed(0)
    model, inputs = Heads(4, ["a", "b", "c"]), 3 * torch.randn(40, 4)
    found = route(model, inputs)
    assert model.training  # and dropout was off:
    model.eval()
    with torch.no_grad():
        expected = [least([float(entropy(model, row[None], task)) for task in model.tasks]) for row in inputs]
    assert found.tolist() == expected and len(set(expected)) > 1


def test_route_takes_a_view_for_every_task():
    torch.manual_seed(0)
    model, inputs = Heads(4, ["a", "b"]), torch.randn(5, 4)

    def mean(model, inputs, task):
        return inputs.mean(1)

    assert route(model, [inputs, inputs - 1], by=mean).tolist() == [1] * 5
    assert route(model, [inputs, inputs + 1], by=mean).tolist() == [0] * 5
    with pytest.raises(ValueError, match="3 views of the images for the 2 tasks a, b"):
        route(model, [inputs] * 3)


def test_prototypes_of_single_images(tasks, model):
    prototypes = Prototypes(model, *tasks)
    assert model.training
    model.eval().requires_grad_(False)
    data, task = tasks[1], tasks[1].name
    features = [model.features(data.normalize(image[None]), task)[0] for image in data.train.images]
    labels = data.train.labels.tolist()
    means = []
    for label in range(2):
        own = [feature for feature, other in zip(features, labels, strict=True) if other == label]
        means.append(sum(own) / len(own))
    spread = sum(float((f - means[y]).norm()) for f, y in zip(features, labels, strict=True)) / len(features)
    inputs = tasks[3].normalize(tasks[3].test.images[:9])
    expected = [min(float((model.features(row[None], task)[0] - m).norm()) for m in means) / spread for row in inputs]
    torch.testing.assert_close(prototypes(model, inputs, task), torch.tensor(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scaled", [True, False])
def test_the_scale_makes_tasks_comparable(tasks, model, scaled):
    images = torch.cat([task.normalize(task.test.images[:20]) for task in tasks])
    chosen = []
    for size in (1.0, 100.0):
        model.sizes[tasks[2].name] = size
        prototypes = Prototypes(model, *tasks)
        if not scaled:  # the control: distances as they are
            prototypes.scales = dict.fromkeys(prototypes.scales, 1.0)
        chosen.append(route(model, images, prototypes))
    assert torch.equal(*chosen) == scaled


def test_prototypes_need_the_data_of_a_task(tasks, model):
    with pytest.raises(ValueError, match="no prototypes of task 'digits-5': there are those of 'digits-1', 'digits-2'"):
        route(model, tasks[0].normalize(tasks[0].test.images[:3]), Prototypes(model, *tasks[:4]))


@pytest.mark.parametrize("by", ["entropy", "prototypes", "first"])
def test_accuracies_of_single_images(tasks, model, by):
    rules = {
        "entropy": entropy,
        "prototypes": Prototypes(model, *tasks),
        "first": lambda model, inputs, task: torch.full((len(inputs),), float(model.tasks.index(task))),
    }
    found = accuracy_without_task(model, *tasks, by=rules[by], split="val")
    model.eval().requires_grad_(False)
    for data in tasks:
        right = both = routed = 0
        for image, label in zip(data.val.images, data.val.labels.tolist(), strict=True):
            inputs = data.normalize(image[None])
            sure = [float(rules[by](model, inputs, task)) for task in model.tasks]
            told, guess = int(model(inputs, data.name).argmax()), model.tasks[least(sure)]
            right, routed = right + (told == label), routed + (guess == data.name)
            both += (guess, int(model(inputs, guess).argmax())) == (data.name, label)
        expected = [count / len(data.val) for count in (right, both, routed)]
        assert found.loc[data.name].tolist() == pytest.approx(expected)
    if by == "first":
        assert found["routed"].tolist() == [1, 0, 0, 0, 0] and found["without_task"].sum() <= 1


def test_every_task_sees_the_images_as_its_own_data_are_normalised(tasks, model):
    seen = {}

    def look(model, inputs, task):
        seen.setdefault(task, inputs)
        return inputs.flatten(1).mean(1)

    shifted = [replace(task, mean=task.mean + number) for number, task in enumerate(tasks)]
    accuracy_without_task(model, *reversed(shifted), by=look)
    last = shifted[-1]
    for data in shifted:
        torch.testing.assert_close(seen[data.name], data.normalize(last.test.images[: len(seen[data.name])]))


def test_data_of_every_task_are_asked_for(tasks, model):
    with pytest.raises(
        ValueError, match="knows the tasks digits-1.*and the data are digits-1, digits-2: give those of"
    ):
        accuracy_without_task(model, *tasks[:2])
    with pytest.raises(ValueError, match="unknown split 'tests'"):
        accuracy_without_task(model, *tasks, split="tests")


def test_a_grown_network_finds_most_tasks_by_itself(tasks):
    torch.manual_seed(0)
    model = TaskNet((1, 8, 8), tasks[0].name, 2, hidden=[24])
    trainer = Trainer(model, torch.optim.Adam(model.parameters(), 1e-2), device="cpu", batch_size=32)
    for number, data in enumerate(tasks):
        if number:
            model.close(tasks[number - 1].name, trainer.optimizer)
            model.grow(data.name, hidden=24, classes=2, optimizer=trainer.optimizer)
        trainer.fit(data, epochs=4)
    for by in (entropy, Prototypes(model, *tasks)):
        found = accuracy_without_task(model, *tasks, by=by, split="val").mean()
        assert found["with_task"] > 0.95 > found["without_task"] > 0.4  # by chance: 0.1
        assert found["without_task"] <= min(found["with_task"], found["routed"])
