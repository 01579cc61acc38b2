"""Sizes: how many entries a dimension has, and what must be equal for a model to run.

A size is free (it may change), fixed (with the reason), a product (heads x entries of a head) or a sum (what was put
side by side). Every axis of every tensor starts as a size of its own; the calls of a model make sizes equal, take
them apart and put them together. What is free in the end are the widths of the model.
"""

from itertools import count
from math import lcm, prod

_numbers = count()


class Size:
    """A number of entries along a dimension.

    Args:
        size: The number.
        reason: Why it can't change; None for one that may.
    """

    def __init__(self, size: int, reason: str | None = None):
        self.size, self.reason, self.number = size, reason, next(_numbers)
        self.kind, self.parts, self.link = "free" if reason is None else "fixed", (), None

    @property
    def root(self) -> "Size":
        """What it has been made equal to."""
        found = self
        while found.link is not None:
            found = found.link
        return found

    def become(self, kind: str, parts: tuple):
        """Takes a free or fixed size apart, wherever it is used."""
        self.kind, self.parts = kind, parts

    def leaves(self) -> list["Size"]:
        """The sizes that it is made of."""
        root = self.root
        return [leaf for part in root.parts for leaf in part.leaves()] if root.parts else [root]

    def free(self) -> list["Size"]:
        """Those of its leaves that may change."""
        return [leaf for leaf in self.leaves() if leaf.kind == "free"]

    def fix(self, reason: str):
        """Keeps it from changing; the first reason stays."""
        for leaf in self.free():
            leaf.kind, leaf.reason = "fixed", reason

    def why(self) -> str | None:
        """The reason why it can't change, if it has one."""
        return telling(*(leaf.reason for leaf in self.leaves() if leaf.kind == "fixed")) or None


INPUT = "they are the model's input"


def telling(*reasons: str | None) -> str:
    """The reason that says most: positions and examples are fixed because they are the input, and so for no reason."""
    given = [reason for reason in reasons if reason]
    return next((reason for reason in given if reason != INPUT), given[0] if given else "")


def fixed(size: int, reason: str = "") -> Size:
    """A size that can't change."""
    return Size(size, reason)


def product(parts: list[Size]) -> Size:
    """The size of a dimension that several were merged into."""
    factors = [factor for part in parts for factor in factors_of(part)]
    if len(factors) == 1:
        return factors[0]
    if all(factor.root.kind == "fixed" for factor in factors):
        return fixed(prod(f.size for f in factors), telling(*(f.root.reason for f in factors)))
    whole = Size(prod(factor.size for factor in factors))
    whole.become("product", tuple(factors))
    return whole


def total(parts: list[Size]) -> Size:
    """The size of a dimension along which several lie side by side."""
    segments = [segment for part in parts for segment in segments_of(part)]
    if len(segments) == 1:
        return segments[0]
    whole = Size(sum(segment.size for segment in segments))
    whole.become("sum", tuple(segments))
    return whole


def factors_of(size: Size) -> list[Size]:
    """What a size is a product of; ones are left out, unless they may change."""
    root = size.root
    if root.kind == "product":
        return [factor for part in root.parts for factor in factors_of(part)]
    return [] if root.kind == "fixed" and root.size == 1 else [root]


def segments_of(size: Size) -> list[Size]:
    """What a size is a sum of."""
    root = size.root
    return [segment for part in root.parts for segment in segments_of(part)] if root.kind == "sum" else [root]


def equal(first: Size, second: Size, reason: str):
    """Makes two sizes one.

    Args:
        first: A size.
        second: Another of the same number.
        reason: Why neither may change, if they are taken apart in different ways.
    """
    a, b = first.root, second.root
    if a is b:
        return
    if b.kind == "free" or (a.kind != "free" and b.kind == "fixed"):
        a, b = b, a
    if a.size != b.size or (a.kind == "free" and a in b.leaves()):
        a.fix(reason), b.fix(reason)
    elif a.kind == "free":
        b.number = min(a.number, b.number) if b.kind == "free" else b.number
        a.link = b
    elif a.kind == "fixed":
        b.fix(a.reason)
        if b.kind == "fixed":
            b.reason = telling(b.reason, a.reason)
        a.link = None if a in b.leaves() else b
    else:
        _align(a, b, reason)


def _align(a: Size, b: Size, reason: str):
    """Makes sizes equal that both were taken apart."""
    if a.kind == b.kind == "product":
        if not _aligned_products(a, b, reason):
            a.fix(reason), b.fix(reason)
        return
    if a.kind == "sum" and b.kind == "product":
        a, b = b, a
    if a.kind == "product":
        outer, inner = a.parts[0].root, product(list(a.parts[1:]))
        if outer.kind == "fixed":
            a = total([inner] * outer.size)
        else:
            parts = split(b, outer.size, reason)
            equal(parts[0], outer, reason), equal(parts[1], inner, reason)
            return
    cuts = cut(b, [segment.size for segment in segments_of(a)], reason)
    for mine, theirs in zip(segments_of(a), cuts, strict=True):
        equal(mine, theirs, reason)


