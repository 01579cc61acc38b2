"""Layers of which some connections are absent: a dense weight beside a mask that says which are there."""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from growlib.growth.journal import all_or_nothing
from growlib.growth.optimizers import restart
from growlib.layers import GrowConv2d, GrowLinear, Sparse, sparse_layers


class _Masked(Sparse):
    """A layer that computes with weight x mask, which saves neither time nor memory.

    The weight is zero where the mask is False, and gets no gradient there.
    """

    @torch.no_grad()
    def wire(self, mask: Tensor, optimizer=None):
        """Makes these the connections: those that stay keep all they have, new ones start at zero.

        Args:
            mask: Boolean, weight-shaped.
            optimizer: In use; what it knows of a connection goes with the connection, and starts anew with a new one.
        """
        others = ~(self.mask & mask)
        with all_or_nothing(self, optimizer) as journal:
            restart(optimizer, self.weight, others)
            for tensor in (self.weight, self.weight.grad):
                if tensor is not None:
                    journal.write(tensor, tensor.masked_fill(others, 0.0))
            journal.write(self.mask, mask)

    @property
    def kept(self) -> Tensor:
        """The weight that takes part."""
        return self.weight * self.mask.to(self.weight.dtype)  # a product with booleans takes five times as long


class SparseLinear(_Masked, GrowLinear):
    """A linear layer of which some connections are absent."""

    def forward(self, inputs: Tensor) -> Tensor:
        return linear(inputs, self.kept, self.bias)  # (..., outputs)


class SparseConv2d(_Masked, GrowConv2d):
    """A convolution of which some connections are absent."""

    def forward(self, images: Tensor) -> Tensor:
        return self._conv_forward(images, self.kept, self.bias)  # (B, outputs, H, W)


MASKED = {nn.Linear: SparseLinear, GrowLinear: SparseLinear, nn.Conv2d: SparseConv2d, GrowConv2d: SparseConv2d}


def as_masked(layer: nn.Module) -> Sparse:
    """A linear layer or 2-D convolution as a sparse one, the same object, with all its connections."""
    if not isinstance(layer, Sparse):
        layer.__class__ = MASKED[type(layer)]
        layer.note_widths()
        layer.register_buffer("mask", torch.ones_like(layer.weight, dtype=torch.bool))
    return layer


def describe_sparse(model: nn.Module) -> dict[str, list[str]]:
    """What a checkpoint must know of sparse layers beside their tensors: the names of their buffers."""
    return {name: [own for own, _ in layer.named_buffers()] for name, layer in sparse_layers(model).items()}


def match_sparse(model: nn.Module, wanted: dict[str, list[str]], weights: dict[str, Tensor]):
    """Makes the layers of a model sparse that are so in a file, ready to load what it holds.

    Args:
        model: Any module.
        wanted: What `describe_sparse` gave.
        weights: The tensors of the file.
    """
    for name, buffers in wanted.items():
        layer = as_masked(model.get_submodule(name))
        for own in buffers:
            if own not in layer._buffers:
                layer.register_buffer(own, torch.zeros_like(weights[f"{name}.{own}"], device=layer.weight.device))
