"""Twins of a run in its middle, and what growing one of them did."""

import pytest
import torch
from torch import nn

from growlib.callbacks import Diagnostics
from growlib.data import load
from growlib.growth import growable, widen
from growlib.inits import gradmax, zero_out
from growlib.layers import hidden_of
from growlib.models import MLP
from growlib.signals import effective_rank
from growlib.studies import Fork, fork, twin
from growlib.trainer import Callback, Trainer
from growlib.when import every


@pytest.fixture(scope="module")
def data():
    return load("digits")


def a_trainer(data, callbacks=(), epochs=2, widths=(6, 5), model=None):
    torch.manual_seed(0)
    model = model or MLP(64, list(widths), 10)
    trainer = Trainer(model, torch.optim.Adam(model.parameters(), 3e-3), callbacks, device="cpu")
    if epochs:
        trainer.fit(data, epochs=epochs)
    return trainer


class Noisy(nn.Module):
    """Draws from torch's generator in every step."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, 10))

    def forward(self, x):
        return self.layers(x)


class At(Callback):
    """Calls a function once, after a step or an epoch."""

    def __init__(self, event, step, function):
        self.step, self.function, self.found = step, function, None
        setattr(self, event, self._call)

    def _call(self, trainer):
        if trainer.step == self.step:
            self.found = self.function(trainer)


@pytest.mark.parametrize("kind", [MLP, Noisy])
def test_a_twin_goes_on_exactly_as_the_original_does(data, kind):
    torch.manual_seed(3)
    trainer = a_trainer(data, model=Noisy() if kind is Noisy else None)
    other = twin(trainer)
    state = torch.get_rng_state()
    losses = trainer.fit(data, epochs=2).losses
    torch.set_rng_state(state)
    assert other.fit(data, epochs=2).losses == losses
    assert len(other.history.records) == 4
    theirs = dict(other.model.named_parameters())
    assert all(torch.equal(theirs[name], value) for name, value in trainer.model.named_parameters())


def test_a_twin_shares_no_tensor_and_takes_no_callback(data):
    trainer = a_trainer(data, [Diagnostics([effective_rank], every(1, "epoch"))])
    other, before = twin(trainer), [p.detach().clone() for p in trainer.model.parameters()]
    other.fit(data, epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))
    assert len(trainer.history.records) == 2 and len(other.history.records) == 3
    assert len(other.history.readings) == len(trainer.history.readings)
    looking = twin(trainer, [Diagnostics([effective_rank], every(1, "epoch"))])
    assert len(looking.fit(data, epochs=1).readings) == 3 * 2


@pytest.mark.parametrize("event, step", [("after_epoch", 11), ("after_step", 17), ("after_step", 22)])
def test_a_twin_of_a_run_that_is_under_way(data, event, step):
    at = At(event, step, lambda trainer: (twin(trainer), torch.get_rng_state()))
    trainer = a_trainer(data, [Callback(), at, Callback()], epochs=3, model=Noisy())
    other, state = at.found
    torch.set_rng_state(state)
    other.fit(data, epochs=3)
    assert other.step == trainer.step == 33
    assert other.history.losses == trainer.history.losses
    untimed = [[{**r, "seconds": 0} for r in one.history.records] for one in (trainer, other)]
    assert untimed[0] == untimed[1]


@pytest.mark.parametrize("noisy", [False, True])
def test_growing_by_nothing_changes_nothing_and_growing_does(data, noisy):
    trainer = a_trainer(data, model=growable(Noisy(), torch.zeros(2, 1, 8, 8)) if noisy else None)
    layers = [hidden.name for hidden in hidden_of(trainer.model)]
    found = fork(trainer, data, by=0, epochs=2)
    assert list(found) == layers and len(layers) == 2 - noisy
    for one in found.values():
        assert one.grown == one.plain and one.benefit == 0 and len(one.plain) == 3
    for one in fork(trainer, data, by=4, epochs=2).values():
        assert one.grown[0] == pytest.approx(one.plain[0], rel=1e-6)
        assert one.grown[1:] != one.plain[1:] and one.benefit != 0


def test_a_fork_leaves_the_run_and_the_generator_alone(data):
    forked, untouched = a_trainer(data), a_trainer(data)
    state = torch.get_rng_state()
    fork(forked, data, by=3, epochs=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert forked.fit(data, epochs=2).losses == untouched.fit(data, epochs=2).losses
    assert [hidden.width for hidden in forked.model.hidden] == [6, 5]


@pytest.mark.parametrize("init", [zero_out, gradmax])
def test_a_fork_against_files(data, init, tmp_path):
    trainer = a_trainer(data)
    found = fork(trainer, data, by=lambda trainer, hidden: hidden.width // 2, epochs=2, init=init)
    trainer.save(tmp_path / "now.pt")
    for place, (layer, by) in enumerate({"hidden1": 3, "hidden2": 2}.items()):
        assert (found[layer].steps, found[layer].by) == ([22, 33, 44], by)
        other = Trainer.load(tmp_path / "now.pt", device="cpu")
        other.inputs, other.labels = trainer.inputs, trainer.labels
        widen(other.model, other.model.hidden[place], by, init, other.optimizer, other.probe())
        other.forget_model()
        wanted = other.fit(data, epochs=2).column("val_loss")[-2:]
        assert found[layer].grown[1:] == wanted
    plain = Trainer.load(tmp_path / "now.pt", device="cpu").fit(data, epochs=2).column("val_loss")[-3:]
    assert found["hidden1"].plain == pytest.approx(plain, rel=1e-6) and found["hidden1"].plain[1:] == plain[1:]


def test_a_fork_from_a_callback_ends_with_an_epoch(data):
    at = At("after_step", 17, lambda trainer: fork(trainer, data, by=2, epochs=2))
    a_trainer(data, [at], epochs=3)
    assert all(one.steps == [17, 22, 33] for one in at.found.values())
    assert all(len(one.plain) == len(one.grown) == 3 for one in at.found.values())


def test_benefit_is_the_share_by_which_the_loss_ends_lower():
    assert Fork("hidden1", 8, [5, 9], [1.0, 0.5], [1.0, 0.4]).benefit == pytest.approx(0.2)
    assert Fork("hidden1", 8, [5, 9], [1.0, 0.4], [1.0, 0.5]).benefit == pytest.approx(-0.25)


def test_what_a_fork_cannot_begin_with(data):
    with pytest.raises(ValueError, match="fork at step 0 for 2 epochs"):
        fork(a_trainer(data, epochs=0), data, by=1, epochs=2)
    with pytest.raises(ValueError, match="for 0 epochs"):
        fork(a_trainer(data, epochs=1), data, by=1, epochs=0)
