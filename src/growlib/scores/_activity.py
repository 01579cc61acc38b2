"""Scores that look at what fires together: Hebb's, and one inspired by spike timing."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from growlib.scores._weights import outer
from growlib.signals import Probe

CLOCK = 20  # steps in which the spikes of an example come
FADING = math.exp(-1 / 5)  # of a trace, a step: the window is some five steps wide on either side
DEPRESSION = 1.05  # what a spike that comes too late costs, where one in time gains 1


def hebbian(layer: nn.Module, probe: Probe) -> Tensor:
    """How closely what a weight reads and what its unit says vary together: `|covariance of pre and post|`.

    A layer does not know its activation, so post is its output through a ReLU, as if nothing else followed. Positions
    of a convolution count as examples. No label takes part.

    Args:
        layer: A linear layer, a convolution, transposed or not, or an embedding (which has no times for stdp).
        probe: A batch.

    Returns:
        As the weight.

    Source: Sejnowski, "Storing covariance with nonlinearly interacting neurons" (1977); for regrowth, with a cosine in
        its place, Atashgahi et al., "A brain-inspired algorithm for training highly sparse neural networks" (2022).
    """
    said = probe.outputs_of(layer).relu()
    others = [axis for axis in range(said.ndim) if axis != unit_axis(layer, said)]
    said = said - said.mean(others, keepdim=True)  # to centre one side centres the product
    return (outer(layer, probe.inputs_of(layer), said) / examples(layer, said)).abs()


def stdp(layer: nn.Module, probe: Probe) -> Tensor:
    """How much spikes in the right order would strengthen every weight: inspired by spike timing, no more than that.

    In every example each input and each unit (its output through a ReLU) fires at most once, the stronger the earlier,
    on one clock for both; the weakest value is silent. A weight gains where its input fires before its unit or with it,
    and loses where it fires later, the less the further apart. The weights themselves go on learning by gradients.
    It costs as much as two covariances for every step of the clock.

    Args:
        layer: A linear layer, a convolution, transposed or not, or an embedding (which has no times for stdp).
        probe: A batch.

    Returns:
        As the weight; negative where the wrong order prevails.

    Source: The window of Song, Miller, Abbott, "Competitive Hebbian learning through spike-timing-dependent synaptic
        plasticity" (2000); spike times after Thorpe, Delorme, Van Rullen, "Spike-based strategies for rapid processing"
        (2001).
    """
    if isinstance(layer, nn.Embedding):
        raise ValueError("stdp times the spikes of inputs, and an Embedding reads the numbers of tokens: take another")
    said = probe.outputs_of(layer).relu()
    pre, post = latency(probe.inputs_of(layer)), latency(said)
    return timing(layer, ((pre == step, post == step) for step in range(CLOCK))) / examples(layer, said)


def latency(values: Tensor) -> Tensor:
    """When every value of an example fires: from step 0, the strongest, to CLOCK, which never comes.

    Args:
        values: (B, ...)

    Returns:
        Steps, of the same shape.
    """
    flat = values.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    strength = (flat - low) / (high - low).clamp_min(torch.finfo(flat.dtype).tiny)
    return ((1 - strength) * CLOCK).floor().view_as(values)


def timing(layer: nn.Module, spikes: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """What spike timing adds to every weight, over all pairs of a spike of its input and one of its unit.

    A pair that is s steps apart adds FADING ** s where the input fires first or together with the unit, and takes away
    DEPRESSION * FADING ** s where it fires later.

    Args:
        layer: A linear layer, a convolution, transposed or not, or an embedding (which has no times for stdp).
        spikes: Step by step, which of the layer's inputs and outputs fire: booleans, shaped as those are.

    Returns:
        As the weight: a sum over the batch and all positions.
    """
    total, read, said = 0, 0, None  # and the traces that past spikes have left
    for before, after in spikes:
        before, after = before.to(layer.weight.dtype), after.to(layer.weight.dtype)
        read = read * FADING + before
        total = total + outer(layer, read, after)
        if said is None:
            said = after
        else:
            total = total - DEPRESSION * outer(layer, before, said * FADING)
            said = said * FADING + after
    return total


def unit_axis(layer: nn.Module, outputs: Tensor) -> int:
    """The axis of a layer's outputs along which its units lie."""
    return outputs.ndim - 1 if isinstance(layer, (nn.Linear, nn.Embedding)) else 1


def examples(layer: nn.Module, outputs: Tensor) -> int:
    """The number of examples times positions."""
    return outputs.numel() // outputs.shape[unit_axis(layer, outputs)]
