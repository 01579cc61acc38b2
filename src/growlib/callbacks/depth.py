"""Deepen: new layers, as when x where x how."""

from functools import partial

from growlib.callbacks.structure import inspect
from growlib.growth import deepen
from growlib.layers import hidden_of
from growlib.trainer import Callback
from growlib.when import Trigger


def last(trainer, hidden: list):
    """The hidden layer nearest to the output."""
    return hidden[-1]


class Deepen(Callback):
    """Puts new layers behind hidden layers.

    Args:
        when: A trigger, asked after each step and each epoch about the layer that is to be followed.
        after: Chooses that layer, as (trainer, list of Hidden) -> Hidden; or its name.
        init: How a new layer starts, see `growlib.deepen`.
    """

    structural = True

    def __init__(self, when: Trigger, after=last, init=None):
        self.when, self.after, self.init = when, after, init

    def after_step(self, trainer):
        found = hidden_of(trainer.model)
        name = self.after(trainer, found).name if callable(self.after) else self.after
        trainer.proposal = lambda: (deepen, name, self.init)
        if cause := self.when(trainer, next((hidden for hidden in found if hidden.name == name), None)):
            trainer.change(deepen, name, self.init, cause=cause, check=partial(inspect, trainer, init=self.init))
        trainer.proposal = None

    after_epoch = after_step
