"""Where units lie along an axis: a layout is a number, the name of a width, or a sum or product of layouts.

The axis of a layer behind `flatten` is `("*", "w3", 49)`, that of one behind `cat` is `("+", "w1", "w2", 3)`, and
`("/", "w2", 8)` has one entry for every 8 units. Layouts are plain values, so that they can be copied, pickled and
compared, and are read with the sizes of today.
"""

from math import prod

import torch
from torch import Tensor


def widths_in(layout) -> set[str]:
    """The names of the widths in a layout."""
    if isinstance(layout, tuple):
        return set().union(*map(widths_in, layout[1:]))
    return {layout} if isinstance(layout, str) else set()


def size_of(layout, sizes: dict[str, int]) -> int:
    """How many entries an axis has, for these sizes of the widths."""
    if isinstance(layout, tuple) and layout[0] == "/":
        return sizes[layout[1]] // layout[2]
    if isinstance(layout, tuple):
        return (sum if layout[0] == "+" else prod)(size_of(part, sizes) for part in layout[1:])
    return sizes[layout] if isinstance(layout, str) else layout


def labels(layout, width: str, sizes: dict[str, int]) -> Tensor:
    """For every entry along an axis the unit of a width that it belongs to (the first one of a group), or -1."""
    if layout == width:
        return torch.arange(sizes[width])
    if isinstance(layout, tuple) and layout[:2] == ("/", width):
        return torch.arange(0, sizes[width], layout[2])
    if not isinstance(layout, tuple) or layout[0] == "/":
        return torch.full((size_of(layout, sizes),), -1)
    parts = [labels(part, width, sizes) for part in layout[1:]]
    if layout[0] == "+":
        return torch.cat(parts)
    found = parts[0]
    for part in parts[1:]:
        found = torch.maximum(found[:, None], part[None]).flatten()
    return found


def coarse(layout, width: str) -> bool:
    """Whether an axis has one entry for a group of units."""
    return isinstance(layout, tuple) and (layout[:2] == ("/", width) or any(coarse(part, width) for part in layout[1:]))


def positions(layout, width: str, sizes: dict[str, int]) -> Tensor:
    """Where the units of a width lie along an axis: (units, entries of a unit)."""
    told = labels(layout, width, sizes)
    order = told.argsort(stable=True)
    return order[int((told < 0).sum()) :].view(sizes[width], -1)


def kept(layout, before: dict[str, int], after: dict[str, int]) -> Tensor:
    """Where the entries along an axis are when widths have grown, new units being the last of their width."""
    if not isinstance(layout, tuple) or layout[0] == "/":
        return torch.arange(size_of(layout, before))
    parts = [kept(part, before, after) for part in layout[1:]]
    lengths = [size_of(part, after) for part in layout[1:]]
    if layout[0] == "+":
        starts = [sum(lengths[:place]) for place in range(len(lengths))]
        return torch.cat([part + start for part, start in zip(parts, starts, strict=True)])
    found = parts[0]
    for part, length in zip(parts[1:], lengths[1:], strict=True):
        found = (found[:, None] * length + part[None]).flatten()
    return found
