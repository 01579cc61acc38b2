"""Replacing tensors of a model, with what its optimizer knows of them moved along, index by index."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from growlib.growth.slots import OptimizerSlots, Step
from growlib.growth.tensors import like_in_memory, take_or_fill
from growlib.layers import Table, as_written, note
from growlib.layers.layouts import size_of


@dataclass
class _Replacement:
    old: Tensor
    values: Tensor
    steps: list[Step]
    new: Tensor | None = None


class TensorReplacer:
    """Replaces tensors of a model, wherever they are tied, and moves what an optimizer knows of them along.

    `put` and `resize` only note what will be. `write` then puts everything in its place, within `all_or_nothing`.

    Args:
        model: That holds the tensors.
        optimizer: In use: an optimizer, a list of them, or None.
    """

    def __init__(self, model: nn.Module, optimizer):
        self.slots = OptimizerSlots(optimizer)
        self.model, self.optimizer = as_written(model), optimizer
        self.places, self.planned, self.previous, self.sizes = {}, [], {}, []
        self.paths = {module: f"{path}." if path else "" for path, module in self.model.named_modules()}
        for module in self.paths:
            for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
                if tensor is not None:
                    self.places.setdefault(id(tensor), []).append((module, name))

    def put(self, old: Tensor, values: Tensor, moves: dict[int, Tensor], ancestors: dict[int, Tensor] | None = None):
        """Plans what takes the place of a tensor.

        Args:
            old: Of the model.
            values: What takes its place.
            moves: For every axis that changes, and every index along it afterwards, the one it had before, or -1.
            ancestors: The same, with the indices that new ones copy.
        """
        values = like_in_memory(values.detach(), old)
        self.planned.append(_Replacement(old, values, _steps(old.detach(), values, moves, ancestors or moves)))

    def resize(self, table: Table, sizes: dict[str, int]):
        """Plans the sizes that the widths of a model will have."""
        self.sizes.append((table, sizes))

    @torch.no_grad()
    def write(self):
        """Puts everything that is planned in its place."""
        for plan in self.planned:
            plan.new = _successor(plan)
        parameters = [plan for plan in self.planned if isinstance(plan.old, nn.Parameter)]
        self.slots.plan([(plan.old, plan.new, plan.steps) for plan in parameters])
        touched = dict.fromkeys(holder for plan in self.planned for holder, _ in self.places[id(plan.old)])
        for plan in self.planned:
            for holder, name in self.places[id(plan.old)]:
                self.previous[self.paths[holder] + name] = plan.old
                (holder._parameters if name in holder._parameters else holder._buffers)[name] = plan.new
        others = [(module, name, size_of(layout, s)) for t, s in self.sizes for module, name, layout in t.attributes]
        before = {module: dict(vars(module)) for module in [*touched, *(module for module, _, _ in others)]}
        for module in touched:
            note(module)
        for module, name, value in others:
            setattr(module, name, value)
        for module, then in before.items():
            path, now = self.paths[module], vars(module)
            self.previous |= {path + name: old for name, old in then.items() if now[name] is not old}
        for table, sizes in self.sizes:
            table.sizes.update(sizes)
        self.slots.write()


def _steps(old: Tensor, values: Tensor, moves: dict[int, Tensor], ancestors: dict[int, Tensor]) -> list[Step]:
    """How a tensor becomes another, one axis after the other."""
    steps, left = [], dict(moves)
    for axis, origin in moves.items():
        del left[axis]
        after = values
        for other, where in left.items():  # as yet without what is new there
            after = after.index_select(other, (where >= 0).nonzero().flatten().to(after.device))
        after = take_or_fill(old, axis, origin, after) if left else values
        steps.append(Step(axis, origin, ancestors[axis], old, after))
        old = after
    return steps


def _successor(plan: _Replacement) -> Tensor:
    """What takes the place of a tensor: a Parameter for a Parameter, with its hooks and its gradient."""
    old, values = plan.old, plan.values
    if not isinstance(old, nn.Parameter):
        return values
    new = nn.Parameter(values, old.requires_grad)
    if old.grad is not None:
        gradient = old.grad
        for step in plan.steps:
            gradient = take_or_fill(gradient, step.axis, step.origin)
        new.grad = like_in_memory(gradient, old)
    new._backward_hooks = old._backward_hooks  # the same dicts, so that handles still remove them
    new._post_accumulate_grad_hooks = old._post_accumulate_grad_hooks
    return new


def put_back(model: nn.Module, things: dict) -> dict:
    """Puts tensors and attributes in their places, by name, and returns what was there."""
    modules, now = dict(as_written(model).named_modules()), {}
    for path, thing in things.items():
        holder, _, name = path.rpartition(".")
        own = [modules[holder]._parameters, modules[holder]._buffers, vars(modules[holder])]
        place = next(slots for slots in own if name in slots)
        now[path], place[name] = place[name], thing
    return now
