"""What the units of a layer do on a batch."""

from torch import Tensor

from growlib.layers import Hidden
from growlib.signals._probe import Probe


def activation_mean(probe: Probe, hidden: Hidden) -> Tensor:
    """The mean of every unit, over the batch and all positions.

    Args:
        probe: A batch.
        hidden: The layer.

    Returns:
        (units,), in the units of the activations.
    """
    return samples(probe, hidden).mean(0)


def activation_variance(probe: Probe, hidden: Hidden) -> Tensor:
    """The variance of every unit, over the batch and all positions; 0 on a batch of one.

    Args:
        probe: A batch.
        hidden: The layer.

    Returns:
        (units,), at least 0.
    """
    return samples(probe, hidden).var(0, correction=0)


def dead(probe: Probe, hidden: Hidden) -> Tensor:
    """The share of the units that are zero on the whole batch, as a ReLU is that never opens.

    Args:
        probe: A batch.
        hidden: The layer.

    Returns:
        From 0 to 1.
    """
    return (samples(probe, hidden) == 0).all(0).float().mean()


def dormancy(probe: Probe, hidden: Hidden, threshold: float = 0.025) -> Tensor:
    """The share of the units that hardly speak: the mean of their absolute value is at most `threshold` of the layer's.

    Args:
        probe: A batch.
        hidden: The layer.
        threshold: As a share of the mean over the layer.

    Returns:
        From 0 to 1; where the whole layer is silent, 1.

    Source: Sokar et al., "The Dormant Neuron Phenomenon in Deep Reinforcement Learning" (2023), definition 3.1.
    """
    loudness = samples(probe, hidden).abs().mean(0)
    return (loudness <= threshold * loudness.mean()).float().mean()


def saturation(probe: Probe, hidden: Hidden, threshold: float = 0.01) -> Tensor:
    """The share of all (example, unit) pairs whose activation lets hardly any gradient through.

    That is less than `threshold` of the largest gradient of the example in this layer, which asks nothing about the
    kind of activation: closed ReLUs count, and so do the flat ends of tanh.

    Args:
        probe: A batch, and its loss.
        hidden: The layer.
        threshold: As a share of the example's largest gradient.

    Returns:
        From 0 to 1; of examples without any gradient, all pairs count.
    """
    size = probe.gradient(hidden).abs().flatten(1)  # (B, width x positions)
    return (size <= threshold * size.amax(1, keepdim=True)).float().mean()


def samples(probe: Probe, hidden: Hidden) -> Tensor:
    """The units as the next layer reads them, (B x positions, width)."""
    units = probe.post(hidden)
    return units.movedim(1, -1).reshape(-1, hidden.width)
