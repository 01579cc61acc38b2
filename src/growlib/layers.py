"""Layers whose widths can change, and Hidden: the modules that share one width."""

from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn


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


class GrowConv2d(_Resizing, nn.Conv2d):
    """A convolution whose numbers of channels can change."""

    def note_widths(self):
        self.out_channels, self.in_channels = self.weight.shape[:2]


class GrowBatchNorm2d(_Resizing, nn.BatchNorm2d):
    """A batch normalisation whose number of channels can change."""

    def note_widths(self):
        self.num_features = len(self.weight)


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
        producers: Layers whose outputs are the units: their weight is (width, fan-in, ...).
        norms: Normalisations of the units, between producers and consumers.
        consumers: Layers that read the units: their weight is (outputs, width x spread, ...), where spread is 1, or the
            number of positions of a channel that was flattened on the way.
        unit: The smallest number of units that can be added.
    """

    name: str
    producers: tuple[nn.Module, ...]
    norms: tuple[nn.Module, ...]
    consumers: tuple[nn.Module, ...]
    unit: int = 1

    @property
    def width(self) -> int:
        return len(self.producers[0].weight)

    def spread(self, consumer: nn.Module) -> int:
        """The number of inputs of a consumer that one unit feeds."""
        return consumer.weight.shape[1] // self.width

    def __repr__(self) -> str:
        return f"Hidden({self.name!r}, width={self.width})"
