"""GEM and A-GEM: projections against a slow search, and what a step does to what is remembered."""

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tasks import cut_in_two, halves, make, same
from torch.nn.functional import cross_entropy

from growlib import Callback, load
from growlib.continual import AGEM, GEM, projected
from growlib.continual.gem import gradients, nonnegative


@pytest.fixture(scope="module")
def tasks():
    return halves(load("digits"), 100)


def nearest(gradient, old):
    """The nearest point that satisfies all conditions: tries every set of conditions that may hold as equations."""
    best = None
    for size in range(len(old) + 1):
        for some in combinations(range(len(old)), size):
            rows = old[list(some)]
            point = gradient - rows.T @ torch.linalg.pinv(rows @ rows.T) @ (rows @ gradient) if some else gradient
            allowed = (old @ point >= -1e-9 * gradient.norm()).all()
            if allowed and (best is None or (point - gradient).norm() < (best - gradient).norm()):
                best = point
    return best


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 8), st.floats(0, 2))
def test_the_projection_is_the_nearest_allowed_gradient(seed, count, size, pull):
    generator = torch.Generator().manual_seed(seed)
    gradient = torch.randn(size, generator=generator, dtype=torch.float64)
    old = torch.randn(count, size, generator=generator, dtype=torch.float64) - pull * gradient
    found = projected(gradient, old)
    assert (old @ found >= -1e-8 * old.norm() * gradient.norm()).all()
    torch.testing.assert_close(
        (found - gradient).norm(), (nearest(gradient, old) - gradient).norm(), rtol=1e-6, atol=1e-8
    )


def test_a_gradient_that_harms_nobody_is_returned_itself():
    gradient, old = torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, -1.0]])
    assert projected(gradient, old) is gradient
    assert projected(gradient, -old) is not gradient


def test_one_condition_is_the_rule_of_a_gem():
    gradient, old = torch.randn(20, dtype=torch.float64), torch.randn(20, dtype=torch.float64)
    old = old if old @ gradient < 0 else -old
    wanted = gradient - (gradient @ old) / (old @ old) * old
    torch.testing.assert_close(projected(gradient, old[None]), wanted)


def test_projecting_one_after_the_other_is_not_enough():
    gradient, old = torch.tensor([-1.0, -1.0]).double(), torch.tensor([[1.0, 0.2], [-0.8, 1.0]]).double()
    point = gradient
    for row in old:
        point = point - min(0, point @ row) / (row @ row) * row
    assert (old @ point < -1e-3).any()
    assert (old @ projected(gradient, old) >= -1e-12).all()


def test_equal_and_empty_memories_do_no_harm():
    gradient = torch.tensor([1.0, -1.0, 0.5])
    row = torch.tensor([-1.0, 0.5, 0.0])
    found = projected(gradient, torch.stack([row, row, torch.zeros(3)]))
    torch.testing.assert_close(found, projected(gradient, row[None]))


def test_a_margin_is_the_least_weight_of_every_task():
    torch.manual_seed(0)
    gradient, old = torch.randn(6).double(), torch.randn(3, 6).double()
    assert (old @ gradient < 0).any()
    weights = torch.linalg.lstsq(old.T, projected(gradient, old, 0.5) - gradient).solution
    assert (weights >= 0.5 - 1e-9).all()
    weights = torch.linalg.lstsq(old.T, projected(gradient, old) - gradient).solution
    assert weights.min() < 0.5


@given(st.integers(0, 10_000), st.integers(1, 12))
def test_the_solver_meets_the_conditions_of_an_optimum(seed, size):
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(size, max(1, size - 2), generator=generator, dtype=torch.float64)  # singular, often
    matrix, vector = factor @ factor.T, factor @ torch.randn(factor.shape[1], generator=generator, dtype=torch.float64)
    found = nonnegative(matrix, vector)
    slope = matrix @ found + vector
    assert (found >= 0).all() and (slope >= -1e-7 * vector.abs().max()).all()
    assert abs(float(found @ slope)) <= 1e-7 * float(vector.abs().max()) * (1 + float(found.sum()))


def of_memory(trainer, name, data):
    """The gradient of the loss over a task's memory, example by example."""
    total, parameters = 0.0, list(trainer.model.parameters())
    for x, label in zip(data.normalize(data.train.images), data.train.labels, strict=True):
        total = total + cross_entropy(trainer.model(x[None], name), label[None]) / len(data.train)
    found = torch.autograd.grad(total, parameters, allow_unused=True)
    return torch.cat(
        [torch.zeros(p.numel()) if g is None else g.flatten() for g, p in zip(found, parameters, strict=True)]
    )


class Watch(Callback):
    """Notes the inner products of the gradient with those of the memory, of `gem`."""

    def __init__(self, gem):
        self.gem, self.products = gem, []

    def after_backward(self, trainer):
        now = gradients(trainer.model)
        for name, data in self.gem.kept.items():
            if name != trainer.data.name:
                old = of_memory(trainer, name, data)
                self.products.append(float(now @ old / (now.norm() * old.norm()).clamp_min(1e-12)))


def test_no_step_goes_against_what_is_remembered(tasks):
    gem = GEM(40)
    before, after = Watch(gem), Watch(gem)
    make([before, gem, after], tasks).fit(*tasks, epochs=3)
    assert min(before.products) < -0.05  # it would have
    assert len(after.products) == len(before.products) and min(after.products) > -1e-4


def test_a_gem_keeps_to_its_one_condition(tasks):
    gem = AGEM(40)
    before, after = Watch(gem), Watch(gem)  # of two tasks, with a batch as large as the memory: the same condition
    trainer = make([before, gem, after], tasks)
    trainer.batch_size = 50
    trainer.fit(*tasks, epochs=6)
    assert min(before.products) < -0.01
    assert min(after.products) > -1e-4


@pytest.mark.parametrize("kind", [GEM, AGEM])
def test_it_holds_what_was_learned(tasks, kind):
    found = {}
    for name, callbacks in {"kept": [kind(60)], "naive": []}.items():
        trainer = make(callbacks, tasks)
        trainer.fit(*tasks, epochs=10)
        logits = trainer.model(tasks[0].batch("val", torch.arange(len(tasks[0].val)))[0], tasks[0].name)
        found[name] = (logits.argmax(1) == tasks[0].val.labels).float().mean()
    assert found["kept"] > found["naive"] + 0.05


@pytest.mark.parametrize("kind", [GEM, AGEM])
def test_a_resumed_run_is_the_run(tasks, tmp_path, kind):
    whole, parted = cut_in_two(tmp_path / "file.pt", lambda: [kind(30)], tasks, 8 + 3)
    assert same(whole, parted)
    fresh = {"kept": {}, "draws": 0}
    forgetful = type(kind.__name__, (kind,), {"state_dict": lambda self: fresh})
    whole, parted = cut_in_two(tmp_path / "other.pt", lambda: [forgetful(30)], tasks, 8 + 3)
    assert not same(whole, parted)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r"GEM\(memory=0\): a whole number of at least 1"):
        GEM(0)
    with pytest.raises(ValueError, match=r"GEM\(margin=-1\): a finite number from 0 on"):
        GEM(10, margin=-1)
