"""Several optimizers as one."""

import torch
from torch import nn

from growlib.trainer.optimizers import Optimizers


def test_what_each_of_several_optimizers_remembers_is_found_by_the_parameter():
    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    both = Optimizers([torch.optim.SGD([first], lr=0.1, momentum=0.9), torch.optim.AdamW([second])])
    (first.sum() + second.sum()).backward()
    both.step()
    assert set(both.state[first]) == {"momentum_buffer"} and set(both.state.get(second)) == {
        "step",
        "exp_avg",
        "exp_avg_sq",
    }
    assert both.optimizers[0].state.keys() == {first}  # looking leaves nothing behind
