"""What all methods need: the logits of a task, the parameters that learn, and how far these have moved."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from growlib.layers import tasks_of
from growlib.models import TaskNet
from growlib.trainer import Callback


class Drawing(Callback):
    """A callback that counts in `draws` what it has drawn: a step that failed and is made again draws the same."""

    draws = 0
    marked = None, 0  # the last step that began, and `draws` at that moment

    def before_step(self, trainer):
        if self.marked[0] != trainer.step:
            self.marked = trainer.step, self.draws
        self.draws = self.marked[1]


def logits_of(model: nn.Module, inputs: Tensor, task: str) -> Tensor:
    """The model's logits for a task, (B, classes); a model without `.tasks` has one head for all of them."""
    return model(inputs) if tasks_of(model) is None else model(inputs, task)


def answers(
    model: nn.Module, inputs: Tensor, tasks: list[str], weights: dict[str, Tensor] | None = None
) -> list[Tensor]:
    """The logits for several tasks, (B, classes) each; of a TaskNet, what they share is computed once.

    Args:
        model: Called as model(inputs, task).
        inputs: (B, ...).
        tasks: Names.
        weights: In place of the model's own parameters and buffers.
    """
    weights = weights or {}
    if type(model).forward is TaskNet.forward:
        return functional_call(model, weights, (inputs, tasks))
    return [functional_call(model, weights, (inputs, task)) for task in tasks]


def two_at_least(model: nn.Module, drawn: Tensor, size: int, what: str) -> Tensor:
    """Examples to train on, and a second one where BatchNorm1d would have to take statistics of a single one.

    Args:
        model: In training.
        drawn: Indices.
        size: Of what they were drawn from; the next one joins.
        what: They are drawn from, for the error.

    Raises:
        ValueError: If there is no other.
    """
    needs_two = any(isinstance(part, (nn.BatchNorm1d, nn.SyncBatchNorm)) and part.training for part in model.modules())
    if len(drawn) != 1 or not needs_two:
        return drawn
    if size == 1:
        raise ValueError(
            f"there is one example of {what}, and BatchNorm takes its statistics of at least two in training: "
            "remember more, or use another normalisation"
        )
    return torch.cat([drawn, (drawn + 1) % size])


def learning(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def same_shaped(model: nn.Module, anchors: dict[str, Tensor], method: str) -> dict[str, nn.Parameter]:
    """The parameters that learn and have an anchor, by name.

    Args:
        model: As it is now.
        anchors: Something of the parameters' shapes, by name.
        method: Who remembers them, for the error.

    Raises:
        ValueError: For a parameter that has another shape now.
    """
    now = {name: parameter for name, parameter in learning(model).items() if name in anchors}
    for name, parameter in now.items():
        if parameter.shape != anchors[name].shape:
            raise ValueError(
                f"{method} remembers {name} of shape {tuple(anchors[name].shape)}, and it has {tuple(parameter.shape)} "
                "now: give a new task units of its own (model.grow) instead of widening layers that earlier tasks use"
            )
    return now


def moved(model: nn.Module, anchors: dict[str, Tensor], method: str) -> dict[str, Tensor]:
    """How far every parameter that learns is from its anchor, by name; the arguments are those of `same_shaped`."""
    now = same_shaped(model, anchors, method)
    return {name: parameter - anchors[name] for name, parameter in now.items()}


def on(device, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors on a device: those of a checkpoint come from the CPU."""
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def some(size: int, count: int | None, seed: int) -> Tensor:
    """Up to `count` different numbers under `size`, drawn with a seed; all of them in order if `count` is None."""
    if count is None or count >= size:
        return torch.arange(size)
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:count]
