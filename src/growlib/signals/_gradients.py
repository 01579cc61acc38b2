"""How much a layer is asked to change, and how much it changes."""

import torch
from torch import Tensor

from growlib.layers import Hidden
from growlib.signals._probe import Probe


def gradient_norm(probe: Probe, hidden: Hidden) -> Tensor:
    """The length of the gradient of the loss with respect to the weights that make the units.

    Args:
        probe: A batch.
        hidden: The layer.

    Returns:
        A number of at least 0, in units of loss a unit of weight.
    """
    return torch.stack([_gradient(probe, producer).norm() for producer in hidden.producers]).norm()


def relative_gradient(probe: Probe, hidden: Hidden) -> Tensor:
    """The length of that gradient as a share of the length of the weights; 0 where all weights are zero.

    Args:
        probe: A batch.
        hidden: The layer.

    Returns:
        A number of at least 0.
    """
    return _ratio(gradient_norm(probe, hidden), _length(hidden.made(producer) for producer in hidden.producers))


def update_ratio(probe: Probe, hidden: Hidden) -> Tensor:
    """The length of the step that the optimizer would take on this batch, as a share of the length of the weights.

    The step is taken, by an optimizer of the same class with the same state, on a copy of the layer's weights. About
    1e-3 is usual; far less, and the layer stands still.

    Args:
        probe: A batch, with the optimizer.
        hidden: The layer.

    Returns:
        A number of at least 0; 0 for weights that the optimizer does not hold.

    Raises:
        ValueError: The probe was made without an optimizer.
    """
    steps = [_step(probe, producer) for producer in hidden.producers]
    return _ratio(_length(steps), _length(hidden.made(producer) for producer in hidden.producers))


def _step(probe: Probe, producer) -> Tensor:
    optimizer, gradient = probe.optimizer, _gradient(probe, producer)
    if optimizer is None:
        raise ValueError("update_ratio asks the optimizer: Probe(model, inputs, labels, optimizer=optimizer)")
    weight = producer.weight
    several = optimizer if isinstance(optimizer, (list, tuple)) else getattr(optimizer, "optimizers", [optimizer])
    groups = [(one, group) for one in several for group in one.param_groups]
    held = [(one, group) for one, group in groups if any(p is weight for p in group["params"])]
    if not held:
        return torch.zeros_like(weight)
    optimizer, group = held[0]
    copy = torch.nn.Parameter(weight.detach().clone())
    twin = type(optimizer)([{**group, "params": [copy]}])
    state = {
        name: value.clone() if torch.is_tensor(value) else value
        for name, value in optimizer.state.get(weight, {}).items()
    }
    if state:
        twin.state[copy] = state
    copy.grad = gradient.clone()  # some optimizers write into it
    twin.step()
    return copy.detach() - weight.detach()


def _gradient(probe: Probe, producer) -> Tensor:
    return probe.once("weight gradient", producer, lambda: probe.weight_gradient(producer))


def _length(tensors) -> Tensor:
    return torch.stack([tensor.detach().norm() for tensor in tensors]).norm()


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return part / whole if whole > 0 else torch.zeros_like(part)
