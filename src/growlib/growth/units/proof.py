"""The proof: all widths at once are grown by their smallest steps, and the model must be the same but for them.

Two things are compared. The calls: the grown model is exported anew, and its graph must be the old one, in sizes that
the table foretells. The numbers: both graphs are computed call by call, with scales, biases and statistics that are
random, and at the places of the old units every value must be what it was.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from growlib.growth.units.exported import View, line_of, place_of
from growlib.growth.units.follow import Call, Follower
from growlib.growth.units.frozen import frozen
from growlib.growth.units.literals import SIZED, plain, sized
from growlib.growth.units.sizes import Size
from growlib.layers.attributes import noted
from growlib.layers.hidden import Hidden, Table
from growlib.layers.layouts import kept, size_of


@dataclass(frozen=True)
class Problem:
    """Something that is not as foretold.

    Args:
        sizes: What must not change then.
        reason: Why.
    """

    sizes: tuple[Size, ...]
    reason: str

    def settle(self):
        """Keeps the sizes from changing."""
        for size in self.sizes:
            size.fix(self.reason)


def steps(hidden: list[Hidden]) -> dict[str, int]:
    """The sizes of all widths after a trial growth, each by another number of its smallest steps where they can."""
    return {h.own: h.width + h.unit * (1 + number % 3) for number, h in enumerate(hidden)}


@contextmanager
def as_grown(table: Table, sizes: dict[str, int], attributes: list) -> Iterator[None]:
    """Puts empty tensors of other sizes into a model for a while, and what its modules keep beside them.

    Args:
        table: The widths.
        sizes: Theirs for the while.
        attributes: (module, name, layout) of numbers of modules that follow.
    """
    tensors, numbers, made = [], [], {}
    for module, name, layouts in table.axes:
        holder = module._parameters if name in module._parameters else module._buffers
        old = holder[name]
        tensors.append((holder, name, old))
        if id(old) not in made:
            empty = torch.empty([size_of(layout, sizes) for layout in layouts], dtype=old.dtype, device=old.device)
            made[id(old)] = nn.Parameter(empty, old.requires_grad) if isinstance(old, nn.Parameter) else empty
        holder[name] = made[id(old)]
    try:
        for module in dict.fromkeys(module for module, *_ in table.axes):
            numbers += [(module, name, getattr(module, name), value) for name, value in noted(module).items()]
        numbers += [(m, name, getattr(m, name), size_of(layout, sizes)) for m, name, layout in attributes]
        for module, name, _, value in numbers:
            setattr(module, name, value)
        yield
    finally:
        for holder, name, old in tensors:
            holder[name] = old
        for module, name, old, _ in reversed(numbers):
            setattr(module, name, old)


# ---------------------------------------------------------------------------------------------------------- the calls


def compare_calls(follower: Follower, view: View, grown: View, names: dict, sizes: dict[str, int]) -> list[Problem]:
    """Where the graph of a grown model is not the old one in the sizes foretold.

    Args:
        follower: What knows the sizes of the old graph.
        view: The old graph.
        grown: The new one.
        names: Of the widths.
        sizes: Of the widths now.
    """
    problems = []
    for old, new in zip(view.graph.nodes, grown.graph.nodes, strict=False):
        if old.op != new.op or (old.op == "call_function" and old.target != new.target):
            return [*problems, _problem(follower, old, f"{place_of(old)} is another call when they are more")]
        if old.op != "call_function":
            continue
        made = follower.sizes[old]
        value, told = new.meta.get("val"), made if made and isinstance(made[0], Size) else None
        if told and torch.is_tensor(value) and [size_of(frozen(s, names), sizes) for s in told] != list(value.shape):
            problems.append(_problem(follower, old, f"{place_of(old)} has another shape than foretold"))
        elif Call(follower, old).name not in SIZED and plain(old) != plain(new):
            numbers = next((a, b) for a, b in zip(plain(old), plain(new), strict=False) if a != b)
            reason = f"the number {numbers[0]} in {place_of(old)} becomes {numbers[1]} when they are more"
            problems.append(_problem(follower, old, reason))
    return problems


def _problem(follower: Follower, node: fx.Node, reason: str) -> Problem:
    return Problem(tuple(leaves_at(follower, node)), reason)


def leaves_at(follower: Follower, node: fx.Node) -> list[Size]:
    """The free sizes of a call: those that end there, or else all that it reads, or else all that it puts out."""
    made = set(_free(follower.sizes.get(node)))
    read = [leaf for source in node.all_input_nodes for leaf in _free(follower.sizes.get(source))]
    return [leaf for leaf in read if leaf not in made] or read or list(made)


def _free(sizes) -> list[Size]:
    if not isinstance(sizes, list):
        return []
    return [leaf for size in sizes for leaf in (size.free() if isinstance(size, Size) else _free(size))]


def failed_at(error: BaseException, views: list[tuple[View, dict]]) -> list[tuple[fx.Node, dict]]:
    """The calls of the line of code that an export failed at, in all modules that run it, and the sizes there."""
    nodes = {}
    for view, sizes in views:
        for node in view.graph.nodes:
            if node.op == "call_function" and line_of(node):
                nodes.setdefault(line_of(node), []).append((node, sizes))
    line = next((line for line in reversed(_lines(error)) if line in nodes), None)
    return nodes.get(line, [])


def blame(follower: Follower, failed: list[tuple[fx.Node, dict]]) -> list[Problem]:
    """What must not change where calls failed: the smallest size that stands there as a number, or else all sizes."""
    problems, rest = [], []
    for node, known in failed:
        follower.sizes = known
        literal = sorted(
            {f for n, size in sized(follower, node) if n == size.size for f in size.free()}, key=lambda s: s.size
        )
        reason = f"{place_of(node)} keeps a number of its own, and fails when they are more"
        problems += [Problem((literal[0],), reason)] if literal else []
        rest += [_problem(follower, node, reason)]
    return [p for p in problems if p.sizes] or [p for p in rest if p.sizes]


def _lines(error: BaseException | None) -> list[tuple[str, int]]:
    """The lines that an error went through, from its first cause outwards to what it became, outermost line first."""
    found = []
    while error is not None:
        own, trace = [], error.__traceback__
        while trace is not None:
            own.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
            trace = trace.tb_next
        found += own
        error = error.__cause__ or error.__context__
    return found


def at_old_places(value: Tensor, layouts: list, before: dict[str, int], after: dict[str, int]) -> Tensor:
    """The entries of a grown value that were there before."""
    for dim, layout in enumerate(layouts):
        if size_of(layout, before) != value.shape[dim]:
            value = value.index_select(dim, kept(layout, before, after).to(value.device))
    return value
