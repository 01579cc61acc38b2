"""A width as the inits see it: producers with rows of weights, one for every unit, and consumers with columns.

Most layers look like that. A tensor that makes several entries of a unit (the query, key and value of a head), that
lies the other way round (an embedding, a transposed convolution) or has another name is shown by views that do.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from growlib.layers import Entry, Hidden

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(eq=False, repr=False)
class Maker:
    """Weights that make one entry of every unit.

    Args:
        weight: (units, inputs, ...)
        bias: (units,) or None.
        groups: As a convolution has them: more than 1 where a row reads new units only.
    """

    weight: Tensor
    bias: Tensor | None
    groups: int = 1


@dataclass(eq=False, repr=False)
class Reader:
    """Weights that read units.

    Args:
        weight: (outputs, units x spread, ...)
        spread: How many inputs a unit feeds.
    """

    weight: Tensor
    spread: int


@dataclass(eq=False)
class Seen:
    """Stands for a Hidden where the inits look at it.

    Args:
        hidden: The width.
    """

    hidden: Hidden
    producers: list = field(init=False)
    consumers: list = field(init=False)

    def __post_init__(self):
        self.producers = [self._maker(*view) for view in self.maker_views()]
        self.consumers = [self._reader(entry) for entry in self.reader_entries()]

    name = property(lambda self: self.hidden.name)
    width = property(lambda self: self.hidden.width)
    unit = property(lambda self: self.hidden.unit)
    norms = property(lambda self: self.hidden.norms)

    def maker_views(self) -> list[tuple[Entry, int, Entry | None]]:
        """For every entry that a tensor makes of each unit: (the tensor's, which of them, its bias)."""
        return maker_views(self.hidden)

    def reader_entries(self) -> list[Entry]:
        """The entries that read units."""
        return reader_entries(self.hidden)

    def _maker(self, entry: Entry, column: int, shift: Entry | None) -> Maker:
        places = self.hidden.places(entry)[:, column]
        rows = entry.tensor.detach().movedim(entry.axis, 0)
        bias = None if shift is None else shift.tensor.detach()[self.hidden.places(shift)[:, column].to(rows.device)]
        return Maker(rows.index_select(0, places.to(rows.device)), bias, getattr(entry.module, "groups", 1))

    def _reader(self, entry: Entry) -> Reader:
        places = self.hidden.places(entry)
        columns = entry.tensor.detach().movedim(entry.axis, 0).index_select(0, places.flatten().to(entry.tensor.device))
        return Reader(columns.movedim(0, 1).contiguous(), places.shape[1])

    def spread(self, consumer: Reader) -> int:
        """As in Hidden."""
        return consumer.spread

    def columns(self, consumer: Reader, more: int = 0) -> Tensor:
        """As in Hidden."""
        return torch.arange((self.width + more) * consumer.spread).view(-1, consumer.spread)

    def read(self, consumer: Reader) -> Tensor:
        """As in Hidden."""
        return self.by_unit(consumer, consumer.weight.transpose(0, 1))

    def by_unit(self, reader: Reader, tensor: Tensor) -> Tensor:
        """As in Hidden."""
        return tensor.reshape(self.width, -1)


class SeenAsItIs:
    """A Hidden of plain layers, which inits look at themselves.

    Args:
        hidden: The width.
    """

    def __init__(self, hidden: Hidden):
        self.hidden = hidden

    def __getattr__(self, name: str):
        return getattr(self.hidden, name)

    def maker_views(self) -> list[tuple[Entry, int, Entry | None]]:
        """As in Seen."""
        return maker_views(self.hidden)

    def reader_entries(self) -> list[Entry]:
        """As in Seen."""
        return reader_entries(self.hidden)


def maker_views(hidden: Hidden) -> list[tuple[Entry, int, Entry | None]]:
    """For every entry that a tensor makes of each unit: (the tensor's, which of them, that of its bias)."""
    found = []
    for entry in hidden.entries:
        if entry.role == "producer":
            shift = next((e for e in hidden.entries if _is_bias_of(e, entry)), None)
            found += [(entry, column, shift) for column in range(hidden.places(entry).shape[1])]
    return found


def _is_bias_of(bias: Entry, weight: Entry) -> bool:
    own = bias.role == "bias" and bias.module is weight.module and bias.layout == weight.layout
    return own and bias.tensor.ndim == 1 and bias.name.replace("bias", "weight") in (weight.name, "in_proj_weight", "")


def reader_entries(hidden: Hidden) -> list[Entry]:
    """The entries that read units."""
    return [entry for entry in hidden.entries if entry.role == "consumer"]


def seen_by_inits(hidden: Hidden) -> Seen | SeenAsItIs:
    """A width as the inits see it."""
    made = [entry for entry in hidden.entries if entry.role == "producer"]
    plain = len(made) == len(hidden.producers) and len(reader_entries(hidden)) == len(hidden.consumers)
    plain &= all(isinstance(e.module, LAYERS) and e.name == "weight" for e in (*made, *reader_entries(hidden)))
    plain &= all(entry.axis == 0 and entry.layout == hidden.own for entry in made)
    return SeenAsItIs(hidden) if plain and all(e.axis == 1 for e in reader_entries(hidden)) else Seen(hidden)
