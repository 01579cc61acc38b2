"""Hidden: the tensors that share one width, by axis, and where a model keeps its list of them."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from growlib.layers.layouts import positions

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


class Listed:
    """Stands for the Table of a Hidden that is given as a list of layers: widths are counted where they are made.

    Args:
        makers: For every width the layer that makes it.
    """

    attributes = axes = ()

    def __init__(self, makers: dict[str, nn.Module]):
        self.makers = makers

    @property
    def sizes(self) -> dict[str, int]:
        """For every width the number of its units now."""
        return {own: len(maker.weight) for own, maker in self.makers.items()}


class Hidden:
    """Units that must be added and removed together, in every tensor that makes, normalises or reads them.

    Args:
        name: What the width is called, as in `widen(model, name, by)`.
        producers: Layers whose outputs are the units: their weight is (width, fan-in, ...). Convolutions with groups
            on the way, which read unit by unit or group by group, are among them.
        norms: Normalisations of the units, between producers and consumers.
        consumers: Layers that read the units: their weight is (outputs, width x spread, ...), where spread is 1, or the
            number of positions of a channel that was flattened on the way.
        unit: The smallest number of units that can be added or removed: 1, or the size of a group.
        reads: What lies side by side in the inputs of a norm or consumer that reads a concatenation: for every part,
            the first producer of its Hidden and its spread, or None and its size where it belongs to none.

    `growable` finds widths of tensors that lie in other ways too; see `Hidden.found`.
    """

    def __init__(self, name: str, producers=(), norms=(), consumers=(), unit: int = 1, reads: dict | None = None):
        makers, reads = {name: producers[0]}, reads or {}
        for other in (producer for parts in reads.values() for producer, _ in parts if producer is not None):
            if all(other is not maker for maker in makers.values()):
                makers[f"{name}#{len(makers)}"] = other
        entries = [entry for producer in producers for entry in _entries_of(producer, name, "producer", "bias")]
        for reader in (*norms, *consumers):
            layout = _layout(makers, reads[reader] if reader in reads else _alone(makers[name], reader))
            if reader in consumers:
                entries.append(Entry(reader, "weight", 1, "consumer", layout))
            else:
                entries += _entries_of(reader, layout, "norm", "shift")
        style = "centred" if any(isinstance(norm, nn.LayerNorm) for norm in norms) else "plain"
        self._set(name, tuple(entries), Listed(makers), name, unit, style)

    @classmethod
    def found(cls, name: str, entries: tuple[Entry, ...], table: Table, own: str, unit: int, style: str) -> "Hidden":
        """A width of any tensors.

        Args:
            name: Of the first module that makes the units.
            entries: Their tensors.
            table: Of the model.
            own: The name of the width in the table's layouts.
            unit: As above.
            style: How new units keep the function: "plain" by weights of zero that read them, "centred" by repeating
                the mean (LayerNorm), "averaged" by being zero where the norm divides by their number (RMSNorm),
                "summed" by being zero.
        """
        hidden = cls.__new__(cls)
        hidden._set(name, entries, table, own, unit, style)
        return hidden

    def _set(self, name, entries, table, own, unit, style):
        self.name, self.entries, self.table, self.own = name, entries, table, own
        self.unit, self.style = unit, style

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
        sizes = self.table.sizes
        return positions(entry.layout, self.own, {**sizes, self.own: sizes[self.own] + more})

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

    def gathered(self, entry: Entry, tensor: Tensor | None = None) -> Tensor:
        """The values of an entry's tensor, or of another of its shape, by unit: (width, ...)."""
        tensor = entry.tensor if tensor is None else tensor
        return self._by_unit(tensor.movedim(entry.axis, 0), self.places(entry))

    def by_unit(self, reader: nn.Module, tensor: Tensor) -> Tensor:
        """The rows of a tensor, one for every input of a norm or consumer, gathered by unit: (width, ...)."""
        return self._by_unit(tensor, self.columns(reader))

    def _by_unit(self, rows: Tensor, places: Tensor) -> Tensor:
        return rows.index_select(0, places.flatten().to(rows.device)).reshape(len(places), -1)

    def __repr__(self) -> str:
        return f"Hidden({self.name!r}, width={self.width})"


def _entries_of(module: nn.Module, layout, weight: str, bias: str) -> list[Entry]:
    """The entries of the tensors that a producer or norm has for every unit."""
    roles = {"weight": weight, "bias": bias, "running_mean": "mean", "running_var": "variance"}
    present = [name for name in roles if getattr(module, name, None) is not None]
    return [Entry(module, name, 0, roles[name], layout) for name in present]


def _alone(maker: nn.Module, reader: nn.Module) -> tuple:
    """What a norm or consumer reads that no other width feeds."""
    tensor = reader.running_mean if reader.weight is None else reader.weight
    inputs = len(tensor) if tensor.ndim == 1 else tensor.shape[1]
    return ((maker, inputs // len(maker.weight)),)


def _layout(makers: dict[str, nn.Module], parts: tuple):
    """The layout of what lies side by side."""
    names, found = {id(maker): name for name, maker in makers.items()}, []
    for producer, spread in parts:
        name = None if producer is None else names[id(producer)]
        found.append(spread if name is None else name if spread == 1 else ("*", name, spread))
    return found[0] if len(found) == 1 else ("+", *found)


def hidden_of(model: nn.Module) -> list[Hidden]:
    """The widths of a model that can change: those of its `hidden`, or those that `growable` found."""
    own, found = getattr(model, "hidden", None), getattr(model, "_hidden", None)
    if isinstance(own, list) and all(isinstance(hidden, Hidden) for hidden in own) and (own or found is None):
        return own
    if found is not None:
        return found
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise TypeError(
            "a DistributedDataParallel holds on to the parameters it was built with: change the model inside of it, on "
            "every rank within growlib.parallel.together(model, optimizer), then call growlib.parallel.wrap(model)"
        )
    if isinstance(model, torch.optim.swa_utils.AveragedModel):
        raise TypeError(
            "an AveragedModel holds averages of the tensors that a model had: change the model, then average the new "
            "one, `averaged = AveragedModel(model, ...)`; or change `averaged.module` alike, with an init that draws "
            "the same"
        )
    what = "" if own is None else f" (its `hidden` is a {type(own).__name__}, not a list of Hiddens)"
    raise TypeError(
        f"{type(model).__name__} has no hidden layers that growlib knows{what}: pass it through growable(model, "
        "example), which finds them, or give it a `hidden` property"
    )


def known_hidden(model: nn.Module) -> list[Hidden]:
    """The widths of a model that can change; none of a model that growlib does not know."""
    try:
        return hidden_of(model)
    except TypeError:
        return []
