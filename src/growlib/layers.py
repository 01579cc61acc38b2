"""Layers whose widths can change, and Hidden: the modules that share one width."""

from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d


class _Resizing:
    """A layer that takes on the widths of the state it loads."""

    def _load_from_state_dict(self, state, prefix, *rest):
        for name, tensor in [*self._parameters.items(), *self._buffers.items()]:
            saved = state.get(prefix + name)
            if tensor is None or saved is None or saved.shape == tensor.shape or saved.shape[2:] != tensor.shape[2:]:
                continue
            empty = torch.empty_like(saved, dtype=tensor.dtype, device=tensor.device)
            setattr(self, name, nn.Parameter(empty, tensor.requires_grad) if name in self._parameters else empty)
        self.note_widths()
        super()._load_from_state_dict(state, prefix, *rest)


class GrowLinear(_Resizing, nn.Linear):
    """A linear layer whose numbers of inputs and outputs can change."""

    def note_widths(self):
        self.out_features, self.in_features = self.weight.shape


class _GrowConv(_Resizing):
    """A convolution with groups keeps the size of a group, and gets more groups."""

    rows_of_a_group = None

    def note_widths(self):
        if self.groups > 1 and self.rows_of_a_group is None:
            self.rows_of_a_group = self.out_channels // self.groups
        self.out_channels = len(self.weight)
        if self.rows_of_a_group:
            self.groups = self.out_channels // self.rows_of_a_group
        self.in_channels = self.weight.shape[1] * self.groups


class GrowConv1d(_GrowConv, nn.Conv1d):
    """A convolution over sequences whose numbers of channels can change."""


class GrowConv2d(_GrowConv, nn.Conv2d):
    """A convolution whose numbers of channels can change."""


class GrowConv3d(_GrowConv, nn.Conv3d):
    """A convolution over volumes whose numbers of channels can change."""


class _GrowBatchNorm(_Resizing):
    def note_widths(self):
        self.num_features = inputs_of(self)


class GrowBatchNorm1d(_GrowBatchNorm, nn.BatchNorm1d):
    """A batch normalisation of vectors whose number of features can change."""


class GrowBatchNorm2d(_GrowBatchNorm, nn.BatchNorm2d):
    """A batch normalisation whose number of channels can change."""


class GrowBatchNorm3d(_GrowBatchNorm, nn.BatchNorm3d):
    """A batch normalisation of volumes whose number of channels can change."""


class GrowGroupNorm(_Resizing, nn.GroupNorm):
    """A group normalisation that keeps the size of a group, and gets more groups."""

    def note_widths(self):
        size = self.num_channels // self.num_groups
        self.num_channels = len(self.weight)
        self.num_groups = self.num_channels // size


class GrowLayerNorm(_Resizing, nn.LayerNorm):
    """A layer normalisation whose width can change.

    Units that repeat the mean leave the sum of squares as it is and divide it by more, so eps follows: eps times width
    stays the same.
    """

    def note_widths(self):
        before = self.normalized_shape[0]
        self.normalized_shape = (len(self.weight),)
        self.eps *= before / len(self.weight)


class GrowLayerNorm2d(GrowLayerNorm, LayerNorm2d):
    """A layer normalisation over the channels of images, whose number can change."""


GROWN = {
    nn.Linear: GrowLinear,
    nn.Conv1d: GrowConv1d,
    nn.Conv2d: GrowConv2d,
    nn.Conv3d: GrowConv3d,
    nn.BatchNorm1d: GrowBatchNorm1d,
    nn.BatchNorm2d: GrowBatchNorm2d,
    nn.BatchNorm3d: GrowBatchNorm3d,
    nn.GroupNorm: GrowGroupNorm,
    nn.LayerNorm: GrowLayerNorm,
    LayerNorm2d: GrowLayerNorm2d,
}


class Attention(nn.Module):
    """Tokens that look at one another, through four plain linear layers: query, key, value and project.

    Args:
        width: Of a token.
        heads: Parts of a token that look for themselves.
    """

    def __init__(self, width: int, heads: int = 1):
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads cannot share a token of width {width} evenly")
        self.heads = heads
        self.query, self.key, self.value, self.project = (nn.Linear(width, width) for _ in range(4))

    def mass(self, queries: Tensor, keys: Tensor) -> Tensor:
        """How much every token looks at every other: (B, heads, tokens that look, tokens looked at), rows sum to 1."""
        queries, keys = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (queries, keys))
        return (queries @ keys.transpose(2, 3) * keys.shape[3] ** -0.5).softmax(3)

    def gather(self, mass: Tensor, tokens: Tensor) -> Tensor:
        """What every token finds where it looks, each head in its own part: (B, tokens, width)."""
        parts = tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, tokens, width / heads)
        return (mass @ parts).transpose(1, 2).flatten(2)

    def forward(self, tokens: Tensor) -> Tensor:
        mass = self.mass(self.query(tokens), self.key(tokens))
        return self.project(self.gather(mass, self.value(tokens)))  # (B, tokens, width)


def inputs_of(reader: nn.Module) -> int:
    """The number of inputs of a layer, or of features of a normalisation."""
    tensor = reader.running_mean if reader.weight is None else reader.weight
    return len(tensor) if tensor.ndim == 1 else tensor.shape[1]


@contextmanager
def evaluating(model: nn.Module):
    """Puts a model in eval mode, so that looking at it moves no statistics and draws no random numbers."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield model
    finally:
        for module in training:
            module.training = True


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
    own = getattr(model, "hidden", None)
    if isinstance(own, list) and all(isinstance(hidden, Hidden) for hidden in own):
        return own
    if hasattr(model, "_hidden"):
        return model._hidden
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise TypeError(
            "a DistributedDataParallel holds on to the parameters it was built with: change the model inside of it, on "
            "every rank within growlib.parallel.together(model, optimizer), then call growlib.parallel.wrap(model)"
        )
    raise TypeError(
        f"{type(model).__name__} has no hidden layers that growlib knows: pass it through growable(model, example), "
        "which finds them, or give it a `hidden` property"
    )


class Sparse:
    """A layer of which some connections are absent: `mask` is True where there is one, elsewhere `weight` is zero."""


def sparse_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers of a model whose connections are counted, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Sparse)}


def connections(model: nn.Module) -> int:
    """The number of connections in the sparse layers of a model, counted."""
    return sum(int(layer.mask.sum()) for layer in sparse_layers(model).values())
