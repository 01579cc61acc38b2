"""Masked layers compute what a dense layer with zeros computes, and an optimizer never moves what is not there."""

import pytest
import torch
from networks import convnet, inputs_for, mlp, resnet, train
from torch import nn
from torch.nn.functional import conv2d, cross_entropy, linear

from growlib import connections, erk, sparse_layers, sparsify
from growlib.sparsity.masked import as_masked, describe_sparse, match_sparse

DENSE = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1, amsgrad=True),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=0.1),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.1),
    "RAdam": lambda p: torch.optim.RAdam(p, lr=0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9, centered=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1, initial_accumulator_value=0.3),
    "Adadelta": lambda p: torch.optim.Adadelta(p, lr=0.1),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.1),
    "ASGD": lambda p: torch.optim.ASGD(p, lr=0.1),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.1),
}


@pytest.mark.parametrize("layer", [nn.Linear(6, 4), nn.Conv2d(3, 4, 3, padding=1, stride=2)])
def test_a_masked_layer_is_a_dense_one_with_zeros(layer):
    inputs = torch.randn(5, *([6] if isinstance(layer, nn.Linear) else [3, 8, 8]), requires_grad=True)
    weight, mask = layer.weight, torch.rand_like(layer.weight) < 0.4
    dense = (weight.detach() * mask).requires_grad_()
    call = linear if isinstance(layer, nn.Linear) else lambda x, w, b: conv2d(x, w, b, 2, 1)
    expected = call(inputs, dense, layer.bias.detach())
    as_masked(layer).wire(mask)
    assert layer.weight is weight  # the optimizer still holds it
    outputs = layer(inputs)
    torch.testing.assert_close(outputs, expected)
    (found,) = torch.autograd.grad(outputs.square().sum(), weight)
    (wanted,) = torch.autograd.grad(expected.square().sum(), dense)
    torch.testing.assert_close(found, wanted * mask)
    assert not found[~mask].any() and wanted[~mask].any()  # a dense weight of zeros would get a gradient


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("make", [mlp, convnet, resnet])
def test_no_optimizer_moves_what_is_not_there(name, make):
    model = sparsify(make(), 0.3)
    train(model, DENSE[name](model.parameters()), 5)
    for layer in sparse_layers(model).values():
        assert not layer.weight[~layer.mask].any() and layer.weight[layer.mask].any()


@pytest.mark.parametrize("name", DENSE)
def test_new_connections_start_anew_and_kept_ones_keep_all(name):
    torch.manual_seed(1)
    model = sparsify(mlp(), 0.5)
    optimizer = DENSE[name](model.parameters())
    train(model, optimizer, 3)
    layer = model.hidden1
    before = {k: v.clone() for k, v in optimizer.state[layer.weight].items() if torch.is_tensor(v)}
    weight, mask = layer.weight.detach().clone(), layer.mask.flip(0)
    kept, fresh = layer.mask & mask, mask & ~layer.mask
    assert kept.any() and fresh.any()
    layer.wire(mask, optimizer)
    assert torch.equal(layer.weight[kept], weight[kept]) and not layer.weight[~kept].any()
    virgin = DENSE[name]([nn.Parameter(torch.zeros_like(weight))])  # what a first step starts from
    virgin.param_groups[0]["params"][0].grad = torch.zeros_like(weight)
    virgin.step()
    starts = next(iter(virgin.state.values()))
    for key, old in before.items():
        new = optimizer.state[layer.weight][key]
        if new.shape != weight.shape:
            assert torch.equal(new, old)  # a step count, or a factor that a row shares
            continue
        assert torch.equal(new[kept], old[kept])
        if key != "step_size":  # a step with a gradient of 0 leaves it
            torch.testing.assert_close(new[fresh], starts[key][fresh])
    train(model, optimizer, 2)
    assert layer.weight[fresh].any() and not layer.weight[~layer.mask].any()


def test_without_the_optimizer_old_momentum_moves_a_new_connection():
    """The negative control."""
    model = sparsify(mlp(), 0.5)
    optimizer = DENSE["SGD"](model.parameters())
    train(model, optimizer, 3)
    layer = model.hidden1
    gone = layer.mask.clone()
    layer.wire(torch.zeros_like(gone))
    layer.wire(gone)
    assert optimizer.state[layer.weight]["momentum_buffer"][gone].any()


def test_a_gradient_from_before_a_rewiring_goes_with_its_connection():
    model = sparsify(mlp(), 0.5)
    cross_entropy(model(inputs_for(model)), torch.zeros(16, dtype=torch.long)).backward()
    layer, before = model.hidden2, model.hidden2.weight.grad.clone()
    kept = layer.mask & layer.mask.flip(0)
    layer.wire(layer.mask.flip(0))
    assert torch.equal(layer.weight.grad[kept], before[kept]) and not layer.weight.grad[~kept].any()


def test_masks_are_in_the_state(tmp_path):
    model, other = sparsify(convnet(), 0.4, erk), convnet()
    model.conv1.register_buffer("signs", torch.ones_like(model.conv1.weight))
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    weights = torch.load(tmp_path / "weights.pt")
    match_sparse(other, describe_sparse(model), weights)
    other.load_state_dict(weights)
    assert connections(other) == connections(model) and other.conv1.signs.all()
    inputs = inputs_for(model)
    assert torch.equal(other.eval()(inputs), model.eval()(inputs))


def test_only_plain_layers_can_be_sparse():
    class Odd(nn.Linear):
        """Something else than a linear layer."""

    assert sparse_layers(sparsify(nn.Sequential(Odd(3, 4), nn.Linear(4, 2)), 0.5)).keys() == {"1"}
    attention = nn.MultiheadAttention(8, 2)  # reads the weight of its out_proj without calling it
    with pytest.raises(ValueError, match="no layers to sparsify"):
        sparsify(attention, 0.5)


def test_attributes_of_a_user_that_sound_alike_are_left_alone():
    model = sparsify(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)), 0.5, layers=["0"])
    model.packed_tasks = ["mine"]
    model[1].register_buffer("dog_owner", torch.ones(2))
    assert describe_sparse(model) == {"0": ["mask"]}
    other = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
    match_sparse(other, describe_sparse(model), model.state_dict())
    assert not other._forward_pre_hooks and sparse_layers(other).keys() == {"0"}
