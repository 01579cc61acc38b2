"""Following units through calls: where they lie afterwards, and which branches a trace takes."""

import pytest
import torch
from networks import lies_as_told
from torch import fx, nn

from growlib.growth.tracing import Follower, Tracer

CALLS = {
    "flatten": lambda x: x.flatten(1),
    "view of the rest": lambda x: x.view(x.shape[0], x.shape[1], -1),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "transpose": lambda x: x.transpose(1, 3),
    "mean over positions": lambda x: x.mean((2, 3)),
    "mean, kept": lambda x: x.mean([2, 3], keepdim=True),
    "sum over the last, after a permute": lambda x: torch.permute(x, (0, 3, 1, 2)).sum(3),
    "pooled": lambda x: nn.functional.max_pool2d(x, 2),
    "pooled to one": lambda x: nn.functional.adaptive_avg_pool2d(x, (1, 1)).squeeze(3),
    "scaled and added": lambda x: 2 * x / 2 + x - x,
}


@pytest.mark.parametrize("call", CALLS)
def test_calls_leave_the_units_where_the_layout_says(call):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.make = nn.Conv2d(1, 5, 1, bias=False)

        def forward(self, images):
            return CALLS[call](self.make(images))

    model, images = Model(), torch.ones(2, 1, 4, 4)
    with torch.no_grad():
        model.make.weight.copy_(torch.arange(5.0).view(5, 1, 1, 1))
        run = fx.Interpreter(model, garbage_collect_values=False, graph=Tracer(images).trace(model))
        out = run.run(images)
    follower = Follower(model)
    follower.follow(run.graph, run.env)
    layout = follower.layouts[next(reversed(run.graph.nodes)).args[0]]
    whole = {"sum over the last, after a permute": 4}.get(call, 1)
    assert lies_as_told(out / whole, layout)


def test_a_branch_that_asks_for_a_shape_is_taken_and_one_that_asks_for_data_is_not():
    class Asks(nn.Module):
        def __init__(self, question):
            super().__init__()
            self.question = question

        def forward(self, images):
            return images + 1 if self.question(images) else images

    images = torch.zeros(2, 3)
    assert "add" in str(Tracer(images).trace(Asks(lambda x: x.shape[1] == 3)))
    assert "add" not in str(Tracer(images).trace(Asks(lambda x: x.shape[1] > 3)))
    for question in (lambda x: x.sum() > 0, lambda x: x.sum().item() > 0):
        with pytest.raises(fx.proxy.TraceError):
            Tracer(images).trace(Asks(question))