def _aligned_products(a: Size, b: Size, reason: str) -> bool:
    mine, theirs = factors_of(a), factors_of(b)
    while mine and theirs:
        f, g = mine[0], theirs[0]
        if f.size == g.size:
            mine.pop(0), theirs.pop(0)
            equal(f, g, reason)
            continue
        larger, rest = (f, mine) if f.size > g.size else (g, theirs)
        small = min(f.size, g.size)
        if small == 1 or larger.size % small:
            return False
        rest[:1] = split(larger, small, reason)
    return not mine and not theirs


def split(size: Size, outer: int, reason: str) -> tuple[Size, Size]:
    """A size as `outer` times the rest.

    Args:
        size: Divisible by `outer`.
        outer: The first factor.
        reason: Why it may not change, if its parts don't allow it.

    Returns:
        Both factors.
    """
    root, inner = size.root, size.size // outer
    if outer == 1:
        return fixed(1), root
    if inner == 1:
        return root, fixed(1)
    if root.kind == "product":
        return _split_product(root, outer, reason)
    if root.kind == "sum":
        return _split_sum(root, outer, inner, reason)
    parts = Size(outer, root.reason), Size(inner, root.reason)
    if root.kind == "free":
        parts[0].number, parts[1].number = root.number, root.number + 0.5
        root.become("product", parts)
    return parts


def _split_product(root: Size, outer: int, reason: str) -> tuple[Size, Size]:
    factors, need, before = factors_of(root), outer, []
    if factors[0].kind == "free" and all(factor.kind == "fixed" for factor in factors[1:]):
        return _regrouped(factors, outer, root.size // outer, reason)
    while need > 1:
        factor = factors.pop(0)
        if need % factor.size == 0:
            before.append(factor)
            need //= factor.size
        elif factor.size % need == 0:
            first, rest = split(factor, need, reason)
            before.append(first)
            factors.insert(0, rest)
            need = 1
        else:
            root.fix(reason)
            return fixed(outer, reason), fixed(root.size // outer, reason)
    return product(before), product(factors)


def _regrouped(factors: list[Size], outer: int, inner: int, reason: str) -> tuple[Size, Size]:
    """Groups of one size, seen as groups of another: they change by what both sizes divide."""
    own = prod(factor.size for factor in factors[1:])
    both = lcm(own, inner)
    if own != both:
        factors[0].become("product", (Size(factors[0].size * own // both), fixed(both // own, reason)))
    groups = factors[0].parts[0] if own != both else factors[0]
    return product([groups, fixed(both // inner, reason)]), fixed(inner, reason)


def _split_sum(root: Size, outer: int, inner: int, reason: str) -> tuple[Size, Size]:
    segments = segments_of(root)
    if len(segments) == outer and all(segment.size == inner for segment in segments):
        for segment in segments[1:]:
            equal(segments[0], segment, reason)
        root.become("product", (fixed(outer, reason), segments[0]))
        return root.parts
    if all(segment.size % inner == 0 for segment in segments):
        pairs = [split(segment, segment.size // inner, reason) for segment in segments]
        for _, rest in pairs[1:]:
            equal(pairs[0][1], rest, reason)
        root.become("product", (total([first for first, _ in pairs]), pairs[0][1]))
        return root.parts
    root.fix(reason)
    return fixed(outer, reason), fixed(inner, reason)


def cut(size: Size, lengths: list[int], reason: str) -> list[Size]:
    """A size as a sum.

    Args:
        size: Their total.
        lengths: Of the parts.
        reason: Why it may not change, if its parts don't allow it.

    Returns:
        The parts.
    """
    root = size.root
    if len(lengths) == 1:
        return [root]
    if root.kind == "free":
        root.become("sum", tuple(Size(length) for length in lengths))
        for place, part in enumerate(root.parts):
            part.number = root.number + place / 1024
        return list(root.parts)
    if root.kind == "product" and root.parts[0].root.kind == "fixed":
        inner = product(list(root.parts[1:]))
        return _cut_segments(root, [inner] * root.parts[0].size, lengths, reason)
    if root.kind == "product":
        return _cut_outer(root, lengths, reason)
    if root.kind == "sum":
        return _cut_segments(root, segments_of(root), lengths, reason)
    return [fixed(length, root.reason) for length in lengths]


def _cut_outer(root: Size, lengths: list[int], reason: str) -> list[Size]:
    """Cuts a product between whole rows of its inner factors."""
    inner = product(list(root.parts[1:]))
    if any(length % inner.size for length in lengths):
        root.fix(reason)
        return [fixed(length, reason) for length in lengths]
    return [product([part, inner]) for part in cut(root.parts[0], [n // inner.size for n in lengths], reason)]


def _cut_segments(root: Size, segments: list[Size], lengths: list[int], reason: str) -> list[Size]:
    segments, found = list(segments), []
    for length in lengths:
        taken, need = [], length
        while need:
            segment = segments.pop(0).root
            if segment.kind == "sum":
                segments[:0] = segments_of(segment)
                continue
            if segment.size > need:
                segment, rest = cut(segment, [need, segment.size - need], reason)
                segments.insert(0, rest)
            taken.append(segment)
            need -= segment.size
        found.append(total(taken) if taken else fixed(0))
    return found
