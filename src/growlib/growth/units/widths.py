"""From sizes to widths: which of them are free, what lies along them, and why the others can't change."""

from dataclasses import dataclass, field

import torch
from torch import nn

from growlib.growth.units.follow import Follower
from growlib.growth.units.frozen import frozen, together
from growlib.growth.units.sizes import Size
from growlib.layers import Entry, Hidden, Table
from growlib.layers.layouts import labels, size_of, widths_in

FIRST = (
    "producer",
    "consumer",
    "bias",
    "norm",
    "shift",
    "mean",
    "variance",
    "scale",
    "slope",
    "add",
)  # what a tensor is taken for


@dataclass
class Places:
    """Where the tensors of a model are: by id the modules that hold them, under which names."""

    model: nn.Module
    holders: dict = field(default_factory=dict)
    paths: dict = field(default_factory=dict)

    def __post_init__(self):
        for path, module in self.model.named_modules():
            self.paths[module] = path
            for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
                if tensor is not None:
                    self.holders.setdefault(id(tensor), []).append((module, name))

    def name(self, key: int) -> str:
        """What a unit-making tensor gives its name to: its module, or the tensor itself on the model."""
        return self.names(key)[0]

    def names(self, key: int) -> list[str]:
        """The names in all modules that hold a tensor."""
        held = [(self.paths[module], own) for module, own in self.holders[key]]
        return [path if path and own.endswith("weight") else f"{path}.{own}".strip(".") for path, own in held]


def refuse_lonely(follower: Follower, places: Places):
    """Fixes the sizes that nothing makes or nothing reads, and those of tensors that can't change."""
    for key, axes in follower.axes.items():
        for axis, size in enumerate(axes):
            known = follower.roles.get((key, axis), set())
            if not known:
                size.fix(f"{places.name(key)!r} is used in a way that is not followed")
            elif _is_told(places, key, known):
                size.fix(f"the buffer {places.name(key)!r} holds something for each of them")
    for width, uses in uses_of(follower).items():
        roles = set().union(*(follower.roles[use] for use in uses))
        if "consumer" not in roles:
            width.fix("no layer reads them")
        elif "producer" not in roles:
            width.fix("no layer makes them")
    for width, marks in marks_of(follower).items():
        if "contracted" in marks:
            width.fix("they meet one another (query and key of a head): whole heads can grow")
        if len(marks) > 1:
            width.fix(f"they are {' and '.join(sorted(marks))}: no start of new units keeps all of that")


def _is_told(places: Places, key: int, roles: set[str]) -> bool:
    """Whether a tensor holds what nobody learns: a buffer that is no statistic and no bias of zero."""
    module, name = places.holders[key][0]
    statistic = roles & {"mean", "variance"} or (
        roles == {"bias"} and not module._buffers.get(name, torch.ones(1)).any()
    )
    return name in module._buffers and not statistic


def marks_of(follower: Follower) -> dict[Size, set[str]]:
    """What calls do with the free sizes."""
    found = {}
    for size, mark, _ in follower.marks:
        for leaf in size.free():
            found.setdefault(leaf, set()).add(mark)
    return found


def uses_of(follower: Follower) -> dict[Size, list]:
    """For every free size the (tensor, axis) that it reaches, in the order of the calls that use them."""
    found = {}
    for key, axis in follower.roles:
        for leaf in dict.fromkeys(follower.axes[key][axis].free()):
            found.setdefault(leaf, []).append((key, axis))
    return found


def names_of(follower: Follower) -> dict[Size, tuple[str, int]]:
    """A name for every free size, and the number of units that come together."""
    names = {}
    for number, (width, uses) in enumerate(uses_of(follower).items()):
        made = [follower.axes[key][axis] for key, axis in uses if "producer" in follower.roles[key, axis]]
        names[width] = f"w{number}", together(made, width)
    return names


def table_of(follower: Follower, places: Places) -> tuple[Table, list[Hidden]]:
    """All that is free, as Hiddens with a table."""
    names, table, marks = names_of(follower), Table(), marks_of(follower)
    for width, (name, unit) in names.items():
        table.sizes[name] = width.size * unit
    layouts = {key: [frozen(size, names) for size in axes] for key, axes in follower.axes.items()}
    for key, axes in layouts.items():
        if any(widths_in(layout) for layout in axes):
            table.axes += [(module, own, axes) for module, own in places.holders[key]]
    averaging = {path for size, mark, path in follower.marks if mark == "averaged" and size.free()}
    found, taken = [], set()
    for width, uses in uses_of(follower).items():
        name, unit = names[width]
        entries = [
            _entry(places, averaging, key, axis, follower.roles[key, axis], layouts[key][axis]) for key, axis in uses
        ]
        first = next(key for key, axis in uses if "producer" in follower.roles[key, axis])
        style = next(iter(marks.get(width, {"plain"})))
        title = _untaken(places.name(first), taken)
        found.append(Hidden.found(title, tuple(entries), table, name, unit, style))
    return table, found


def _entry(places: Places, averaging: set[str], key: int, axis: int, roles: set[str], layout) -> Entry:
    first, *also = [role for role in FIRST if role in roles]
    if first == "scale" and places.paths[places.holders[key][0][0]] in averaging:
        first = "norm"  # a mean over units is taken in the module that holds it
    return Entry(*places.holders[key][0], axis, first, layout, tuple(also))


def _untaken(name: str, taken: set) -> str:
    """A module that makes several widths gives its name to the first, and numbers the others."""
    number = 1
    while (title := name if number == 1 else f"{name}#{number}") in taken:
        number += 1
    taken.add(title)
    return title


def whole(hidden: Hidden) -> str | None:
    """Why a width can't be handled although it is free: units that do not lie apart."""
    for entry in hidden.entries:
        told = labels(entry.layout, hidden.own, hidden.table.sizes)
        counts = told[told >= 0].bincount(minlength=1)
        if size_of(entry.layout, hidden.table.sizes) != entry.tensor.shape[entry.axis] or not len(counts):
            return f"{entry.name!r} does not lie as it seemed"
    return None


def refusals(follower: Follower, places: Places) -> dict[str, str]:
    """For every module that makes units, none of which can change, the reason."""
    found, growing = {}, set()
    for (key, axis), roles in follower.roles.items():
        if "producer" not in roles:
            continue
        size, names = follower.axes[key][axis], places.names(key)
        growing |= set(names) if size.free() else set()
        for name in names:
            found.setdefault(name, size.why() or "they are as many as positions or examples")
    return {name: reason for name, reason in found.items() if name not in growing}
