"""Signals and inits of widths that no plain layers make: what weights tell is told, the rest is refused in words."""

from functools import partial

import pytest
import torch
from found import CASES, Functional, Heads, Transformer
from networks import relative
from torch import nn

from growlib import Probe, growable, hidden_of, widen
from growlib.inits import gradmax, north, orthogonal, split, zero_out
from growlib.signals import effective_rank, gradient_norm, magnitude, update_ratio, weight_effective_rank

SIGNALS, INITS = (effective_rank, gradient_norm, update_ratio), (north, gradmax)
MODELS = {
    "functional": (Functional, (8, 5)),
    "heads": (lambda: nn.Sequential(Heads(), nn.Flatten(), nn.Linear(56, 3)), (8, 7, 8)),
    "transposed": (CASES["transposed"][0], (8, 3, 6, 6)),
    "transformer": (Transformer, (8, 6, 5)),
}


def probed(name):
    torch.manual_seed(0)
    build, shape = MODELS[name]
    model, inputs = build().eval(), torch.randn(shape)
    growable(model, inputs)
    return model, inputs, torch.randint(3, (8,)), torch.optim.SGD(model.parameters(), lr=0.1)


@pytest.mark.parametrize("name", MODELS)
def test_what_weights_tell_is_told_of_any_width(name):
    model, inputs, labels, optimizer = probed(name)
    for hidden in hidden_of(model):
        assert magnitude(None, hidden).shape == (hidden.width,)
        assert 0 < weight_effective_rank(None, hidden) <= 1
        before = model(inputs)
        for init in (zero_out, orthogonal, split):
            widen(model, hidden, hidden.unit, init, optimizer=optimizer)
        assert relative(model(inputs), before) <= 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_what_a_layer_must_be_called_for_says_so_and_nothing_else_breaks(name):
    model, inputs, labels, optimizer = probed(name)
    for hidden in hidden_of(model):
        refusals = []
        looks = [
            lambda probe, hidden=hidden, init=i: widen(model, hidden, hidden.unit, init, probe=probe) for i in INITS
        ]
        for look in (*(partial(signal, hidden=hidden) for signal in SIGNALS), *looks):
            try:
                look(Probe(model, inputs, labels, optimizer=optimizer))
            except ValueError as error:
                refusals.append(str(error))
        assert all(len(refusal) < 300 for refusal in refusals)
        assert name != "functional" or len(refusals) == len(SIGNALS) + len(INITS)


def _widened(model, hidden, init, probe):
    widen(model, hidden, hidden.unit, init, probe=probe)
