"""What every unit is worth."""

from torch import Tensor

from growlib.layers import Hidden
from growlib.signals._probe import Probe, by_unit


def magnitude(probe: Probe | None, hidden: Hidden) -> Tensor:
    """How strongly every unit is driven and read: norm of its incoming times norm of its outgoing weights.

    Args:
        probe: Not used.
        hidden: The layer.

    Returns:
        (units,)
    """
    incoming = sum(hidden.made(producer).detach().square().sum(1) for producer in hidden.producers)
    outgoing = sum(hidden.read(consumer).detach().square().sum(1) for consumer in hidden.consumers)
    return (incoming * outgoing).sqrt()


def activation(probe: Probe, hidden: Hidden) -> Tensor:
    """How loud every unit is: the mean of its absolute value, over the batch and all positions.

    Args:
        probe: A batch.
        hidden: The layer.

    Returns:
        (units,)

    Source: Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient Inference" (2017), section
        2.2.
    """
    return probe.post(hidden).abs().transpose(0, 1).flatten(1).mean(1)


def taylor(probe: Probe, hidden: Hidden) -> Tensor:
    """How much the loss of an example would change without a unit, to first order and in the mean over the examples.

    That is the size of (unit x gradient), summed over positions and consumers. It is taken example by example: near a
    minimum the changes of different examples cancel, for every unit.

    Args:
        probe: A batch, and a loss that is a mean over examples.
        hidden: The layer.

    Returns:
        (units,)

    Source: Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient Inference" (2017), section
        2.2; there the positions are averaged, here added up, since all of them go.
    """
    change = 0
    for consumer in hidden.consumers:
        slopes = probe.inputs_of(consumer) * probe.input_gradient(consumer)
        slopes = by_unit(slopes, consumer, hidden.columns(consumer))  # (B, width, ...)
        change = change + slopes.reshape(*slopes.shape[:2], -1).sum(2)
    return change.abs().sum(0)
