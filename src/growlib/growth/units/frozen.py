"""From sizes to layouts: what is left of them when all is known."""

from itertools import accumulate, takewhile
from operator import mul

from growlib.growth.units.sizes import Size, factors_of


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
