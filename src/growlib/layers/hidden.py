"""Hidden: the modules that share one width, and where a model keeps its list of them."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Hidden:
    """The modules that share one width.

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
    """

    name: str
    producers: tuple[nn.Module, ...]
    norms: tuple[nn.Module, ...]
    consumers: tuple[nn.Module, ...]
    unit: int = 1
    reads: dict = field(default_factory=dict)

    @property
    def width(self) -> int:
        return len(self.producers[0].weight)

    def parts(self, reader: nn.Module) -> tuple:
        """What lies side by side in the inputs of a norm or consumer, as in `reads`."""
        return self.reads.get(reader) or ((self.producers[0], inputs_of(reader) // self.width),)

    def spread(self, reader: nn.Module) -> int:
        """The number of inputs of a norm or consumer that one unit feeds."""
        return sum(spread for producer, spread in self.parts(reader) if producer is self.producers[0])

    def columns(self, reader: nn.Module, more: int = 0) -> Tensor:
        """Where the units lie among the inputs of a norm or consumer.

        Args:
            reader: One of the norms or consumers.
            more: Answers for a layer of so many more units.

        Returns:
            (width + more, spread)
        """
        start, found = 0, []
        for producer, spread in self.parts(reader):
            own = producer is self.producers[0]
            size = spread if producer is None else (len(producer.weight) + more * own) * spread
            if own:
                found.append(torch.arange(start, start + size).view(-1, spread))
            start += size
        return torch.cat(found, 1)

    def read(self, consumer: nn.Module) -> Tensor:
        """The weights of a consumer that read the units: (width, outputs x spread x ...)."""
        return self.by_unit(consumer, consumer.weight.transpose(0, 1))

    def by_unit(self, reader: nn.Module, tensor: Tensor) -> Tensor:
        """The rows of a tensor, one for every input of a norm or consumer, gathered by unit: (width, ...)."""
        columns = self.columns(reader).to(tensor.device)
        return tensor.index_select(0, columns.flatten()).reshape(self.width, -1)

    def __repr__(self) -> str:
        return f"Hidden({self.name!r}, width={self.width})"


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


def inputs_of(reader: nn.Module) -> int:
    """The number of inputs of a layer, or of features of a normalisation."""
    tensor = reader.running_mean if reader.weight is None else reader.weight
    return len(tensor) if tensor.ndim == 1 else tensor.shape[1]
