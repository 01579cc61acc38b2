"""Where units lie: Axis, the units that make one width, and Layout, where they are in a tensor."""

from dataclasses import dataclass, field, replace
from math import lcm, prod

from torch import nn

from growlib.layers import Hidden


@dataclass(eq=False)
class Axis:
    """Units that belong together, and who makes, normalises and reads them."""

    number: int  # in the order of the calls that make them
    producers: dict = field(default_factory=dict)  # by path, in the order of the calls
    norms: dict = field(default_factory=dict)  # by path, with the parts of what they normalise
    consumers: dict = field(default_factory=dict)  # by path, with the parts of what they read
    unit: int = 1
    refused: str | None = None
    read_raw: bool = False  # by a consumer that no LayerNorm precedes
    joined: "Axis | None" = None

    @property
    def root(self) -> "Axis":
        return self if self.joined is None else self.joined.root

    @property
    def first(self) -> nn.Module:
        return next(iter(self.root.producers.values()))

    def join(self, other: "Axis"):
        mine, theirs = sorted((self.root, other.root), key=lambda axis: axis.number)
        if mine is theirs:
            return
        for name in ("producers", "norms", "consumers"):
            getattr(mine, name).update(getattr(theirs, name))
        mine.unit, mine.refused = lcm(mine.unit, theirs.unit), mine.refused or theirs.refused
        mine.read_raw |= theirs.read_raw
        theirs.joined = mine

    def refuse(self, reason: str):
        self.root.refused = self.root.refused or reason


@dataclass(frozen=True)
class Layout:
    """Where units lie in a tensor.

    Args:
        dim: The dimension along which they lie, counted from the end: -1 is the last.
        parts: What lies there side by side: (Axis, entries a unit), or (None, entries).
        linear: Whether it is a linear image of what the producers put out.
        normed: Whether a LayerNorm has centred it.
    """

    dim: int
    parts: tuple
    linear: bool = True
    normed: bool = False

    def refuse(self, reason: str):
        for axis, _ in self.parts:
            if axis is not None:
                axis.refuse(reason)


def hidden_from(axis: Axis) -> Hidden:
    """The Hidden of an Axis."""
    readers = [*axis.norms.values(), *axis.consumers.values()]
    return Hidden(
        next(iter(axis.producers)),
        tuple(axis.producers.values()),
        tuple(module for module, _ in axis.norms.values()),
        tuple(module for module, _ in axis.consumers.values()),
        axis.unit,
        {
            module: tuple((part and part.first, size) for part, size in parts)
            for module, parts in readers
            if len(parts) > 1
        },
    )


def reshaped(layout: Layout, before: tuple, after: tuple) -> Layout | None:
    """Units stay where they are if what precedes their dimension is as large as before, and theirs a multiple."""
    dim = layout.dim + len(before)
    for place, size in enumerate(after):
        spread, rest = divmod(size, before[dim])
        fits = not rest and spread * prod(after[place + 1 :]) == prod(before[dim + 1 :])
        if fits and prod(after[:place]) == prod(before[:dim]):
            parts = tuple((axis, entries * spread) for axis, entries in layout.parts)
            return replace(layout, dim=place - len(after), parts=parts, linear=layout.linear and spread == 1)
    return None


def permuted(layout: Layout, order: list[int]) -> Layout:
    """Dimension `order[n]` becomes dimension n."""
    ndim = len(order)
    return replace(layout, dim=[dim % ndim for dim in order].index(layout.dim + ndim) - ndim)


def reduced(layout: Layout, dims: list[int], ndim: int, kept: bool, linear: bool) -> Layout | None:
    """Some of `ndim` dimensions are gone, or have size 1 where they are kept; None if the units' is among them."""
    place, dims = layout.dim + ndim, {dim % ndim for dim in dims}
    if place in dims:
        return None
    gone = 0 if kept else sum(dim > place for dim in dims)
    return replace(layout, dim=layout.dim + gone, linear=layout.linear and linear)
