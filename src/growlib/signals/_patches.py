"""What a layer reads, position by position, and what new units between two layers would learn from it."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, unfold

from growlib.layers import Hidden
from growlib.signals._probe import Probe


def patches(layer: nn.Module, inputs: Tensor) -> Tensor:
    """The inputs of a linear layer or of a 2-D convolution as it reads them: (B, positions, fan-in)."""
    if isinstance(layer, nn.Linear):
        return inputs.reshape(len(inputs), -1, inputs.shape[-1])
    if not isinstance(layer, nn.Conv2d):
        raise ValueError(f"{type(layer).__name__}: only what linear layers and 2-D convolutions read can be looked at")
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = pad(inputs, layer._reversed_padding_repeated_twice, mode)  # also where padding is "same"
    return unfold(padded, layer.kernel_size, layer.dilation, 0, layer.stride).transpose(1, 2)


def growth_matrix(hidden: Hidden, consumer: nn.Module, probe: Probe) -> Tensor:
    """The gradient that the incoming weights of a new unit get is (weights that read it) @ this matrix, where its
    activation passes gradients on as they are and nothing but the activation lies between the layers.

    Args:
        hidden: Where the unit would be.
        consumer: One that would read it.
        probe: A batch.

    Returns:
        (spread x outputs x ..., fan-in): rows as in `Hidden.read`.

    Raises:
        ValueError: Where something else lies between.

    Source: Evci et al., "GradMax: Growing Neural Networks using Gradient Information" (2022), section 3.
    """
    producer = _lone_producer(hidden)
    read, gradient = patches(producer, probe.inputs_of(producer)), probe.gradient_of(consumer)
    spread = hidden.spread(consumer)
    if len(read) != len(gradient):
        raise _refusal(hidden, "it is called several times a pass, and what reads it another number of times")
    if isinstance(consumer, nn.Linear):
        if spread == 1 and isinstance(producer, nn.Linear):
            gradient = gradient.reshape(len(gradient), -1, gradient.shape[-1])
            if gradient.shape[1] == read.shape[1]:
                return torch.einsum("bqo,bqf->of", gradient, read)
        elif gradient.ndim == 2 and spread == read.shape[1]:  # flattened
            return torch.einsum("bo,bqf->qof", gradient, read).flatten(0, 1)
    elif isinstance(consumer, nn.Conv2d) and consumer.padding_mode == "zeros":
        shape = probe.outputs_of(producer).shape
        if shape[2:] == probe.inputs_of(consumer).shape[2:]:
            return _between_convolutions(consumer, gradient, read, shape[2:])
    raise _refusal(
        hidden, f"a pooling, or something else, lies between it and a {type(consumer).__name__} that reads it"
    )


def _lone_producer(hidden: Hidden) -> nn.Module:
    producer = hidden.producers[0]
    if len(hidden.producers) > 1 or getattr(producer, "groups", 1) > 1:
        raise _refusal(hidden, f"it has {len(hidden.producers)} producers, and needs one, without groups")
    if hidden.norms:
        raise _refusal(hidden, "incoming weights of zero have no variance that its normalisation could divide by")
    if getattr(producer, "bias", None) is None:
        raise _refusal(hidden, "its producer has no bias that could lift new units over the zero of ReLU")
    return producer


def _refusal(hidden: Hidden, reason: str) -> ValueError:
    return ValueError(f"gradmax cannot widen layer {hidden.name!r}: {reason}. Use north, or zero_out")


def _between_convolutions(consumer: nn.Conv2d, gradient: Tensor, read: Tensor, size) -> Tensor:
    """Where the units are maps: one block of rows for every place of the consumer's kernel."""
    outputs, kernel = gradient.shape[1], consumer.kernel_size
    left, right, top, bottom = consumer._reversed_padding_repeated_twice
    high, wide = size[0] + top + bottom, size[1] + left + right
    blocks = gradient.new_empty(outputs, *kernel, read.shape[2])
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            reached = gradient.new_zeros(len(gradient), outputs, high, wide)  # what the consumer says to every position
            places = [
                slice(index * dilation, index * dilation + stride * (count - 1) + 1, stride)
                for index, dilation, stride, count in zip(
                    (row, column), consumer.dilation, consumer.stride, gradient.shape[2:], strict=True
                )
            ]
            reached[:, :, places[0], places[1]] = gradient
            inside = reached[:, :, top : top + size[0], left : left + size[1]].flatten(2)
            blocks[:, row, column] = torch.einsum("boq,bqf->of", inside, read)
    return blocks.flatten(0, 2)
