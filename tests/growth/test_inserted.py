"""What stands behind other layers, and how it comes and goes."""

import copy

import pytest
import torch
from networks import net
from torch import nn

from growlib.growth import deepen
from growlib.growth.inserted import Block, ImageBlock, insertions, match, name_of, path_of, put_behind


def test_what_was_put_in_is_taken_out_again():
    """As a trainer does that goes back to its last good state."""
    model, spare = net(), net()
    first = copy.deepcopy(model.state_dict())
    deepen(model, "one")
    wanted = insertions(model)
    deepen(model, "one"), deepen(model, "out"), deepen(model, "out.deeper1.second")
    assert len(insertions(model)) == 3
    assert match(model, wanted) and insertions(model) == wanted and not match(model, wanted)
    assert match(model, {}) and set(model.state_dict()) == set(first) and repr(model) == repr(spare)
    with pytest.raises(ValueError, match="Net has no module 'elsewhere'"):
        match(model, {"elsewhere": [["deeper1", "Block"]]})


def test_names_are_for_life():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    put_behind(model, "0", ["ReLU", "GrowLinear"], 4)
    put_behind(model, "0", ["Block"], 4)
    put_behind(model, "0.deeper2.second", ["Block"], 4)
    assert path_of(model, "0") == "0.first" and path_of(model, "2") == "2"
    assert path_of(model, "0.deeper2.second") == "0.deeper2.second.first"
    for path, module in model.named_modules():
        if path and not list(module.children()):
            assert path_of(model, name_of(model, path)) == path
    assert insertions(model) == {
        "0": [["deeper2", "Block"], ["relu1", "ReLU"], ["deeper1", "GrowLinear"]],
        "0.deeper2.second": [["deeper1", "Block"]],
    }


def test_what_is_put_in_is_where_the_model_is():
    model = nn.Sequential(nn.ReLU(), nn.Linear(4, 2)).double().eval()
    layer, *_ = put_behind(model, "0", ["GrowLinear", "ReLU"], 4)
    assert layer.weight.dtype == torch.float64 and not layer.training


@pytest.mark.parametrize(("block", "shape"), [(Block, (2, 5)), (ImageBlock, (2, 5, 3, 3))])
def test_a_silent_block_passes_on_what_it_reads_and_learns_in_two_steps(block, shape):
    block, inputs = block(5), torch.randn(shape)
    assert not torch.equal(block(inputs), inputs)
    block.silence()
    assert torch.equal(block(inputs), inputs)
    optimizer = torch.optim.SGD(block.parameters(), lr=0.5)
    moved = []
    for _ in range(2):
        before = copy.deepcopy(block.first.weight)
        optimizer.zero_grad()
        (block(inputs) - 1).square().sum().backward()
        optimizer.step()
        moved.append(not torch.equal(block.first.weight, before))
    assert moved == [False, True]
