"""Scores that look at a weight, or at the gradient that it would get."""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import pad
from torch.nn.grad import conv2d_weight

from growlib.layers import Sparse
from growlib.signals import Probe

LINEAR_IN_WEIGHT = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.Linear, nn.Embedding),
)


def smallest_magnitude(layer: nn.Module, probe: Probe | None = None) -> Tensor:
    """The size of every weight: small ones are dropped first.

    Args:
        layer: Any with a weight.
        probe: Not used.

    Returns:
        As the weight.

    Source: Han et al., "Learning both Weights and Connections for Efficient Neural Networks" (2015), section 3.
    """
    return layer.weight.detach().abs()


def at_random(layer: nn.Module, probe: Probe | None = None) -> Tensor:
    """A number from torch's generator for every weight: all connections are alike.

    Args:
        layer: Any with a weight.
        probe: Not used.

    Returns:
        As the weight, from 0 to 1.

    Source: Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse connectivity inspired
        by network science" (2018), which regrows in this way (SET).
    """
    return torch.rand_like(layer.weight)


def largest_gradient(layer: nn.Module, probe: Probe) -> Tensor:
    """The size of the gradient that every weight would get, absent ones included.

    Args:
        layer: A linear layer, a convolution, transposed or not, or an embedding.
        probe: A batch.

    Returns:
        As the weight.

    Source: Evci et al., "Rigging the Lottery: Making All Tickets Winners" (2020), section 3.
    """
    return weight_gradient(layer, probe).abs()


def gradient_importance(layer: nn.Module, probe: Probe) -> Tensor:
    """How much the loss would change without every weight, to first order: `|weight x gradient|`.

    It is zero for absent connections, so it drops and it chooses at the start, but says nothing about regrowth.

    Args:
        layer: A linear layer, a convolution, transposed or not, or an embedding.
        probe: A batch.

    Returns:
        As the weight.

    Source: Lee, Ajanthan, Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity" (2019), section 4.
    """
    return (layer.weight.detach() * weight_gradient(layer, probe)).abs()


def weight_gradient(layer: nn.Module, probe: Probe) -> Tensor:
    """The gradient of the loss with respect to the whole weight of a layer, as if all connections were there.

    Args:
        layer: A linear layer, a convolution, transposed or not, or an embedding.
        probe: A batch.

    Returns:
        As the weight.
    """
    return outer(layer, probe.inputs_of(layer), probe.gradient_of(layer))


def outer(layer: nn.Module, inputs: Tensor, signals: Tensor) -> Tensor:
    """What every weight reads times a signal of the unit that it belongs to, added up over the batch and all positions.

    Args:
        layer: A linear layer, a convolution, transposed or not, or an embedding.
        inputs: What the layer reads, or something of that shape.
        signals: What the layer puts out, or something of that shape.

    Returns:
        As the weight.
    """
    if isinstance(layer, nn.Linear):
        return signals.flatten(0, -2).T @ inputs.flatten(0, -2)  # (outputs, inputs)
    if not isinstance(layer, nn.Conv2d):
        return _pulled_back(layer, inputs, signals)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = pad(inputs, layer._reversed_padding_repeated_twice, mode)  # also where padding is "same"
    return conv2d_weight(padded, layer.weight.shape, signals, layer.stride, 0, layer.dilation, layer.groups)


def _pulled_back(layer: nn.Module, inputs: Tensor, signals: Tensor) -> Tensor:
    """The gradient of (outputs x signals).sum() with respect to the whole weight of a layer."""
    if not isinstance(layer, LINEAR_IN_WEIGHT):
        kinds = ", ".join(kind.__name__ for kind in LINEAR_IN_WEIGHT)
        raise ValueError(f"{type(layer).__name__} can't be scored in this way: only {kinds}")
    weight = torch.zeros_like(layer.weight).requires_grad_()
    tensors = {"weight": weight}
    if isinstance(layer, Sparse):
        tensors["mask"] = torch.ones_like(layer.mask)
    with torch.enable_grad():
        outputs = functional_call(layer, tensors, inputs)
    return torch.autograd.grad(outputs, weight, signals.to(outputs.dtype))[0]
