"""RandomWalk, and Deep Rewiring as a whole."""

import pytest
import torch
from torch.optim import SGD, Adam

from growlib import MLP, Callback, RandomWalk, Rewire, Trainer, at_random, connections, every, load, sign_flip, sparsify
from growlib.layers import sparse_layers

DEEP_R = {"drop": sign_flip, "regrow": at_random, "when": every(1, "steps")}


class Still:
    """What RandomWalk sees of a trainer, between two steps."""

    def __init__(self, model, rate=0.1, step=5):
        self.model, self.optimizer = model, SGD(model.parameters(), lr=rate)
        self.device, self.seed, self.step = torch.device("cpu"), 0, step


def sparse(density=0.5):
    torch.manual_seed(0)
    return sparsify(MLP(200, [100], 4), density)


def test_the_pull_is_that_of_a_penalty_on_absolute_values():
    model = sparse()
    slow = [(p.detach() - 0.1 * 0.02 * p.detach().sign()) * m.mask for p, m in weights(model)]
    RandomWalk(pull=0.02).after_step(Still(model))
    for (weight, layer), expected in zip(weights(model), slow, strict=True):
        torch.testing.assert_close(weight.detach(), expected)
        assert (weight[~layer.mask] == 0).all()


def weights(model):
    return [(layer.weight, layer) for layer in sparse_layers(model).values()]


def test_the_walk_is_as_wide_as_its_temperature_says():
    model = sparse()
    before = [weight.detach().clone() for weight, _ in weights(model)]
    RandomWalk(pull=0.0, temperature=1e-3).after_step(Still(model))
    for (weight, layer), old in zip(weights(model), before, strict=True):
        moved = (weight.detach() - old)[layer.mask]
        assert moved.std().item() == pytest.approx((2 * 0.1 * 1e-3) ** 0.5, rel=0.1)
        assert (weight[~layer.mask] == 0).all()


def test_the_walk_depends_on_the_seed_and_the_step_alone():
    walks = []
    for step, draws in ((5, 0), (5, 3), (6, 0)):
        model = sparse()
        torch.rand(draws)  # whatever else draws from torch's generator
        state = torch.get_rng_state()
        RandomWalk(0.0, 1e-3).after_step(Still(model, step=step))
        assert torch.equal(torch.get_rng_state(), state)
        walks.append(model.hidden1.weight.detach())
    assert torch.equal(walks[0], walks[1])
    assert not torch.equal(walks[0], walks[2])


def test_layers_that_store_their_connections_only_walk_the_same_way():
    found = {}
    for backend in ("masked", "csr"):
        torch.manual_seed(0)
        model = sparsify(MLP(200, [100], 4), 0.1, backend=backend)
        RandomWalk(0.02, 1e-3).after_step(Still(model))
        found[backend] = [weight.detach() for weight, _ in weights(model)]
    for masked, csr in zip(*found.values(), strict=True):
        torch.testing.assert_close(masked, csr)
        assert masked.count_nonzero() == csr.count_nonzero() > 0


def test_weights_that_the_optimizer_does_not_hold_stand_still():
    model = sparse()
    trainer = Still(model)
    trainer.optimizer = SGD(model.hidden1.parameters(), lr=0.1)
    old = model.output.weight.detach().clone()
    RandomWalk(0.1, 1e-3).after_step(trainer)
    assert torch.equal(model.output.weight, old)


@pytest.mark.parametrize("settings", [{"pull": -0.1}, {"pull": 0.1, "temperature": -1.0}])
def test_neither_setting_can_be_negative(settings):
    with pytest.raises(ValueError, match="neither can be negative"):
        RandomWalk(**settings)


def deep_r(pull=0.3, temperature=1e-6, epochs=2, **more):
    torch.manual_seed(0)
    model = sparsify(MLP(64, [20], 10), 0.2)
    callbacks = [RandomWalk(pull, temperature), Rewire(**DEEP_R)]
    trainer = Trainer(model, Adam(model.parameters(), lr=3e-3), callbacks, batch_size=64, device="cpu", **more)
    return trainer


def test_deep_rewiring_drops_what_crosses_zero_and_keeps_the_number():
    trainer, seen = deep_r(), []

    class Look(Callback):
        def after_step(self, trainer):
            layers = sparse_layers(trainer.model)
            seen.append(connections(trainer.model))
            assert all(sign_flip.count(sign_flip(layer)[layer.mask]) == 0 for layer in layers.values())

    trainer.callbacks.append(Look())
    trainer.fit(load("digits"), epochs=2)
    assert set(seen) == {round(0.2 * (64 * 20 + 20 * 10))}
    moved = [sum(record["turnover"].values()) for record in trainer.history.records]
    assert min(moved) > 0


def test_without_pull_and_noise_fewer_connections_cross():
    moved = {}
    for pull in (0.0, 0.5):
        trainer = deep_r(pull, 0.0)
        trainer.fit(load("digits"), epochs=2)
        moved[pull] = sum(sum(record["turnover"].values()) for record in trainer.history.records)
    assert moved[0.0] < moved[0.5]


def test_a_walk_that_resumes_is_the_same_walk(tmp_path):
    data = load("digits")
    whole = deep_r()
    whole.fit(data, epochs=3)
    first = deep_r()
    first.fit(data, epochs=1)
    first.save(tmp_path / "run.pt")
    again = Trainer.load(tmp_path / "run.pt", callbacks=[RandomWalk(0.3, 1e-6), Rewire(**DEEP_R)], device="cpu")
    again.fit(data, epochs=2)
    assert again.history.losses == whole.history.losses
    for mine, theirs in zip(again.model.state_dict().values(), whole.model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
