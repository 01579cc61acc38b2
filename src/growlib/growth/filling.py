"""Units that come and go, from the table of a width: what takes the place of every tensor that they lie in."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from growlib.growth.seen import maker_views, seen_by_inits
from growlib.growth.surgery import TensorReplacer
from growlib.growth.tensors import take_or_fill, write_at
from growlib.inits import mean_row, zero_out, zero_row
from growlib.layers import Entry, Hidden
from growlib.layers.layouts import coarse, labels

NEUTRAL = {"norm": 1.0, "variance": 1.0, "scale": 1.0, "slope": 0.25}  # what new units start with; else zero
BEHIND_NORMS = {"centred": mean_row, "averaged": zero_row, "summed": zero_row}


@torch.no_grad()
def insert_units(replacer: TensorReplacer, hidden: Hidden, by: int, init=zero_out, probe=None):
    """Plans the tensors of new units, for everything that they lie in.

    Args:
        replacer: Of the model.
        hidden: The width.
        by: The number of new units, a multiple of its unit.
        init: How they start.
        probe: What the init looks at.
    """
    if getattr(init, "preserves", False):
        init = BEHIND_NORMS.get(hidden.style, init)
    seen = seen_by_inits(hidden)
    incoming, bias, outgoing = (_listed(part) for part in init(seen, by, probe))
    sources = init.sources(seen, by) if hasattr(init, "sources") else None
    after = {**hidden.table.sizes, hidden.own: hidden.width + by}
    fill = Fill(hidden, by, _resized(hidden, range(hidden.width), after), sources, init in BEHIND_NORMS.values())
    fill.made(seen, incoming, bias)
    fill.others()
    fill.read(seen, outgoing)
    for resized in fill.new.values():
        replacer.put(resized.old, resized.value, resized.moves, resized.ancestors)
    replacer.resize(hidden.table, after)


@torch.no_grad()
def remove_units(replacer: TensorReplacer, hidden: Hidden, units: list[int]):
    """Plans the tensors without some units, for everything that they lie in.

    Args:
        replacer: Of the model.
        hidden: The width.
        units: Which go, whole groups of them.
    """
    kept = sorted(set(range(hidden.width)) - set(units))
    after = {**hidden.table.sizes, hidden.own: len(kept)}
    for resized in _resized(hidden, kept, after).values():
        replacer.put(resized.old, resized.value, resized.moves)
    replacer.resize(hidden.table, after)


@dataclass
class Resized:
    """A tensor as it will be.

    Args:
        old: As it is.
        moves: For every axis that changes, where each entry comes from, or -1.
        value: What takes its place.
        ancestors: As `moves`, with the entries that new ones copy.
    """

    old: Tensor
    moves: dict[int, Tensor]
    value: Tensor = None
    ancestors: dict[int, Tensor] = field(default_factory=dict)


def _listed(tensors) -> list:
    return list(tensors) if isinstance(tensors, (list, tuple)) else [tensors]


def _resized(hidden: Hidden, kept, after: dict[str, int]) -> dict[int, Resized]:
    """The tensors of a width, by their ids, with room for new units.

    Args:
        hidden: The width.
        kept: The units that stay, in order; they are the first ones afterwards.
        after: The sizes afterwards.
    """
    kept, before, found = torch.tensor(list(kept)), hidden.table.sizes, {}
    for entry in hidden.entries:
        old, new = (labels(entry.layout, hidden.own, sizes) for sizes in (before, after))
        stays = (old < 0) | torch.isin(old, kept)
        origin = torch.full((len(new),), -1)
        origin[new < len(kept)] = stays.nonzero().flatten()
        found.setdefault(id(entry.tensor), Resized(entry.tensor, {})).moves[entry.axis] = origin
    for resized in found.values():
        resized.value, resized.ancestors = resized.old.detach(), dict(resized.moves)
        for axis, origin in resized.moves.items():
            resized.value = take_or_fill(resized.value, axis, origin)
    return found


class Fill:
    """Writes the values of new units into tensors that have room for them.

    Args:
        hidden: The width, as it is.
        by: The number of new units.
        new: By id of a tensor what takes its place.
        sources: The units that the new ones copy, or None.
        neutral: Whether norms see new units that change nothing: their scale makes up for the number.
    """

    def __init__(self, hidden: Hidden, by: int, new: dict[int, Resized], sources: Tensor | None, neutral: bool):
        self.hidden, self.by, self.new, self.neutral = hidden, by, new, neutral
        self.sources = None if sources is None else sources.cpu()
        for entry in hidden.entries if sources is not None else ():
            if not coarse(entry.layout, hidden.own):
                ancestors = new[id(entry.tensor)].ancestors[entry.axis] = (
                    new[id(entry.tensor)].moves[entry.axis].clone()
                )
                ancestors[self._fresh_places(entry).flatten()] = hidden.places(entry)[self.sources].flatten()

    def _fresh_places(self, entry: Entry) -> Tensor:
        """Where new units lie along the axis of an entry: (by, spread)."""
        return self.hidden.places(entry, self.by)[self.hidden.width :]

    def _write(self, entry: Entry, where: Tensor, values: Tensor):
        """Writes rows (positions, ...) along the axis of an entry, at what was there before along all others."""
        resized, places = self.new[id(entry.tensor)], []
        for axis, size in enumerate(resized.value.shape):
            stays = (resized.moves[axis] >= 0).nonzero().flatten() if axis in resized.moves else torch.arange(size)
            places.append((where if axis == entry.axis else stays).to(resized.value.device))
        places.insert(0, places.pop(entry.axis))
        write_at(resized.value.movedim(entry.axis, 0), values.to(resized.value), places)

    def made(self, seen, incoming: list, bias: list):
        """The weights that make new units, and their biases."""
        for (entry, column, shift), rows, shifts in zip(seen.maker_views(), incoming, bias, strict=True):
            self._write(entry, self._fresh_places(entry)[:, column], rows)
            if shift is not None and shifts is not None:
                self._write(shift, self._fresh_places(shift)[:, column], shifts)

    def others(self):
        """What normalises, scales or is added to new units."""
        paired = {id(shift) for _, _, shift in maker_views(self.hidden)}
        for entry in self.hidden.entries:
            if id(entry) in paired or entry.role in ("producer", "consumer"):
                continue
            if entry.role in ("add", "bias") and self.hidden.style == "centred":
                value, fresh = self._fresh(entry)
                rest = entry.tensor.detach().mean(entry.axis, keepdim=True)
                value.index_copy_(entry.axis, fresh, rest.repeat_interleave(len(fresh), entry.axis))
            else:
                self._neutral(entry)

    def _fresh(self, entry: Entry) -> tuple[Tensor, Tensor]:
        resized = self.new[id(entry.tensor)]
        return resized.value, (resized.moves[entry.axis] < 0).nonzero().flatten().to(resized.value.device)

    def _neutral(self, entry: Entry):
        value, fresh = self._fresh(entry)
        value.index_fill_(entry.axis, fresh, NEUTRAL.get(entry.role, 0.0))
        if self.sources is not None and not coarse(entry.layout, self.hidden.own):
            places = self.hidden.places(entry)[self.sources].flatten()
            rows = entry.tensor.detach().index_select(entry.axis, places.to(value.device))
            value.index_copy_(entry.axis, self._fresh_places(entry).flatten().to(value.device), rows)
        if self.neutral and entry.role == "norm" and self.hidden.style != "summed":
            value.mul_((self.hidden.width / (self.hidden.width + self.by)) ** 0.5)

    def read(self, seen, outgoing: list):
        """The weights that read new units, or all of them."""
        for entry, columns in zip(seen.reader_entries(), outgoing, strict=True):
            columns = columns.movedim(1, 0)  # (by x spread, outputs, ...)
            if self.neutral and "raw" in entry.also:
                columns = torch.zeros_like(columns)
            where = self.hidden.places(entry, self.by)
            if len(columns) < where.numel():
                where = where[self.hidden.width :]
            self._write(entry, where.flatten(), columns)
