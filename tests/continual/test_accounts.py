"""What tasks cost, and which parameters are of use."""

import torch
from torch import nn

from growlib import TaskNet, costs, parameter_life, task_costs


def test_every_parameter_of_a_task_net_is_of_use():
    model = TaskNet((1, 8, 8), "a", 3, [4, 5], [6], pools=[2])
    model.grow("b", 2, 3, classes=2)
    model.close("a")
    life, bill = parameter_life(model), task_costs(model)
    assert life == {"live": bill.parameters["b"], "frozen": bill.parameters["a"], "dead": 0}
    assert bill.parameters.sum() == costs.parameters(model)
    assert bill.flops["b"] == costs.flops(model, "b") > bill.flops["a"]


class Masked(nn.Module):
    """Two tasks side by side in wide layers: what one has is multiplied by zero for the other."""

    tasks, input_shape = ["a", "b"], (3,)

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 5), nn.Linear(5, 2)
        self.register_buffer("mine", torch.tensor([[1.0, 1, 0, 0, 0], [0, 0, 1, 1, 0]]))

    def forward(self, inputs, task):
        return self.second(self.first(inputs).relu() * self.mine[self.tasks.index(task)])


def test_parameters_that_only_meet_zeros_are_dead():
    model = Masked()
    keep = dict(model.named_buffers())["mine"].clone()
    life = parameter_life(model)
    assert torch.equal(model.mine, keep)
    assert life["dead"] == (3 + 1) + 2  # of the fifth unit: its row, its bias and its column
    assert life["live"] == costs.parameters(model) - 6


def test_the_rim_of_a_filter_on_a_single_pixel_is_dead():
    model = TaskNet((1, 2, 2), "a", 2, [3, 4], pools=[1])
    assert parameter_life(model)["dead"] == 3 * 4 * 8  # the second convolution sees one pixel
