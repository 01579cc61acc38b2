"""Growing and pruning from the table, against networks that were rebuilt by hand, for every optimizer."""

import copy

import pytest
import torch
from networks import inputs_for, mlp, train
from test_growth import OPTIMIZERS, rebuilt
from torch import nn

from growlib.growth import widen
from growlib.units.discovery import growable
from growlib.units.grow import insert_units, remove_units
from growlib.units.replacing import as_before


def found(model):
    growable(model, inputs_for(model, 2))
    return {hidden.name: hidden for hidden in model._hidden}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_after_growth_equals_a_rebuilt_network_with_hand_moved_state(name):
    torch.manual_seed(0)
    make, model = OPTIMIZERS[name], mlp(torch.float64)
    optimizer, hidden = make(list(model.parameters())), found(model)
    train(model, optimizer, 6)
    before, before_optimizer = copy.deepcopy((model, optimizer))
    insert_units(hidden["hidden1"], 3, optimizer=optimizer)
    twin, twin_optimizer = rebuilt(before, before_optimizer, make, name, model)
    train(model, optimizer, 6, seed=2)
    train(twin, twin_optimizer, 6, seed=2)
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pruning_what_was_just_grown_gives_everything_back(name):
    torch.manual_seed(0)
    model = mlp(torch.float64)
    optimizer, hidden = OPTIMIZERS[name](list(model.parameters())), found(model)
    train(model, optimizer, 4)
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    insert_units(hidden["hidden2"], 4, optimizer=optimizer)
    remove_units(hidden["hidden2"], list(range(5, 9)), optimizer)
    torch.testing.assert_close(model.state_dict(), before[0], rtol=0, atol=0)
    torch.testing.assert_close(optimizer.state_dict()["state"], before[1]["state"], rtol=0, atol=0)


def test_it_does_what_widen_does():
    torch.manual_seed(0)
    model = mlp()
    twin, hidden = copy.deepcopy(model), found(model)
    torch.manual_seed(1), insert_units(hidden["hidden1"], 3)
    torch.manual_seed(1), widen(twin, "hidden1", 3)
    torch.testing.assert_close(model.state_dict(), twin.state_dict(), rtol=0, atol=0)


def test_all_or_nothing():
    model = mlp()
    hidden, optimizer = found(model)["hidden1"], torch.optim.Adam(model.parameters())
    train(model, optimizer, 1)
    state, parameters = copy.deepcopy((model.state_dict(), optimizer.state_dict())), list(model.parameters())

    def broken(hidden, by, probe):
        raise ValueError("looked at nothing")

    with pytest.raises(ValueError, match="looked at nothing"):
        insert_units(hidden, 2, broken, optimizer)
    optimizer.state[model.hidden1.weight]["sketch"] = torch.zeros(3)
    with pytest.raises(TypeError, match="'sketch' of Adam"):
        insert_units(hidden, 2, optimizer=optimizer)
    del optimizer.state[model.hidden1.weight]["sketch"]
    assert hidden.width == 7 and model.hidden1.out_features == 7
    assert all(mine is theirs for mine, theirs in zip(model.parameters(), parameters, strict=True))
    torch.testing.assert_close((model.state_dict(), optimizer.state_dict()), state, rtol=0, atol=0)


def test_the_model_before_a_change_can_be_looked_at():
    model = mlp()
    hidden, inputs = found(model)["hidden1"], inputs_for(model)
    outputs, parameter = model(inputs), model.hidden1.weight
    before = insert_units(hidden, 2)
    with as_before(hidden, before):
        assert model.hidden1.weight is parameter and hidden.width == 7 == model.hidden1.out_features
        assert torch.equal(model(inputs), outputs)
    assert hidden.width == 9 == model.hidden1.out_features == len(model.hidden1.weight)


def test_pruning_any_units_equals_a_network_whose_units_are_not_read():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5)).eval()
    example = torch.randn(2, 3, 6, 6)
    growable(model, example)
    silent = copy.deepcopy(model)
    with torch.no_grad():
        silent[4].weight.view(5, 8, 16)[:, [1, 6]] = 0
    remove_units(model._hidden[0], [1, 6])
    torch.testing.assert_close(model(example), silent(example))
    assert (model[1].num_features, model[4].in_features, model._hidden[0].width) == (6, 96, 6)


def test_gradients_hooks_and_frozen_tensors_live_on():
    model, calls = mlp(), []
    hidden, inputs = found(model)["hidden1"], inputs_for(model)
    model.hidden1.requires_grad_(False)
    model.hidden2.weight.register_hook(calls.append)
    model(inputs).sum().backward()
    gradient = model.hidden2.weight.grad.clone()
    insert_units(hidden, 2)
    assert torch.equal(model.hidden2.weight.grad[:, :7], gradient) and not model.hidden2.weight.grad[:, 7:].any()
    model(inputs).sum().backward()
    assert len(calls) == 2 and not model.hidden1.weight.requires_grad
