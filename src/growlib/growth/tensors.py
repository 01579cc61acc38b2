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


def write_at(target: Tensor, values: Tensor, places: list[Tensor]):
    """Writes values to some places along every axis, in place.

    Args:
        target: Of any shape.
        values: (len(places[0]), len(places[1]), ...)
        places: For every axis, which indices.
    """
    places = [place.to(target.device) for place in places]
    if all(len(place) == size and _in_order(place) for place, size in zip(places, target.shape, strict=True)):
        target.copy_(values)
        return
    for axis in reversed(range(1, target.ndim)):  # not by an index of all axes, which would be larger than a weight
        if len(places[axis]) != target.shape[axis]:
            wide = target
            for before in range(axis):
                if len(places[before]) != target.shape[before]:
                    wide = wide.index_select(before, places[before])
            values = wide.index_copy(axis, places[axis], values)
    target.index_copy_(0, places[0], values)


def _in_order(place: Tensor) -> bool:
    return torch.equal(place, torch.arange(len(place), device=place.device))
