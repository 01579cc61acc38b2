"""Widen and Prune skip what they can skip, and users' own attributes and noise get in nobody's way."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import relu

from growlib import EWC, MLP, Budget, Prune, Replay, Trainer, Widen, every, growable, load, within_budget


@pytest.fixture(scope="module")
def digits():
    return load("digits")


class Grouped(nn.Module):
    """Units in groups of four."""

    def __init__(self, width=8):
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(1, width, 3), nn.GroupNorm(width // 4, width), nn.Linear(width, 10)

    def forward(self, images):
        return self.last(relu(self.norm(self.first(images))).mean((2, 3)))


def fit(model, callbacks, data, **settings):
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    trainer = Trainer(model, optimizer, callbacks, device="cpu", progress=False, **settings)
    trainer.fit(data, epochs=2)
    return trainer


def test_prune_passes_over_layers_that_would_lose_all_units(digits):
    with pytest.warns(UserWarning, match=r"Prune\(4\) passes over 'hidden1': of its 4 units none would stay"):
        trainer = fit(MLP(64, [8], 10), [Prune(4, every(1, "epoch"))], digits)
    assert trainer.model.hidden[0].width == 4 and len(trainer.history.changes) == 1


def test_numbers_are_rounded_up_to_whole_groups_and_that_is_said(digits):
    model = growable(Grouped(), torch.randn(2, 1, 8, 8))
    with pytest.warns(UserWarning, match=r"Widen\(2\) adds 4 units to 'first', whole groups of 4"):
        trainer = fit(model, [Widen(2, every(1, "epoch"))], digits)
    assert trainer.model.first.out_channels == 16
    with pytest.warns(UserWarning, match=r"Prune\(2\) removes whole groups of 4 units from 'first'"):
        trainer = fit(model, [Prune(2, every(1, "epoch"))], digits)
    assert trainer.model.first.out_channels == 8


@pytest.mark.parametrize("where", ["inputs", "outputs"])
def test_noise_that_is_active_in_eval_is_not_taken_for_a_change_of_the_function(digits, where):
    class Noisy(MLP):
        def forward(self, inputs):
            if where == "inputs":
                return super().forward(inputs + torch.randn_like(inputs))
            outputs = super().forward(inputs)
            return outputs + torch.randn_like(outputs)

    trainer = fit(Noisy(64, [8], 10), [Widen(2, every(1, "epoch"))], digits)
    assert trainer.model.hidden[0].width == 12


class Attributed(nn.Module):
    """With attributes of the user's own, and tensors that are no parameters."""

    def __init__(self, hidden, input_shape):
        super().__init__()
        self.first, self.last = nn.Linear(64, 8), nn.Linear(8, 10)
        self.hidden, self.input_shape = hidden, input_shape
        self.scale = torch.ones(8) * self.first.bias.detach().new_tensor(2.0)
        self.made = self.first.weight.sum()  # deepcopy refuses it

    def forward(self, images):
        return self.last(relu(self.first(images.flatten(1))) * self.scale)


@pytest.mark.parametrize("hidden, input_shape", [(nn.Linear(3, 3), 64), (7, (28, 28)), ("x", None)])
def test_a_plain_model_trains_whatever_its_attributes_are_called(digits, hidden, input_shape):
    model = Attributed(hidden, input_shape)
    trainer = fit(model, [], digits)
    assert trainer.history.records[-1]["widths"] == {}


def test_a_budget_prices_models_with_tensors_of_their_own(digits):
    model = Attributed(7, 7)
    del model.made  # growable tries on a copy
    model.scale = torch.tensor(2.0)
    growable(model, torch.randn(2, 1, 8, 8))
    model.made = model.first.weight.sum()
    limit = 64 * 12 + 12 + 12 * 10 + 10
    trainer = fit(model, [Widen(2, every(1, "epoch") & within_budget(params=limit))], digits, budget=Budget(limit))
    assert model.first.out_features == 12
    with pytest.raises(ValueError, match="would need .* parameters, and the budget is"):
        fit(model, [Widen(2, every(1, "epoch"))], digits, budget=Budget(limit))
    assert model.first.out_features == 12 and trainer.history.changes[-1]["parameters"] == limit


@pytest.mark.parametrize("kind", [Widen, Prune])
@pytest.mark.parametrize("by", [0, -1, True, 2.5, "2", None])
def test_what_is_no_number_of_units_is_refused_before_training(kind, by):
    with pytest.raises(ValueError, match=rf"{kind.__name__}\(by={by!r}\): give a positive number of units"):
        kind(by, every(1, "epoch"))


def test_numbers_of_numpy_are_numbers(digits):
    trainer = fit(MLP(64, [8], 10), [Widen(np.int64(2), every(np.int64(1), "epoch"))], digits)
    assert trainer.model.config()["hidden"] == [12]
    with pytest.raises(ValueError, match="whole number"):
        every(True, "epoch")


@pytest.mark.parametrize("tasks, closed", [(5, True), (nn.Linear(2, 2), None), ([3, 4], 1)])
def test_attributes_called_as_those_of_task_nets_are_no_tasks(digits, tasks, closed):
    model = Attributed(None, None)
    model.tasks, model.closed = tasks, closed
    assert fit(model, [Replay(20), EWC(1.0)], digits).step > 0
