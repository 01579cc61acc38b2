"""What a trainer refuses before it begins."""

import pytest
import torch

from growlib import MLP
from growlib.trainer.checks import refuse_optimizer


def test_an_optimizer_that_computes_the_loss_again_is_refused():
    parameters = list(MLP(4, [3], 2).parameters())

    class Own(torch.optim.SGD):
        def step(self, closure):
            return super().step(closure)

    for optimizer in (torch.optim.LBFGS(parameters), Own(parameters, lr=0.1)):
        with pytest.raises(TypeError, match=f"{type(optimizer).__name__}.step needs a closure"):
            refuse_optimizer(optimizer)
    for kind in (torch.optim.SGD, torch.optim.AdamW, torch.optim.Adagrad):
        refuse_optimizer(kind(parameters, lr=0.1))
