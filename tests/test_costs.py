"""Costs against hand-written formulas."""

import gc
import weakref

import pytest
import torch
from torch import nn

from growlib import costs
from growlib.costs import Budget
from growlib.models import MLP, ConvNet


def test_an_mlp_costs_what_the_formulas_say():
    model = MLP(784, [512, 512], 10)
    assert costs.parameters(model) == 784 * 512 + 512 + 512 * 512 + 512 + 512 * 10 + 10 == 669_706
    assert costs.flops(model) == 2 * (784 * 512 + 512 * 512 + 512 * 10)
    backward = 2 * 784 * 512 + 4 * 512 * 512 + 4 * 512 * 10  # the first layer needs no gradient of its inputs
    assert costs.training_flops(model) == costs.flops(model) + backward


def test_a_convolution_costs_by_its_positions():
    model = ConvNet((3, 8, 8), [4, 6], [5], 2)
    convolutions = 2 * (8 * 8 * 4 * 3 * 9 + 4 * 4 * 6 * 4 * 9)
    assert costs.flops(model) == convolutions + 2 * (6 * 2 * 2 * 5 + 5 * 2)


def test_counting_changes_nothing():
    model = ConvNet((3, 8, 8), [4], [5], 2)
    before, state = {n: v.clone() for n, v in model.state_dict().items()}, torch.get_rng_state()
    costs.flops(model), costs.training_flops(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_that_does_not_tell_its_input_has_no_flops():
    assert costs.flops(nn.Linear(3, 2)) is None and costs.parameters(nn.Linear(3, 2)) == 8


def test_frozen_parameters_are_counted():
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    assert costs.parameters(model) == 8


def test_memory_is_a_sum_of_four_parts():
    model = MLP(784, [512, 512], 10)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(2, 784)).sum().backward()
    optimizer.step()
    bill = costs.memory(model, optimizer, batch_size=128)
    weights = 669_706 * 4
    assert bill["parameters"] == bill["gradients"] == weights
    assert bill["optimizer"] == 2 * weights + 6 * 4  # two moments, and a step count a tensor
    assert bill["total"] == sum(value for name, value in bill.items() if name != "total")
    double = costs.memory(model, optimizer, batch_size=256)
    assert double["activations"] == 2 * bill["activations"]
    assert bill["activations"] >= 128 * (784 + 512 + 512 + 10) * 4


def test_looking_at_memory_keeps_nothing_alive():
    model = MLP(4, [3], 2)
    weight = weakref.ref(model.hidden1.weight)
    gc.disable()
    try:
        costs.memory(model, torch.optim.SGD(model.parameters()), batch_size=5)
        del model
        assert weight() is None
    finally:
        gc.enable()


def test_a_budget_refuses_with_the_price():
    model = MLP(4, [3], 2)
    Budget(parameters=23, flops=36).refuse(model, "nothing")
    with pytest.raises(ValueError, match="widening would need 23 parameters, and the budget is 22"):
        Budget(parameters=22).refuse(model, "widening")
    with pytest.raises(ValueError, match="36 flops, and the budget is 35"):
        Budget(flops=35).refuse(model, "widening")
