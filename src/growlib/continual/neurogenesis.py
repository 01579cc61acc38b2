"""NeuronGenesis: every task gets units of its own, and more of them while it is learned too badly."""

from functools import partial

from growlib.callbacks.structure import inspect
from growlib.growth import widen
from growlib.inits import zero_out
from growlib.models import TaskModel
from growlib.trainer import Callback
from growlib.when import Trigger, new_task


class NeuronGenesis(Callback):
    """Grows a TaskNet when a task begins, after closing the one before, and while a task is learned too badly.

    Growth at the end of a task, which nothing would train, is left out.

    Args:
        channels: New filters at every growth: of every convolution, or a number for each; or a function of the trainer.
        hidden: New units at every growth: of every dense layer, or a number for each; or a function of the trainer.
        when: Asked when a task begins, and after every epoch, such as new_task() | below("val_accuracy", 0.9, 3).
            `& within_budget(params=...)` lets it ask for the price first.
        init: How more units of the same task start, see `growlib.inits`.
    """

    structural = True

    def __init__(self, channels=16, hidden=64, when: Trigger | None = None, init=zero_out):
        self.channels, self.hidden, self.when, self.init = channels, hidden, when or new_task(), init

    def before_task(self, trainer):
        model, name = trainer.model, trainer.data.name
        if not isinstance(model, TaskModel):
            raise TypeError(f"NeuronGenesis grows a TaskNet, and the model is a {type(model).__name__}")
        if name in model.closed:
            raise ValueError(f"task {name!r} is closed: its units keep their values for ever. Train a new one")
        if name in model.tasks:
            return
        still = [task for task in model.tasks if task not in model.closed]
        plan = *self._plan(trainer), len(trainer.data.classes)
        if not (cause := self._asked(trainer, name, *plan)):
            raise ValueError(f"{self.when} did not fire for the new task {name!r}, which has no units to learn with")
        trainer.change(type(model).grow, name, *plan, cause=cause)
        for task in still:  # now that the new tensors have found their groups in the optimizer
            trainer.tell(type(model).close, task)

    def after_epoch(self, trainer):
        name, (channels, hidden) = trainer.data.name, self._plan(trainer)
        if trainer.done < 1 and not trainer.progress.ending and (cause := self._asked(trainer, name, channels, hidden)):
            for layer, by in trainer.model.plan(channels, hidden).items():
                if by:
                    check = partial(inspect, trainer, init=self.init)
                    trainer.change(widen, layer, by, init=self.init, probe=trainer.probe(), cause=cause, check=check)

    def _plan(self, trainer) -> tuple:
        return tuple(units(trainer) if callable(units) else units for units in (self.channels, self.hidden))

    def _asked(self, trainer, *proposal) -> str | None:
        trainer.proposal = lambda: (type(trainer.model).grow, *proposal)
        cause = self.when(trainer, None)
        trainer.proposal = None
        return cause
