"""Random numbers on a device: what only looks draws none, and what is resumed or forked draws the same ones."""

import pytest
import torch
from devices import DEVICE, digits, trained
from torch import nn

from growlib import MLP, ConvNet, Probe, deepen, effective_rank, fork, growable, hidden_of, random, sparsify

pytestmark = pytest.mark.gpu


def state():
    """Of the device's own generator."""
    return torch.get_device_module(DEVICE).get_rng_state(DEVICE)


def network():
    layers = [nn.Linear(12, 6), nn.LayerNorm(6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 4)]
    return nn.Sequential(*layers).to(DEVICE)


def looks():
    """What must leave the generators alone, by its name."""
    model, inputs = network(), torch.randn(8, 12).to(DEVICE)
    probe = Probe(MLP(12, [6], 4).to(DEVICE), inputs, (torch.arange(8) % 4).to(DEVICE))
    trainer = trained()
    return {
        "growable": lambda: growable(model, inputs),
        "deepen": lambda: deepen(ConvNet((1, 8, 8), [4], [6], 3).to(DEVICE), "hidden1"),
        "a signal": lambda: effective_rank(probe, hidden_of(probe.model)[0]),
        "auto": lambda: sparsify(MLP(12, [6], 4), 0.5, backend="auto"),  # on the CPU
        "evaluate": lambda: trainer.evaluate(digits()),
        "fork": lambda: fork(trainer, digits(), 2, 1),
    }


def test_looking_draws_nothing_on_the_device():
    for name, look in looks().items():
        before = state()
        look()
        assert torch.equal(state(), before), name


class Noisy(nn.Module):
    """An MLP that forgets some of its inputs."""

    def __init__(self):
        super().__init__()
        self.drop, self.inner = nn.Dropout(0.3), MLP(64, [8], 10)
        self.hidden = self.inner.hidden

    def forward(self, inputs):
        return self.inner(self.drop(inputs))


def test_twins_of_a_fork_draw_the_same_numbers():
    found = fork(trained(model=Noisy()), digits(), lambda trainer, hidden: 0, 1, init=random)
    assert [outcome.plain for outcome in found.values()] == [outcome.grown for outcome in found.values()]
