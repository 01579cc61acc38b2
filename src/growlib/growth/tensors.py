"""Tensors that change along one axis: what stays, what is filled in, and how it lies in memory."""

import torch
from torch import Tensor


def collapsed_axis(key, parameter: Tensor) -> int | None:
    """The axis over which Adafactor averages a factor of its second moments."""
    return {"row_var": parameter.ndim - 1, "col_var": parameter.ndim - 2}.get(key)


def take_or_fill(tensor: Tensor, axis: int, origin: Tensor, start=0.0) -> Tensor:
    """A tensor whose entries along `axis` come from the indices `origin`, or from `start` where that is -1."""
    placed = tensor.index_select(axis, origin.clamp_min(0).to(tensor.device))
    fresh = (origin < 0).nonzero().flatten().to(tensor.device)
    if len(fresh):
        values = start.index_select(axis, fresh) if torch.is_tensor(start) and start.ndim else None
        if values is None:
            placed.index_fill_(axis, fresh, float(start))
        else:
            placed.index_copy_(axis, fresh, values.to(placed))
    return placed


def like_in_memory(values: Tensor, old: Tensor) -> Tensor:
    """Values that lie in memory as those of another tensor do: channels first, or channels last."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(old.ndim)
    if last and old.is_contiguous(memory_format=last) and not old.is_contiguous():
        return values.contiguous(memory_format=last)
    return values.contiguous()
