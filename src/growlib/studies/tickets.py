"""Lottery tickets: train, prune, rewind, again and again; and what their controls need."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from growlib.growth.journal import all_or_nothing
from growlib.layers import connections, sparse_layers
from growlib.scores import smallest_magnitude
from growlib.sparsity import ranked, sparsify
from growlib.trainer import Callback, History, Trainer, checkpoint


@dataclass(frozen=True)
class Ticket:
    """One round: the connections that it was trained with, and how that went.

    Args:
        density: Connections / weights.
        masks: Of every sparse layer, by its name: boolean, weight-shaped.
        history: Of the training.
    """

    density: float
    masks: dict[str, Tensor]
    history: History


def lottery(
    trainer: Trainer, data, epochs: int, keep: float = 0.5, rounds: int = 6, rewind: int = 0
) -> Iterator[Ticket]:
    """Trains a network again and again; between two rounds it loses its smallest weights, and the rest is rewound.

    Rewinding puts everything, weights, optimizer, schedule and order of the batches, back to what it was at one step,
    except for the connections that are gone. It costs a whole training a round. Layers are ranked together; to leave
    some of them whole, `sparsify(model, 1.0, layers=...)` the others first. If layers are sparse already, the rounds go
    on from there.

    Args:
        trainer: One that has not trained yet. When a ticket comes, its model is the one trained with that ticket.
        data: A data set.
        epochs: Of every round.
        keep: The share of the connections that a round leaves.
        rounds: How often to prune.
        rewind: To which step, where 0 is the beginning. Rounds after the first train from there.

    Yields:
        One ticket a round; the first is that of the network as it came.

    Raises:
        ValueError: For a share outside (0, 1), fewer than no rounds, a step that the training does not reach, a trainer
            that has trained.

    Source: Frankle, Carbin, "The Lottery Ticket Hypothesis" (2019), section 1; with steps, Frankle et al., "Linear Mode
        Connectivity and the Lottery Ticket Hypothesis" (2020), algorithm 2.
    """
    _refuse(trainer, data, epochs, keep, rounds, rewind)
    if not sparse_layers(trainer.model):
        sparsify(trainer.model, 1.0, score=smallest_magnitude)
    names, before = list(sparse_layers(trainer.model)), _density(trainer.model)
    mark = _Mark(rewind)
    trainer.callbacks.append(mark)
    try:
        mark.after_step(trainer)
        for number in range(rounds + 1):
            if number:
                sparsify(trainer.model, before * keep**number, ranked, names, score=smallest_magnitude)
                masks = masks_of(trainer.model)
                checkpoint.restore(trainer, copy.deepcopy(mark.state))
                wire(trainer.model, masks, trainer.optimizer)
            trainer.fit(data, epochs=epochs)
            yield Ticket(_density(trainer.model), masks_of(trainer.model), copy.deepcopy(trainer.history))
    finally:
        trainer.callbacks.remove(mark)


def masks_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the mask of every sparse layer, by the layer's name."""
    return {name: layer.mask.clone() for name, layer in sparse_layers(model).items()}


def wire(model: nn.Module, masks: dict[str, Tensor], optimizer: Optimizer | None = None) -> nn.Module:
    """Gives a model the connections of these masks and no others, in place.

    Args:
        model: Any module; its layers become sparse if they are not. A connection that a sparse layer does not have yet
            starts at zero.
        masks: By the names of layers: boolean, weight-shaped.
        optimizer: The one in use, if there is one already: what it knows of connections that go is forgotten.

    Returns:
        The same model.

    Raises:
        ValueError: For an unknown layer, or a mask of another shape. Nothing has changed then.
    """
    modules = dict(model.named_modules())
    for name, mask in masks.items():
        shape = tuple(modules[name].weight.shape) if name in modules else None
        if mask.shape != shape:
            raise ValueError(f"a mask of shape {tuple(mask.shape)} for layer {name!r}, whose weight has shape {shape}")
    with all_or_nothing(model, optimizer):
        if plain := [name for name in masks if name not in sparse_layers(model)]:
            sparsify(model, 1.0, layers=plain, score=smallest_magnitude)
        for name, mask in masks.items():
            layer = modules[name]
            layer.wire(mask.to(layer.weight.device), optimizer)
    return model


def shuffled(masks: dict[str, Tensor]) -> dict[str, Tensor]:
    """Masks with as many connections in every layer, at places drawn from torch's generator.

    Source: Frankle et al., "Pruning Neural Networks at Initialization: Why Are We Missing the Mark?" (2021), section 5.
    """
    return {
        name: mask.flatten()[torch.randperm(mask.numel()).to(mask.device)].view_as(mask) for name, mask in masks.items()
    }


class _Mark(Callback):
    """Remembers all of a trainer at one step."""

    def __init__(self, step: int):
        self.step = step

    def after_step(self, trainer):
        if trainer.step == self.step:
            self.state = copy.deepcopy(checkpoint.state_of(trainer))


def _density(model: nn.Module) -> float:
    return connections(model) / sum(layer.mask.numel() for layer in sparse_layers(model).values())


def _refuse(trainer: Trainer, data, epochs: int, keep: float, rounds: int, rewind: int):
    if not 0 < keep < 1:
        raise ValueError(f"keep={keep} must be above 0 and below 1: it is the share that a round leaves")
    if rounds < 0:
        raise ValueError(f"rounds={rounds} must be at least 0: it is how often connections go")
    steps = epochs * ceil(len(data.train) / (trainer.batch_size * trainer.accumulate))
    if not 0 <= rewind < steps:
        raise ValueError(f"cannot rewind to step {rewind}: {epochs} epochs of {data.name} are steps 0 to {steps}")
    if trainer.step:
        raise ValueError(f"this trainer is at step {trainer.step}: a lottery starts from one that has not trained yet")
