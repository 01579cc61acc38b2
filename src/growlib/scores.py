"""What a connection is worth: functions (layer, probe) -> the worth of every weight, absent ones included.

Rewiring drops the connections of the lowest worth and regrows those of the highest; `sparsify` keeps the highest. A
score that brings its own number of drops has it as an attribute `count`, a function of the worths of all connections.
One that remembers something of every connection keeps it in a buffer of the layer: its `begin(layer)` makes the buffer,
its `born(layer, indices)` is told of new connections.
"""

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from growlib.probe import Probe


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
        layer: A linear layer or a 2-D convolution.
        probe: A batch.

    Returns:
        As the weight.

    Source: Evci et al., "Rigging the Lottery: Making All Tickets Winners" (2020), section 3.
    """
    return weight_gradient(layer, probe).abs()


def gradient_importance(layer: nn.Module, probe: Probe) -> Tensor:
    """How much the loss would change without every weight, to first order: |weight x gradient|.

    It is zero for absent connections, so it drops and it chooses at the start, but says nothing about regrowth.

    Args:
        layer: A linear layer or a 2-D convolution.
        probe: A batch.

    Returns:
        As the weight.

    Source: Lee, Ajanthan, Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity" (2019), section 4.
    """
    return (layer.weight.detach() * weight_gradient(layer, probe)).abs()


def weight_gradient(layer: nn.Module, probe: Probe) -> Tensor:
    """The gradient of the loss with respect to the whole weight of a layer, as if all connections were there.

    Args:
        layer: A linear layer or a 2-D convolution.
        probe: A batch.

    Returns:
        As the weight.
    """
    inputs, slopes = probe.inputs_of(layer), probe.gradient_of(layer)
    if isinstance(layer, nn.Linear):
        return slopes.flatten(0, -2).T @ inputs.flatten(0, -2)  # (outputs, inputs)
    if layer.padding_mode != "zeros":
        raise ValueError(f"a convolution that pads with {layer.padding_mode!r}: only zeros are known here")
    return conv2d_weight(inputs, layer.weight.shape, slopes, layer.stride, layer.padding, layer.dilation, layer.groups)
