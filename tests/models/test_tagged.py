"""Tagged layers: blocks that are computed by themselves and can be closed."""

import pytest
import torch
from torch.nn.functional import conv2d, linear

from growlib.models import INPUTS, TaskBatchNorm2d, TaskConv2d, TaskLinear


def two_tasks():
    layer = TaskLinear()
    layer.add(0, 3, {INPUTS: 4})
    layer.add(1, 2, {INPUTS: 4})
    return layer


def test_every_unit_has_an_owner():
    assert two_tasks().task_ids.tolist() == [0, 0, 0, 1, 1]


def test_a_block_reads_what_it_was_told_to_in_this_order():
    layer = TaskConv2d(3)
    layer.add(1, 2, {0: 3, 1: 2})
    old, own = torch.randn(5, 3, 6, 6), torch.randn(5, 2, 6, 6)
    answer = layer({0: old, 1: own}, [0, 1])
    block = layer.block(1)
    assert list(answer) == [1]  # task 0 has no block here
    assert torch.equal(answer[1], conv2d(torch.cat([old, own], 1), block.weight, block.bias, padding=1))


def test_blocks_of_other_tasks_do_not_run():
    layer, inputs = two_tasks(), torch.randn(5, 4)
    layer.block(1).weight.data.fill_(torch.nan)
    assert torch.equal(layer({INPUTS: inputs}, [0])[0], linear(inputs, layer.block(0).weight, layer.block(0).bias))


def test_a_closed_block_is_frozen_and_stays_in_eval_mode():
    norm = TaskBatchNorm2d()
    norm.add(0, 3), norm.add(1, 3)
    norm.close(0)
    norm.train()
    assert not norm.block(0).training and norm.block(1).training
    before = norm.block(0).running_mean.clone(), norm.block(1).running_mean.clone()
    norm({0: torch.ones(2, 3, 4, 4), 1: torch.ones(2, 3, 4, 4)}, [0, 1])
    assert torch.equal(norm.block(0).running_mean, before[0])
    assert not torch.equal(norm.block(1).running_mean, before[1])
    assert [parameter.requires_grad for parameter in norm.parameters()] == [False, False, True, True]


def test_a_task_has_one_block_a_layer():
    with pytest.raises(ValueError, match="task 1 has a block"):
        two_tasks().add(1, 5, {INPUTS: 4})
