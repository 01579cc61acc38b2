"""StepByAge: newborn units take larger steps."""

import torch
from torch import Tensor, nn

from growlib.layers import Hidden, hidden_of
from growlib.layers.layouts import coarse
from growlib.trainer import Callback, History

BEFORE_ALL = -(2**40)  # the birth of units that no change of the run made


class StepByAge(Callback):
    """Multiplies the updates of newborn units by a factor that falls from `boost` to 1 while they grow up.

    It scales what the optimizer did: a weight that makes or reads a newborn unit goes on from where it was by
    factor x (its value after the step - its value before), weight decay included; the younger of its two units counts.
    Scaling the gradients instead would work for plain SGD only: Adam divides the mean of the gradients by the root of
    the mean of their squares, so that a factor on all of them cancels and the update stays what it was.

    The factor of a unit that is t < steps steps old is 1 + (boost - 1) (1 - t / steps). Births and deaths are read from
    the history, so a checkpoint loses nothing. Costs a copy of the weights that have newborn units. In the list of
    callbacks it stands before those that change the structure.

    Args:
        boost: The factor of the first step after birth.
        steps: The age, in steps, from which on the factor is 1.

    Source: the question of Yuan et al., "Accelerated Training via Incrementally Growing Neural Networks using Variance
        Transfer and Learning Rate Adaptation" (2023), whose factor is a ratio of norms of weights.
    """

    def __init__(self, boost: float, steps: int):
        if not (boost > 0 and isinstance(steps, int) and steps > 0):
            raise ValueError(f"StepByAge({boost!r}, {steps!r}): give a factor above 0 and a whole number of steps")
        self.boost, self.steps, self.before = boost, steps, []

    def after_backward(self, trainer):
        self.before, changes = [], trainer.history.changes
        if not any(c["kind"] != "prune" and trainer.step - c["step"] < self.steps for c in changes):
            return
        known, ages = births(changes), {}
        for hidden in hidden_of(trainer.model):
            born = torch.tensor(known.get(hidden.name, [BEFORE_ALL] * hidden.width))
            if len(born) != hidden.width:
                raise ValueError(
                    f"layer {hidden.name!r} has {hidden.width} units, and the history tells of {len(born)}: "
                    "make changes through trainer.change"
                )
            if trainer.step - int(born.max()) < self.steps:
                _note_ages(ages, hidden, trainer.step - born)
        for parameter, age in ages.items():
            factor = 1 + (self.boost - 1) * (1 - age.double() / self.steps).clamp_min(0)
            self.before.append((parameter, parameter.detach().clone(), factor.to(parameter)))

    @torch.no_grad()
    def after_step(self, trainer):
        there = {id(parameter) for parameter in trainer.model.parameters()}
        for parameter, old, factor in self.before:
            if id(parameter) not in there:
                raise RuntimeError("StepByAge must stand before the callbacks that change the structure: move it up")
            parameter.copy_(old.lerp(parameter, factor))  # exactly the parameter where the factor is 1
        self.before = []


def births(history: History | list[dict]) -> dict[str, list[int]]:
    """The step at which every unit was born, by layer.

    Args:
        history: Of a run, or its `changes`.

    Returns:
        For every layer that has changed the births of its units, in their order; `BEFORE_ALL`, far below zero, of those
        that no change brought.
    """
    found = {}
    for change in getattr(history, "changes", history):
        born = found.setdefault(change["layer"], [BEFORE_ALL] * change["before"])
        if change["kind"] == "prune":
            for unit in sorted(change["units"], reverse=True):
                del born[unit]
        else:
            for unit in sorted(change["units"]):
                born.insert(unit, change["step"])
    return found


def _note_ages(ages: dict, hidden: Hidden, age: Tensor):
    """Notes the age of every entry that belongs to a unit: that of the younger one where it belongs to two."""
    for entry in hidden.entries:
        tensor = entry.tensor
        if isinstance(tensor, nn.Parameter) and not coarse(entry.layout, hidden.own):
            places = hidden.places(entry)
            along = torch.full((tensor.shape[entry.axis],), -BEFORE_ALL)
            along.index_copy_(0, places.flatten(), age.repeat_interleave(places.shape[1]))
            along = along.view([-1 if axis == entry.axis else 1 for axis in range(tensor.ndim)])
            ages[tensor] = along.minimum(ages.get(tensor, torch.tensor(-BEFORE_ALL)))
