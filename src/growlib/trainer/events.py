"""Callback: what happens beside the training loop, and when."""

import difflib
import inspect

from torch import nn

from growlib import parallel
from growlib.trainer.batches import Batch

EVENTS = [f"{side}_{unit}" for unit in ("fit", "task", "epoch", "step") for side in ("before", "after")]
EVENTS += ["before_forward", "after_loss", "after_backward"]
RESUMABLE = ["after_step", "after_epoch", "after_task", "after_fit"]  # a checkpoint taken there resumes exactly


class Callback:
    """What happens beside the loop: a method for each event, with the trainer as its argument.

    Callbacks run in the order of the list. What one remembers from step to step it names in `remembers`, and a
    checkpoint keeps these attributes. Of several processes each runs all callbacks, except that those that are
    `structural` run on rank 0, and the others make the changes that it makes.
    """

    structural = False
    remembers: tuple[str, ...] = ()
    may_differ: tuple[str, ...] = ()  # arguments that are not compared when a run goes on

    def before_fit(self, trainer):
        """Before the first task of a call of `fit`, and again when a run goes on."""

    def before_task(self, trainer):
        """Before the first epoch on a data set."""

    def before_epoch(self, trainer):
        """Before the first step of an epoch."""

    def before_step(self, trainer):
        """Before the examples of a step are drawn."""

    def before_forward(self, trainer):
        """Before each forward pass: change `trainer.inputs` and `trainer.labels`."""

    def after_loss(self, trainer):
        """After each forward pass: add to `trainer.batch_loss`."""

    def after_backward(self, trainer):
        """When the gradients of a step are complete: change them."""

    def after_step(self, trainer):
        """After the optimizer's step."""

    def after_epoch(self, trainer):
        """After an epoch, whose record is in `trainer.history`."""

    def after_task(self, trainer):
        """After the last epoch on a data set, or when `stop_task` ended it."""

    def after_fit(self, trainer):
        """At the end of a call of `fit`."""

    def state_dict(self) -> dict:
        """What a checkpoint keeps: the attributes that `remembers` names."""
        return {name: getattr(self, name) for name in self.remembers}

    def load_state_dict(self, state: dict):
        """Takes on what a checkpoint kept."""
        vars(self).update(state)

    def __repr__(self) -> str:
        """The call that would make it, the same in every process: a checkpoint compares it."""
        parts = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            value = getattr(self, name, None)
            if name in self.may_differ or not hasattr(self, name):
                continue
            if parameter.kind is parameter.VAR_POSITIONAL:
                parts += map(spelled, value)
            elif parameter.kind is parameter.VAR_KEYWORD:
                parts += [f"{key}={spelled(one)}" for key, one in value.items()]
            else:
                parts.append(spelled(value) if parameter.default is parameter.empty else f"{name}={spelled(value)}")
        return f"{type(self).__name__}({', '.join(parts)})"


class Events:
    """The part of a Trainer that calls its callbacks."""

    def emit(self, event: str, start: int = 0):
        """Runs the callbacks' method of this name, in their order."""
        nothing = getattr(Callback, event)
        for index, callback in enumerate(self.callbacks[start:], start + 1):
            act = getattr(callback, event)
            if getattr(act, "__func__", None) is nothing:
                continue
            self.progress.event = [event, index]
            if callback.structural:
                parallel.led(lambda act=act: act(self), self.make)
            else:
                act(self)
        self.progress.event = []
        if self.bar is not None:
            getattr(self.bar, event)(self)

    def catch_up(self, event: str = "", start: int = 0):
        """Runs the callbacks that were still to come when the checkpoint was taken, or when one of them failed."""
        if event in RESUMABLE[:3]:
            *_, (self.inputs, self.labels, _, _) = Batch(self.seed, *self.progress.batch).parts(self.data)
            self.emit(event, start)


def spelled(value) -> str:
    """A value as one would write it: functions and classes by their names, data sets and models too."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(spelled, value))}]"
    if isinstance(value, nn.Module):
        return type(value).__name__
    if inspect.isfunction(value) or inspect.isclass(value):
        return value.__name__
    name = getattr(value, "name", None)
    return repr(name if isinstance(name, str) else value)


def refuse_misspelt(callbacks):
    """Raises a TypeError for a method that looks like an event and is none: nothing would ever call it."""
    for callback in callbacks:
        for name in dir(callback):
            if name in EVENTS or name.startswith("_") or not inspect.isroutine(getattr(callback, name)):
                continue
            near = difflib.get_close_matches(name, EVENTS, 1, 0.84)
            if near or name.startswith(("before_", "after_")):
                meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(EVENTS)}"
                raise TypeError(f"{type(callback).__name__}.{name} is no event of a Callback: {meant}")
