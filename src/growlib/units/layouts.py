"""Where units lie along an axis: a layout is a number, the name of a width, or a sum or product of layouts.

The axis of a layer behind `flatten` is `("*", "w3", 49)`, that of one behind `cat` is `("+", "w1", "w2", 3)`, and
`("/", "w2", 8)` has one entry for every 8 units. Layouts are plain values, so that they can be copied, pickled and
compared, and are read with the sizes of today.
"""

from itertools import accumulate, takewhile
from math import prod
from operator import mul

import torch
from torch import Tensor

from growlib.units.sizes import Size, factors_of


def frozen(size: Size, names: dict[Size, tuple[str, int]]):
    """The layout of a size: widths that have a name and a number of units per group stay, all else is a number."""
    root = size.root
    if root in names:
        name, unit = names[root]
        return name if unit == 1 else ("/", name, unit)
    if root.kind in ("free", "fixed"):
        return root.size
    parts = [frozen(part, names) for part in root.parts]
    if all(isinstance(part, int) for part in parts):
        return root.size
    return ("+", *parts) if root.kind == "sum" else _product(parts)


def _product(parts: list):
    """Groups times the units of a group are units."""
    flat, found = [], []
    for part in parts:
        flat += part[1:] if isinstance(part, tuple) and part[0] == "*" else [part]
    for part in flat:
        last = found[-1] if found else None
        if isinstance(part, int) and isinstance(last, int):
            part, last = part * found.pop(), found[-1] if found else None
        if isinstance(part, int) and isinstance(last, tuple) and last[0] == "/" and part % last[2] == 0:
            found[-1:] = [last[1]] if part == last[2] else [last[1], part // last[2]]
        else:
            found.append(part)
    return found[0] if len(found) == 1 else ("*", *found)


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


def together(sizes: list[Size], width: Size) -> int:
    """How many entries lie together for a unit in all of these sizes: the product of the fixed factors behind it."""
    behind = [_runs(factors) for size in sizes for factors in _behind(size, width)]
    return max(set.intersection(*behind)) if behind else 1


def _runs(factors: list[Size]) -> set[int]:
    """The products of the first few factors, while they are fixed."""
    fixed = list(takewhile(lambda factor: factor.kind == "fixed", factors))
    return {1, *accumulate((factor.size for factor in fixed), mul)}


def _behind(size: Size, width: Size) -> list[list[Size]]:
    """What follows a width wherever it stands in a product."""
    root = size.root
    if root is width:
        return [[]]
    if root.kind == "product":
        factors = factors_of(root)
        for place, factor in enumerate(factors):
            if width in factor.leaves():
                return [[*inner, *factors[place + 1 :]] for inner in _behind(factor, width)]
    return [found for part in root.parts for found in _behind(part, width)]
