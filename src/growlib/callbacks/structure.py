"""Widen and Prune: structural changes, as when x where x how."""

import warnings
from functools import partial

from growlib.callbacks.where import each
from growlib.growth import check_growth, prune, widen
from growlib.inits import zero_out
from growlib.layers import hidden_of
from growlib.numbers import is_whole
from growlib.signals import magnitude
from growlib.trainer import Callback
from growlib.when import Trigger

TOLERANCE = 1e-5  # of outputs in float32 that a function-preserving init may move


def inspect(trainer, change, init):
    """Looks at a network that has just grown: raises RuntimeError for what must not be, and warns of what is wasted."""
    found = check_growth(trainer.model, change, trainer.inputs)
    if (init is None or init.preserves) and found["moved"] > TOLERANCE:
        how = f" with {init.__name__}" if init else ""
        raise RuntimeError(
            f"{change.kind} {change.layer!r}{how} moved an output by {found['moved']:.1e} of the largest one, more "
            f"than {TOLERANCE:.0e}: the init's `preserves` is not true here"
        )
    if found["lost"]:
        raise RuntimeError(f"the optimizer does not hold {', '.join(found['lost'])}: these tensors never learn")
    for name in ("dead", "twins"):
        if len(found[name]) == change.after - change.before:
            warnings.warn(f"growlib: all new units of {change.layer!r} are {name}: {found[name]}", stacklevel=2)


class Widen(Callback):
    """Adds units to hidden layers.

    Args:
        by: How many, or a function of (trainer, hidden) that tells; rounded up to whole groups where a layer has them.
        when: A trigger, asked about every hidden layer after each step and each epoch.
        where: Chooses among the layers for which it fires, as (trainer, list of Hidden) -> list of Hidden.
        init: How they start, see `growlib.inits`.
    """

    structural = True

    def __init__(self, by, when: Trigger, where=each, init=zero_out):
        if not callable(by) and not is_whole(by):
            raise ValueError(f"Widen(by={by!r}): give a positive number of units, or a function that tells it")
        self.by, self.when, self.where, self.init = by, when, where, init

    def after_step(self, trainer):
        causes = {hidden.name: self._cause(trainer, hidden) for hidden in hidden_of(trainer.model)}
        changed = False
        for hidden in self.where(trainer, [h for h in hidden_of(trainer.model) if causes[h.name]]):
            if cause := self._cause(trainer, hidden) if changed else causes[hidden.name]:
                self.widen(trainer, hidden, self._amount(trainer, hidden), cause)
                changed = True

    after_epoch = after_step

    def _cause(self, trainer, hidden) -> str | None:
        trainer.proposal = lambda: (widen, hidden.name, self._amount(trainer, hidden))
        cause = self.when(trainer, hidden)
        trainer.proposal = None
        return cause

    def _amount(self, trainer, hidden) -> int:
        """How many units, in whole groups where a layer has them."""
        by = self.by(trainer, hidden) if callable(self.by) else self.by
        return -(-by // hidden.unit) * hidden.unit

    def widen(self, trainer, hidden, by: int, cause: str):
        if not callable(self.by) and by != self.by:
            say(f"Widen({self.by}) adds {by} units to {hidden.name!r}, whole groups of {hidden.unit}")
        check = partial(inspect, trainer, init=self.init)
        trainer.change(widen, hidden, by, init=self.init, probe=trainer.probe(), cause=cause, check=check)


class Prune(Callback):
    """Removes the units of least worth from hidden layers.

    Args:
        by: How many, in whole groups where a layer has them. A layer that would lose all its units is passed over.
        when: A trigger, asked about every hidden layer after each step and each epoch.
        score: A signal, (probe, hidden) -> worth of every unit, on the batch of the last step.
    """

    structural = True

    def __init__(self, by: int, when: Trigger, score=magnitude):
        if not is_whole(by):
            raise ValueError(f"Prune(by={by!r}): give a positive number of units")
        self.by, self.when, self.score = by, when, score

    def after_step(self, trainer):
        for hidden in hidden_of(trainer.model):
            if cause := self.when(trainer, hidden):
                groups = -(-self.by // hidden.unit)
                if groups * hidden.unit >= hidden.width:
                    say(f"Prune({self.by}) passes over {hidden.name!r}: of its {hidden.width} units none would stay")
                    continue
                if groups * hidden.unit != self.by:
                    say(f"Prune({self.by}) removes whole groups of {hidden.unit} units from {hidden.name!r}")
                worth = self.score(trainer.probe(), hidden).view(-1, hidden.unit).sum(1)  # (groups,)
                worst = worth.argsort(stable=True)[:groups].tolist()
                units = [group * hidden.unit + unit for group in worst for unit in range(hidden.unit)]
                trainer.change(prune, hidden, units, cause=cause)

    after_epoch = after_step


def say(text: str):
    """Tells what a callback does otherwise than it was asked to, once a place."""
    warnings.warn(f"growlib: {text}", stacklevel=3)
