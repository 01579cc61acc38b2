"""fork: exact copies of a run in its middle, of which all but one grow, so that what growing did can be measured."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

from growlib import generators
from growlib.growth import widen
from growlib.inits import zero_out
from growlib.layers import hidden_of
from growlib.trainer import Trainer, checkpoint


@dataclass(frozen=True)
class Fork:
    """What became of a run that grew at some moment, beside the same run that did not.

    Args:
        layer: The one that grew.
        by: The number of its new units.
        steps: Where they part, and the end of each further epoch.
        plain: The validation loss, then, of the twin that did not grow.
        grown: That of the twin that grew; where its init keeps the function, it begins with the same number.
    """

    layer: str
    by: int
    steps: list[int]
    plain: list[float]
    grown: list[float]

    @property
    def benefit(self) -> float:
        """How far the validation loss of the grown twin ends below the other's, as a share of the other's."""
        return 1 - self.grown[-1] / self.plain[-1]


def twin(trainer: Trainer, callbacks=()) -> Trainer:
    """An exact copy of a trainer, that goes on with the same batches in the same order and shares no tensor with it.

    It takes on the weights, the optimizer's state, the history, how far the run is and the random numbers; torch's own
    generator is set to where it is, so take care of it where the original is to go on after its twin.

    Args:
        trainer: Between two calls of `fit`, or in one, asked from a callback after a step, an epoch or a task.
        callbacks: Of the copy, as they begin; those of the original are not taken over.
    """
    state = copy.deepcopy(checkpoint.state_of(trainer))
    settings = {name: value for name, value in state["settings"].items() if name not in ("loss", "budget")}
    model = copy.deepcopy(trainer.model)
    optimizer = checkpoint.new_optimizer(model, state["optimizer"])
    kept = {"loss": trainer.loss, "budget": trainer.budget, "device": trainer.device}
    other = Trainer(model, optimizer, callbacks, **settings, **kept)
    state["callbacks"] = [
        {"repr": checkpoint.written(callback), "state": callback.state_dict()} for callback in callbacks
    ]
    state["progress"]["event"] = []  # what callbacks of the original are in the middle of
    checkpoint.restore(other, state)
    if trainer.step:
        other.data, other.inputs, other.labels = trainer.data, trainer.inputs, trainer.labels
    return other


def fork(trainer: Trainer, data, by: int | Callable, epochs: int, init=zero_out) -> dict[str, Fork]:
    """Lets twins of a run go on for some epochs: one as it is, and for every hidden layer one in which it has grown.

    The run itself, and torch's generator, stay as they are.

    Args:
        trainer: Between two calls of `fit`, or in one, asked from a callback after a step or an epoch.
        data: What it learns.
        by: How many units, or a function of (trainer, hidden) that tells. None at all, and the twins stay equal.
        epochs: For which the twins go on, at least 1; one that has begun is the first of them.
        init: How the new units start, see `growlib.inits`.

    Returns:
        The outcome by the name of the layer.

    Raises:
        ValueError: There is no epoch to go on for, or no step behind the trainer.
    """
    if epochs < 1 or not trainer.step:
        raise ValueError(
            f"fork at step {trainer.step} for {epochs} epochs: train for a step at least, then let the twins go on for "
            "an epoch at least"
        )
    device = trainer.device
    with generators.kept(device):
        now = generators.states(device)
        found, (steps, plain) = {}, _goes_on(twin(trainer), data, epochs)
        for hidden in hidden_of(trainer.model):
            generators.put_back(now, device)
            other, units = twin(trainer), by(trainer, hidden) if callable(by) else by
            if units:
                other.change(widen, hidden.name, units, init=init, probe=other.probe(), cause="fork")
                generators.put_back(now, device)  # what is drawn from here on is the same in all twins
            found[hidden.name] = Fork(hidden.name, units, steps, plain, _goes_on(other, data, epochs)[1])
    return found


def _goes_on(trainer: Trainer, data, epochs: int) -> tuple[list[int], list[float]]:
    """The steps at which the validation loss was measured, and the losses."""
    start, begun = trainer.step, trainer.evaluate(data)["loss"]
    done = trainer.progress.task_epoch  # in a fit that has not ended
    trainer.fit(data, epochs=done + epochs)
    column = trainer.history.column
    return [start, *column("step", since=start)], [begun, *column("val_loss", since=start)]
