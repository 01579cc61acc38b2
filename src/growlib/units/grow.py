"""Growing and pruning in place, from the table of a width: tensors, optimizer state and attributes, all or nothing."""

import torch
from torch import Tensor
from torch.optim import Optimizer

from growlib.inits import mean_row, random, zero_out
from growlib.surgery import refuse_unmovable
from growlib.units.hidden import Entry, Hidden
from growlib.units.layouts import coarse, labels
from growlib.units.replacing import Before, Resized, carried, commit
from growlib.units.seen import maker_views, seen_by_inits

NEUTRAL = {"norm": 1.0, "variance": 1.0, "scale": 1.0, "slope": 0.25}  # what new units start with; else zero


def zero_row(hidden: Hidden, by: int, probe=None):
    """Units that are zero: what divides by the root of the mean square (RMSNorm) does not notice more of them, once
    its scale makes up for their number, so that the weights that read them may be random.
    """
    incoming = [producer.weight.new_zeros(by, *producer.weight.shape[1:]) for producer in hidden.producers]
    bias = [None if producer.bias is None else producer.bias.new_zeros(by) for producer in hidden.producers]
    return incoming, bias, random(hidden, by)[2]


BEHIND_NORMS = {"centred": mean_row, "averaged": zero_row, "summed": zero_row}


@torch.no_grad()
def insert_units(hidden: Hidden, by: int, init=zero_out, optimizer: Optimizer | None = None, probe=None) -> Before:
    """Gives every tensor of a width the entries of new units, in place.

    Args:
        hidden: The width.
        by: The number of new units, a multiple of its unit.
        init: How they start.
        optimizer: In use, or None.
        probe: What the init looks at.

    Returns:
        What was there before.

    Raises:
        TypeError: For an optimizer whose state can't follow.
        ValueError: By the init. Nothing has changed then.
    """
    refuse_unmovable(optimizer)
    if getattr(init, "preserves", False):
        init = BEHIND_NORMS.get(hidden.style, init)
    seen = seen_by_inits(hidden)
    incoming, bias, outgoing = (_listed(part) for part in init(seen, by, probe))
    sources = init.sources(seen, by) if hasattr(init, "sources") else None
    after = {**hidden.table.sizes, hidden.own: hidden.width + by}
    new = _resized(hidden, _origins(hidden, range(hidden.width), after))
    fill = Fill(hidden, by, new, sources, init in BEHIND_NORMS.values())
    fill.made(seen, incoming, bias)
    fill.others()
    fill.read(seen, outgoing)
    return commit(hidden, new, after, optimizer)


@torch.no_grad()
def remove_units(hidden: Hidden, units: list[int], optimizer: Optimizer | None = None) -> Before:
    """Takes units out of every tensor of a width, in place.

    Args:
        hidden: The width.
        units: Which go, whole groups of them.
        optimizer: In use, or None.

    Returns:
        What was there before.
    """
    refuse_unmovable(optimizer)
    gone = set(units)
    kept = [unit for unit in range(hidden.width) if unit not in gone]
    after = {**hidden.table.sizes, hidden.own: len(kept)}
    return commit(hidden, _resized(hidden, _origins(hidden, kept, after)), after, optimizer)


def _listed(tensors) -> list:
    return list(tensors) if isinstance(tensors, (list, tuple)) else [tensors]


def _origins(hidden: Hidden, kept, after: dict[str, int]) -> dict:
    """For every tensor and axis that a width reaches: where each entry comes from, or -1.

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
        found[id(entry.tensor), entry.axis] = entry, origin
    return found


def _resized(hidden: Hidden, origins: dict) -> dict[int, Resized]:
    found = {}
    for (key, axis), (entry, origin) in origins.items():
        found.setdefault(key, Resized(entry.tensor, None, {})).moves[axis] = origin
    for resized in found.values():
        resized.value = carried(resized.old.detach(), resized.moves, 0.0)
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
        self.hidden, self.by, self.new, self.sources, self.neutral = hidden, by, new, sources, neutral

    def _write(self, entry: Entry, where: Tensor, values: Tensor):
        """Writes rows (positions, ...) along the axis of an entry, where others have grown too from their start."""
        target = self.new[id(entry.tensor)].value.movedim(entry.axis, 0)
        room = target[(slice(None), *(slice(size) for size in values.shape[1:]))]
        room.index_copy_(0, where.to(values.device), values.to(target))

    def made(self, seen, incoming: list, bias: list):
        """The weights that make new units, and their biases."""
        views = seen.maker_views()
        for (entry, column, shift), rows, shifts in zip(views, incoming, bias, strict=True):
            where = self.hidden.places(entry, self.by)[self.hidden.width :, column]
            self._write(entry, where, rows)
            if shift is not None and shifts is not None:
                self._write(shift, self.hidden.places(shift, self.by)[self.hidden.width :, column], shifts)

    def others(self):
        """What normalises, scales or is added to new units."""
        paired = {id(shift) for _, _, shift in maker_views(self.hidden)}
        for entry in self.hidden.entries:
            if entry.role in ("add", "bias") and self.hidden.style == "centred" and id(entry) not in paired:
                value, fresh = self._fresh(entry)
                rest = entry.tensor.detach().mean(entry.axis, keepdim=True)
                value.index_copy_(entry.axis, fresh, rest.repeat_interleave(len(fresh), entry.axis))
            elif entry.role not in ("producer", "consumer") and id(entry) not in paired:
                self._neutral(entry)

    def _fresh(self, entry: Entry) -> tuple[Tensor, Tensor]:
        resized = self.new[id(entry.tensor)]
        return resized.value, (resized.moves[entry.axis] < 0).nonzero().flatten().to(resized.value.device)

    def _neutral(self, entry: Entry):
        value, fresh = self._fresh(entry)
        value.index_fill_(entry.axis, fresh, NEUTRAL.get(entry.role, 0.0))
        if self.sources is not None and not coarse(entry.layout, self.hidden.own):
            places = self.hidden.places(entry)[self.sources.cpu()].flatten()
            rows = entry.tensor.detach().index_select(entry.axis, places.to(value.device))
            where = self.hidden.places(entry, self.by)[self.hidden.width :].flatten()
            value.index_copy_(entry.axis, where.to(value.device), rows)
        if self.neutral and entry.role == "norm" and self.hidden.style != "summed":
            value.mul_((self.hidden.width / self.after) ** 0.5)

    @property
    def after(self) -> int:
        """The number of units afterwards."""
        return self.hidden.width + self.by

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
