"""Rewire: connections that move while their number stays."""

import math
from collections.abc import Callable
from contextlib import suppress

import torch

from growlib.growth.journal import all_or_nothing
from growlib.layers import sparse_layers
from growlib.sparsity import cut_off, degrees
from growlib.sparsity.budget import move, moves, pools
from growlib.trainer import Callback
from growlib.when import Trigger

NEVER = -1  # the birth of a connection that has never been there


def cosine_decay(start: float) -> Callable:
    """A fraction for Rewire that falls along half a cosine, from `start` to 0 when a task is done.

    Args:
        start: Share of the connections that move at first.

    Source: Dettmers, Zettlemoyer, "Sparse Networks from Scratch: Faster Training without Losing Performance" (2019).
    """
    if not 0 < start <= 1:
        raise ValueError(f"cosine_decay({start!r}): a share of the connections, above 0 and at most 1")

    def fraction(trainer) -> float:
        return start / 2 * (1 + math.cos(math.pi * trainer.done))

    fraction.__name__ = f"cosine_decay({start})"
    return fraction


GENTLY = cosine_decay(0.3)


class Rewire(Callback):
    """Drops connections and regrows as many, again and again; after every step their number is exactly what it was.

    Into the record of every epoch it writes, by layer: `connections`; `turnover`, the share that moved in this epoch;
    `explored`, the share of all weights that ever were connections; `in_degree` and `out_degree`, the fewest and the
    most connections of an output and of an input; `age`, the mean age of connections in steps; and `cut_off`, the
    number of units that nothing feeds or reads.

    Args:
        drop: A score, see `growlib.scores`: the lowest worths go.
        regrow: A score: the highest worths come.
        when: A trigger, asked after each step and each epoch.
        fraction: Of the trainer: the share of connections to move.
        scope: "layer" keeps the number of connections of every layer, "global" that of the model.
    """

    structural = True
    remembers = ("births", "moved")

    def __init__(
        self,
        drop: Callable,
        regrow: Callable,
        when: Trigger,
        fraction: Callable = GENTLY,
        scope: str = "layer",
    ):
        self.drop, self.regrow, self.when, self.fraction, self.scope = drop, regrow, when, fraction, scope
        self.births, self.moved = {}, {}  # by layer: the step at which every connection was born; moves in this epoch

    def before_fit(self, trainer):
        pools(trainer.model, self.scope)
        trainer.tell(remember, self.drop)
        for name, layer in sparse_layers(trainer.model).items():
            if name not in self.births:
                self.births[name] = torch.where(layer.mask, trainer.step, NEVER).to("cpu", torch.int32).contiguous()

    def after_step(self, trainer):
        if self.when(trainer):
            self.rewire(trainer)

    def after_epoch(self, trainer):
        self.after_step(trainer)
        layers = sparse_layers(trainer.model)
        counts = {name: int(layer.mask.sum()) for name, layer in layers.items()}
        severed = {}
        with suppress(TypeError):  # growlib does not know the hidden layers of every model
            severed = {name: len(units) for name, units in cut_off(trainer.model).items()}
        ages = {name: trainer.step - self.births[name][layer.mask.cpu()].double() for name, layer in layers.items()}
        trainer.history.log(
            trainer.step,
            connections=counts,
            turnover={name: self.moved.get(name, 0) / count for name, count in counts.items()},
            explored={name: float((born > NEVER).float().mean()) for name, born in self.births.items()},
            in_degree={name: _ends(degrees(layer)[0]) for name, layer in layers.items()},
            out_degree={name: _ends(degrees(layer)[1]) for name, layer in layers.items()},
            age={name: float(age.mean()) for name, age in ages.items()},
            cut_off=severed,
        )
        self.moved = {}

    def rewire(self, trainer):
        """Moves connections now."""
        changes = {}
        with all_or_nothing(trainer.model, trainer.optimizer):
            for pool in pools(trainer.model, self.scope):
                changes |= moves(pool, self.drop, self.regrow, self.fraction(trainer), trainer.probe())
            trainer.tell(move, changes, self.drop)
        for name, (gone, come) in changes.items():
            self.births[name].view(-1)[come.cpu()] = trainer.step
            self.moved[name] = self.moved.get(name, 0) + len(gone)


def _ends(degree: torch.Tensor) -> list[int]:
    return [int(degree.min()), int(degree.max())]


def remember(model, drop: Callable, optimizer=None):
    """Lets a score that remembers something of every connection begin with it."""
    for layer in sparse_layers(model).values():
        if hasattr(drop, "begin"):
            drop.begin(layer)
