"""What the tasks of a network cost, and which of its parameters are of any use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.func import functional_call
from torch.nn.functional import avg_pool2d
from torch.overrides import TorchFunctionMode

from growlib import costs
from growlib.layers import evaluating

if TYPE_CHECKING:
    import pandas as pd


class _Averaging(TorchFunctionMode):
    """Lets a maximum look at all that it chooses from."""

    def __torch_function__(self, function, types, arguments=(), named=None):
        name, named = getattr(function, "__name__", ""), named or {}
        if name in ("max_pool2d", "boolean_dispatch"):
            return avg_pool2d(*arguments[:2])
        if name == "amax":
            return arguments[0].mean(*arguments[1:], **named)
        return function(*arguments, **named)


def parameter_life(model) -> dict[str, int]:
    """How many parameters can influence an answer, and how many of these can still learn.

    All weights become 1 for the count, so that no path cancels another: a parameter is dead if no path leads from the
    inputs through it to the head of any task.

    Args:
        model: Called as model(inputs, task), with `tasks` and an `input_shape`.

    Returns:
        live (and trainable), frozen, dead.
    """
    ones = {name: torch.ones_like(p, dtype=torch.float64).requires_grad_() for name, p in model.named_parameters()}
    buffers = {name: _neutral(name, buffer) for name, buffer in model.named_buffers()}
    inputs = torch.ones(1, *model.input_shape, dtype=torch.float64, device=next(iter(ones.values())).device)
    with evaluating(model), _Averaging():
        answers = sum(functional_call(model, {**ones, **buffers}, (inputs, task)).sum() for task in model.tasks)
    found = torch.autograd.grad(answers, list(ones.values()), allow_unused=True, materialize_grads=True)
    counts = dict.fromkeys(("live", "frozen", "dead"), 0)
    for parameter, gradient in zip(model.parameters(), found, strict=True):
        used = int(gradient.count_nonzero())
        counts["live" if parameter.requires_grad else "frozen"] += used
        counts["dead"] += gradient.numel() - used
    return counts


def _neutral(name: str, buffer: torch.Tensor) -> torch.Tensor:
    """Statistics that leave units as they are; other buffers, such as masks, as they are."""
    start = {"running_mean": 0.0, "running_var": 1.0}.get(name.rpartition(".")[2])
    if start is not None:
        return torch.full_like(buffer, start, dtype=torch.float64)
    return buffer.double() if buffer.is_floating_point() else buffer


def task_costs(model) -> pd.DataFrame:
    """What every task added to a TaskModel, and what one answer for it costs.

    Returns:
        A row for every task: parameters (its own), flops (of all blocks that it needs).
    """
    import pandas as pd

    rows = {}
    for task in model.tasks:
        own = sum(parameter.numel() for parameter in model.task_parameters(task).values())
        rows[task] = {"parameters": own, "flops": costs.flops(model, task)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("task")
