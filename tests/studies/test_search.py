"""The search for the size of a growth."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from growlib import History, search_growth


def trained(sizes):
    """Stand-ins whose parameters and accuracies are known: factor -> (parameters, accuracy)."""

    def train(factor):
        parameters, accuracy = sizes[factor]
        model = nn.Module()
        model.weight = nn.Parameter(torch.zeros(parameters))
        history = History()
        history.log(1, val_accuracy=accuracy)
        return SimpleNamespace(model=model, history=history)

    return train


@pytest.mark.parametrize(
    "sizes, best",
    [
        ({1: (100, 0.80), 2: (200, 0.83), 4: (400, 0.834)}, 2),  # 3 points, then 0.4, for a doubling
        ({1: (100, 0.80), 2: (400, 0.815), 4: (800, 0.85)}, 4),  # 0.75 points a doubling, then 1.67 over the first
        ({1: (100, 0.80), 2: (200, 0.79)}, 1),
        ({3: (10, 0.5)}, 3),
    ],
)
def test_more_is_taken_while_a_doubling_pays(sizes, best):
    factor, table = search_growth(trained(sizes), reversed(list(sizes)), gain=0.01)
    assert factor == best and list(table.index) == sorted(sizes)
    assert table.val_accuracy.to_dict() == {factor: accuracy for factor, (_, accuracy) in sizes.items()}


def test_the_gain_is_that_of_a_doubling_over_what_was_taken_last():
    _, table = search_growth(trained({1: (100, 0.8), 2: (400, 0.815), 4: (800, 0.85)}), [1, 2, 4])
    assert table.gain.to_list()[1:] == pytest.approx([0.015 / 2, 0.05 / 3])


def test_factors_must_be_positive():
    with pytest.raises(ValueError, match="positive numbers"):
        search_growth(trained({}), [])
