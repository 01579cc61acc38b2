"""Hidden: the tensors that share one width, by axis, and what they do with its units."""

from dataclasses import dataclass, field

from torch import Tensor, nn

from growlib.units.layouts import positions

NORMS = ("norm", "shift", "mean", "variance", "scale", "slope")  # what normalises and scales units


@dataclass(eq=False)
class Entry:
    """An axis of a tensor along which units lie.

    Args:
        module: What holds the tensor.
        name: Of the tensor there.
        axis: Along which the units lie.
        role: producer, bias, one of NORMS, add (to what was made) or consumer.
        layout: How they lie there.
        also: What else it does with them: a tied tensor makes and reads; "raw" of one that reads them before a norm
            that others read them behind.
    """

    module: nn.Module
    name: str
    axis: int
    role: str
    layout: object
    also: tuple[str, ...] = ()

    @property
    def tensor(self) -> Tensor:
        """What is there now."""
        return getattr(self.module, self.name)


@dataclass(eq=False)
class Table:
    """All widths of a model, as `growable` found them.

    Args:
        sizes: For every width the number of its units now.
        attributes: Numbers that modules of other people keep and that follow a width: (module, name, layout).
        axes: For every tensor that a width reaches the layout of each axis: (module, name, layouts).
    """

    sizes: dict[str, int] = field(default_factory=dict)
    attributes: list = field(default_factory=list)
    axes: list = field(default_factory=list)


@dataclass(eq=False)
class Hidden:
    """Units that must be added and removed together, in every tensor that makes, normalises or reads them.

    Args:
        name: Of the first module that makes them.
        entries: Their tensors.
        table: Of the model.
        own: The name of the width in the table's layouts.
        unit: The smallest number of units by which it changes.
        style: How new units keep the function: "plain" by weights of zero that read them, "centred" by repeating the
            mean (LayerNorm), "averaged" by being zero where the norm divides by their number (RMSNorm), "summed" by
            being zero.
    """

    name: str
    entries: tuple[Entry, ...]
    table: Table
    own: str
    unit: int = 1
    style: str = "plain"

    @property
    def producers(self) -> tuple[nn.Module, ...]:
        """The modules that make the units."""
        return self._modules("producer")

    @property
    def norms(self) -> tuple[nn.Module, ...]:
        """The modules that normalise or scale them."""
        return self._modules(*NORMS)

    @property
    def consumers(self) -> tuple[nn.Module, ...]:
        """The modules that read them."""
        return self._modules("consumer")

    def _modules(self, *roles: str) -> tuple[nn.Module, ...]:
        entries = [entry for entry in self.entries if entry.role in roles or set(entry.also) & set(roles)]
        return tuple(dict.fromkeys(entry.module for entry in entries))

    @property
    def width(self) -> int:
        """The number of units."""
        return self.table.sizes[self.own]

    def entry(self, module: nn.Module, *roles: str) -> Entry:
        """The first entry of a module in one of these roles."""
        return next(e for e in self.entries if e.module is module and (e.role in roles or set(e.also) & set(roles)))

    def places(self, entry: Entry, more: int = 0) -> Tensor:
        """Where the units lie along the axis of an entry: (width + more, spread).

        Args:
            entry: One of the entries.
            more: Answers for so many more units.
        """
        return positions(entry.layout, self.own, {**self.table.sizes, self.own: self.width + more})

    def columns(self, reader: nn.Module, more: int = 0) -> Tensor:
        """Where the units lie among the inputs of a norm or consumer: (width + more, spread)."""
        return self.places(self.entry(reader, "consumer", *NORMS), more)

    def spread(self, reader: nn.Module) -> int:
        """The number of inputs of a norm or consumer that one unit feeds."""
        return self.columns(reader).shape[1]

    def made(self, producer: nn.Module) -> Tensor:
        """The weights of a producer that make the units: (width, spread x inputs x ...)."""
        return self.gathered(self.entry(producer, "producer"))

    def read(self, consumer: nn.Module) -> Tensor:
        """The weights of a consumer that read the units: (width, outputs x spread x ...)."""
        return self.gathered(self.entry(consumer, "consumer"))

    def gathered(self, entry: Entry) -> Tensor:
        """A tensor's values by unit: (width, ...)."""
        return self._by_unit(entry.tensor.movedim(entry.axis, 0), self.places(entry))

    def by_unit(self, reader: nn.Module, tensor: Tensor) -> Tensor:
        """The rows of a tensor, one for every input of a norm or consumer, gathered by unit: (width, ...)."""
        return self._by_unit(tensor, self.columns(reader))

    def _by_unit(self, rows: Tensor, places: Tensor) -> Tensor:
        return rows.index_select(0, places.flatten().to(rows.device)).reshape(self.width, -1)

    def __repr__(self) -> str:
        return f"Hidden({self.name!r}, width={self.width})"
