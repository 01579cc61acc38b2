"""What the units of a layer tell about the labels and about the inputs."""

from collections.abc import Callable

import torch
from torch import Tensor

from growlib.layers import Hidden
from growlib.signals._estimators import binned
from growlib.signals._probe import Probe


def mutual_information(probe: Probe, hidden: Hidden, estimator: Callable = binned) -> Tensor:
    """How much every unit, taken alone, tells about the label.

    Args:
        probe: A batch with a label an example.
        hidden: The layer; maps are averaged over their positions.
        estimator: `binned` or `ksg` of growlib.signals, which also states their bias.

    Returns:
        (units,), in nats, from 0 to log(classes).
    """
    return _of_every_unit(probe, hidden, probe.labels, estimator)


def input_information(probe: Probe, hidden: Hidden, estimator: Callable = binned) -> Tensor:
    """How much every unit, taken alone, tells about the direction in which the inputs of the batch differ most.

    A unit is a function of the whole input, and would tell infinitely much about it if numbers had no end; about one
    direction the question has an answer, which is a lower bound.

    Args:
        probe: A batch.
        hidden: The layer; maps are averaged over their positions.
        estimator: `binned`, `ksg` or `gaussian` of growlib.signals, which also states their bias.

    Returns:
        (units,), in nats, at least 0.
    """
    return _of_every_unit(probe, hidden, probe.once("main direction", None, lambda: _main(probe.inputs)), estimator)


def _main(inputs: Tensor) -> Tensor:
    """Where every example lies along the direction in which they differ most, (B,)."""
    inputs = inputs.flatten(1).double()
    inputs = inputs - inputs.mean(0)
    if len(inputs) > inputs.shape[1]:
        return inputs @ torch.linalg.eigh(inputs.T @ inputs)[1][:, -1]
    values, axes = torch.linalg.eigh(inputs @ inputs.T)
    return axes[:, -1] * values[-1].clamp_min(0).sqrt()


def _of_every_unit(probe: Probe, hidden: Hidden, other: Tensor, estimator: Callable) -> Tensor:
    units = probe.post(hidden)  # (B, width, ...)
    units = units.reshape(*units.shape[:2], -1).mean(2)
    if estimator is binned:  # all at once
        return binned(units, other)
    return torch.stack([estimator(unit, other) for unit in units.unbind(1)])
