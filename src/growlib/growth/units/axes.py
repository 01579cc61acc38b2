"""Along which dimension units lie in what a module puts out."""

import torch
from torch import nn

from growlib.growth.units.exported import export
from growlib.growth.units.follow import Follower


def axis_of_units(model: nn.Module, args: tuple, kwargs: dict, path: str) -> int | None:
    """The dimension of a module's output along which its units lie.

    Args:
        model: That holds the module.
        args: Its inputs.
        kwargs: Inputs by name.
        path: Of the module.

    Returns:
        None where it can't be told: several dimensions may change, or none.
    """
    view = export(model, args, kwargs, False)
    sizes = Follower().follow(view)
    calls = [node for node in view.graph.nodes if node.op == "call_function" and _within(node, path)]
    made = [node for node in calls if torch.is_tensor(node.meta.get("val"))]
    free = [dim for dim, size in enumerate(sizes[made[-1]]) if size.free()] if made else []
    return free[0] if len(free) == 1 else None


def _within(node, path: str) -> bool:
    stack = node.meta.get("nn_module_stack") or {}
    return any(held[0].removeprefix("L['self'].") == path for held in stack.values())
