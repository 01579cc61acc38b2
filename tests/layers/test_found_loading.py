"""A grown state loads into a fresh, smaller model, whose Parameters stay the same objects."""

import copy

import pytest
import torch
from found import CASES, FOUND, ROWS
from networks import shaken
from torch import nn

from growlib import growable, hidden_of, widen
from growlib.inits import split

BUILDS = {build.__name__: (build, *FOUND[build][:1]) for build in FOUND} | {n: CASES[n][:2] for n in ("heads", "pad")}


@pytest.mark.parametrize("name", BUILDS)
def test_a_grown_state_loads_into_a_fresh_model(name):
    build, shape = BUILDS[name]
    example, models = torch.randn(shape), []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(growable(shaken(build()), example).eval())
    grown, fresh = models
    for hidden in hidden_of(grown):
        widen(grown, hidden, 2 * hidden.unit, split)
    parameters = list(fresh.parameters())
    fresh.load_state_dict(grown.state_dict())
    assert all(mine is theirs for mine, theirs in zip(fresh.parameters(), parameters, strict=True))
    assert torch.equal(fresh(example), grown(example))
    assert [h.width for h in hidden_of(fresh)] == [h.width for h in hidden_of(grown)]
    fresh.load_state_dict(models[1].state_dict())  # of equal widths


def test_copies_load_by_themselves_and_within_others():
    model = growable(nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)), torch.randn(ROWS))
    growable(model, torch.randn(ROWS))
    twin = nn.ModuleDict({"net": copy.deepcopy(model)})
    widen(model, hidden_of(model)[0], 4)
    twin.load_state_dict({f"net.{name}": value for name, value in model.state_dict().items()})
    assert hidden_of(twin["net"])[0].width == 10 and twin["net"][2].in_features == 10


def test_a_state_that_does_not_fit_is_torchs_error_and_nothing_has_changed():
    model = growable(nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)), torch.randn(ROWS))
    state = model.state_dict() | {"0.weight": torch.zeros(8, 5)}
    with pytest.raises(RuntimeError, match="size mismatch for 0.weight"):
        model.load_state_dict(state)
    assert model[0].weight.shape == (6, 5) and hidden_of(model)[0].width == 6
