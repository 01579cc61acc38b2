"""Growable layers and Hidden."""

import copy

import pytest
import torch
from networks import convnet, inputs_for
from torch import nn

from growlib.growth import widen
from growlib.inits import random
from growlib.layers import Attention, GrowBatchNorm2d, GrowConv2d, GrowLinear, Hidden, evaluating


def test_growable_layers_compute_what_plain_ones_do():
    for grow, plain, shape in [
        (GrowLinear(5, 3), nn.Linear(5, 3), (2, 5)),
        (GrowConv2d(2, 3, 3, padding=1), nn.Conv2d(2, 3, 3, padding=1), (2, 2, 6, 6)),
        (GrowBatchNorm2d(3), nn.BatchNorm2d(3), (4, 3, 5, 5)),
    ]:
        plain.load_state_dict(grow.state_dict())
        inputs = torch.randn(shape)
        assert torch.equal(grow(inputs), plain(inputs))


def test_a_grown_state_loads_into_a_fresh_smaller_model():
    torch.manual_seed(0)
    grown, fresh = convnet().eval(), convnet().eval()
    for hidden in grown.hidden:
        widen(grown, hidden, 3, init=random)
    fresh.load_state_dict(grown.state_dict())
    inputs = inputs_for(grown)
    assert torch.equal(fresh(inputs), grown(inputs))
    assert [hidden.width for hidden in fresh.hidden] == [7, 6, 9]
    assert fresh.conv1.out_channels == 7 and fresh.norm1.num_features == 7 and fresh.output.in_features == 9


def test_a_kernel_of_another_size_is_still_refused():
    with pytest.raises(RuntimeError, match="size mismatch"):
        GrowConv2d(2, 3, 3).load_state_dict(nn.Conv2d(2, 3, 5).state_dict())


def test_hidden_knows_its_width_and_the_spread_of_a_flattened_channel():
    producer, consumer = GrowConv2d(2, 4, 3), GrowLinear(4 * 9, 5)
    hidden = Hidden("conv1", (producer,), (), (consumer,))
    assert (hidden.width, hidden.spread(consumer), hidden.unit) == (4, 9, 1)
    assert repr(hidden) == "Hidden('conv1', width=4)"


def test_evaluating_puts_every_module_back_to_its_own_mode():
    model = convnet().train()
    model.norm1.eval()
    modes = [module.training for module in model.modules()]
    before = copy.deepcopy(model.state_dict())
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        model(inputs_for(model))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("heads", [1, 3])
def test_attention_is_torchs_own(heads):
    torch.manual_seed(0)
    block, theirs = Attention(6, heads), nn.MultiheadAttention(6, heads, batch_first=True)
    with torch.no_grad():
        read = (block.query, block.key, block.value)
        theirs.in_proj_weight.copy_(torch.cat([layer.weight for layer in read]))
        theirs.in_proj_bias.copy_(torch.cat([layer.bias for layer in read]))
        theirs.out_proj.load_state_dict(block.project.state_dict())
    tokens = torch.randn(4, 5, 6)
    outputs, mass = theirs(tokens, tokens, tokens, average_attn_weights=False)
    torch.testing.assert_close(block(tokens), outputs)
    torch.testing.assert_close(block.mass(block.query(tokens), block.key(tokens)), mass)
