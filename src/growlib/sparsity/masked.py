"""Layers of which some connections are absent: a dense weight beside a mask that says which are there."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv_transpose1d, conv_transpose2d, conv_transpose3d, embedding, linear

from growlib.growth.journal import all_or_nothing
from growlib.growth.optimizers import restart
from growlib.layers import GrowConv2d, GrowLinear, Sparse, sparse_layers
from growlib.sparsity.owned import OWNER, PACKED, describe_owned, match_owned


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


class _MaskedConv(_Masked):
    def forward(self, inputs: Tensor) -> Tensor:
        return self._conv_forward(inputs, self.kept, self.bias)  # (B, outputs, ...)


class SparseConv1d(_MaskedConv, nn.Conv1d):
    """A convolution over sequences of which some connections are absent."""


class SparseConv2d(_MaskedConv, GrowConv2d):
    """A convolution of which some connections are absent."""


class SparseConv3d(_MaskedConv, nn.Conv3d):
    """A convolution over volumes of which some connections are absent."""


class _InputsFirst(_Masked):
    """A layer whose weight is (inputs, outputs, ...)."""

    inputs_first = True


class _MaskedTransposed(_InputsFirst):
    def forward(self, inputs: Tensor, output_size: list[int] | None = None) -> Tensor:
        shape = self.stride, self.padding, self.kernel_size
        extra = self._output_padding(inputs, output_size, *shape, len(self.stride), self.dilation)
        shape = self.stride, self.padding, extra, self.groups, self.dilation
        return self.convolve(inputs, self.kept, self.bias, *shape)  # (B, outputs, ...)


class SparseConvTranspose1d(_MaskedTransposed, nn.ConvTranspose1d):
    """A transposed convolution over sequences of which some connections are absent."""

    convolve = staticmethod(conv_transpose1d)


class SparseConvTranspose2d(_MaskedTransposed, nn.ConvTranspose2d):
    """A transposed convolution of which some connections are absent."""

    convolve = staticmethod(conv_transpose2d)


class SparseConvTranspose3d(_MaskedTransposed, nn.ConvTranspose3d):
    """A transposed convolution over volumes of which some connections are absent."""

    convolve = staticmethod(conv_transpose3d)


class SparseEmbedding(_InputsFirst, nn.Embedding):
    """An embedding of which some entries are absent."""

    def forward(self, tokens: Tensor) -> Tensor:
        return embedding(tokens, self.kept, self.padding_idx)  # (..., features)


MASKED = {
    nn.Linear: SparseLinear,
    GrowLinear: SparseLinear,
    nn.Conv1d: SparseConv1d,
    nn.Conv2d: SparseConv2d,
    GrowConv2d: SparseConv2d,
    nn.Conv3d: SparseConv3d,
    nn.ConvTranspose1d: SparseConvTranspose1d,
    nn.ConvTranspose2d: SparseConvTranspose2d,
    nn.ConvTranspose3d: SparseConvTranspose3d,
    nn.Embedding: SparseEmbedding,
}


def as_masked(layer: nn.Module) -> Sparse:
    """A layer of one of the kinds in `MASKED` as a sparse one, the same object, with all its connections."""
    if not isinstance(layer, Sparse):
        layer.__class__ = MASKED[type(layer)]
        layer.register_buffer("mask", torch.ones_like(layer.weight, dtype=torch.bool))
    return layer


def describe_sparse(model: nn.Module) -> dict[str, list[str]]:
    """What a checkpoint must know of sparse layers, and of those whose weights belong to tasks, beside their tensors:
    the names of their buffers."""
    sparse = {name: [buffer for buffer, _ in layer.named_buffers()] for name, layer in sparse_layers(model).items()}
    return describe_owned(model) | sparse


def match_sparse(model: nn.Module, wanted: dict[str, list[str]], weights: dict[str, Tensor]):
    """Makes the layers of a model sparse, or owned by tasks, that are so in a file, ready to load what it holds.

    Args:
        model: Any module.
        wanted: What `describe_sparse` gave.
        weights: The tensors of the file.
    """
    match_owned(model, wanted, weights)
    for name, buffers in wanted.items():
        if others := [buffer for buffer in buffers if buffer != PACKED and not buffer.endswith(OWNER)]:
            layer = as_masked(model.get_submodule(name))
            for own in others:
                if own not in layer._buffers:
                    layer.register_buffer(own, torch.zeros_like(weights[f"{name}.{own}"], device=layer.weight.device))
