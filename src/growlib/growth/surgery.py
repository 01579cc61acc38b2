"""Replacing tensors of a model, with what its optimizer knows of them moved along, index by index."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from growlib.growth.slots import OptimizerSlots, Step
from growlib.growth.tensors import like_in_memory, take_or_fill
from growlib.layers import Hidden, as_written, inputs_of, make_growable


@dataclass
class _Replacement:
    old: Tensor
    steps: list[Step]
    new: Tensor | None = None

    @property
    def values(self) -> Tensor:
        return self.steps[-1].after


class TensorReplacer:
    """Replaces tensors of a model, wherever they are tied, and moves what an optimizer knows of them along.

    `put` and what calls it only compute. `write` then puts everything in its place, within `all_or_nothing`.

    Args:
        model: That holds the tensors.
        optimizer: In use: an optimizer, a list of them, or None.
    """

    def __init__(self, model: nn.Module, optimizer):
        self.slots = OptimizerSlots(optimizer)
        self.model, self.optimizer = as_written(model), optimizer
        self.places, self.planned, self.previous = {}, {}, {}
        for path, module in self.model.named_modules():
            for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
                if tensor is not None:
                    self.places.setdefault(id(tensor), []).append((f"{path}." if path else "", module, name))

    def values(self, module: nn.Module, name: str) -> Tensor:
        """The tensor of a module as it will be."""
        tensor = getattr(module, name)
        return self.planned[id(tensor)].values if id(tensor) in self.planned else tensor

    def put(self, module, name, values: Tensor, axis: int, origin: Tensor, ancestors: Tensor | None = None):
        """Plans what takes the place of a tensor that changes along `axis`.

        Args:
            module: A module that holds the tensor.
            name: Its name there.
            values: What takes its place.
            axis: Along which its size changes.
            origin: For every index along the axis, the one it had before, or -1.
            ancestors: The same, with the indices that new ones copy.
        """
        old = getattr(module, name)
        plan = self.planned.setdefault(id(old), _Replacement(old, []))
        if all(step.axis != axis for step in plan.steps):  # else it is tied to one for which this is planned
            before = self.values(module, name) if plan.steps else old
            ancestors = origin if ancestors is None else ancestors
            plan.steps.append(Step(axis, origin, ancestors, before.detach(), like_in_memory(values.detach(), old)))

    def insert(self, module, name, fresh: Tensor, axis: int, place, sources: Tensor | None = None, scale: float = 1.0):
        """Plans the tensors of new units; `fresh` may hold those of the old units too.

        Args:
            module, name, axis: As in `put`.
            fresh: The values, unit by unit.
            place: What `places_of` found.
            sources: The units that the new ones copy, if they do.
            scale: A factor of all values.
        """
        origin, now = place
        values = take_or_fill(self.values(module, name), axis, origin)
        where = now.flatten()[now.numel() - fresh.shape[axis] :].to(fresh.device)
        rows = len(values) if axis == 0 else len(fresh)  # a layer that reads its own units has new rows already
        values[:rows].index_copy_(axis, where, fresh.to(values))
        ancestors = origin.clone()
        if sources is not None:
            ancestors[now[-len(sources) :]] = origin[now[sources.cpu()]]
        self.put(module, name, values if scale == 1 else values * scale, axis, origin, ancestors)

    def keep(self, module, name, axis: int, place):
        """Plans that the units of a tensor stay that have a place after the change."""
        self.put(module, name, take_or_fill(self.values(module, name), axis, place[0]), axis, place[0])

    def widen_norm(self, norm: nn.Module, place, sources: Tensor | None, scale: float = 1.0):
        """Plans what the new units of a normalisation get: neutral values, or those of the units that they copy.

        Args:
            norm: The normalisation.
            place: What `places_of` found.
            sources: The units that the new ones copy, if they do.
            scale: A factor of its weight.
        """
        origin, now = place
        for name in tensors_by_unit(norm):
            tensor = getattr(norm, name)
            neutral = 1.0 if name in ("weight", "running_var") else 0.0
            if sources is None:
                fresh = tensor.new_full((int((origin < 0).sum()),), neutral)
            else:
                fresh = tensor[origin[now[sources.cpu()]].flatten().to(tensor.device)]
            self.insert(norm, name, fresh, 0, place, sources, scale if name == "weight" else 1.0)

    @torch.no_grad()
    def write(self):
        """Puts everything that is planned in its place."""
        for plan in self.planned.values():
            plan.new = _successor(plan)
        parameters = [plan for plan in self.planned.values() if isinstance(plan.old, nn.Parameter)]
        self.slots.plan([(plan.old, plan.new, plan.steps) for plan in parameters])
        held = [place for plan in self.planned.values() for place in self.places[id(plan.old)]]
        touched = {id(holder): (path, holder) for path, holder, _ in held}
        for path, holder in touched.values():
            _able(holder, path)
        for plan in self.planned.values():
            for path, holder, name in self.places[id(plan.old)]:
                self.previous[path + name] = plan.old
                (holder._parameters if name in holder._parameters else holder._buffers)[name] = plan.new
        for path, holder in touched.values():
            before = dict(vars(holder))
            holder.note_widths()
            now = vars(holder)
            self.previous |= {path + name: old for name, old in before.items() if now[name] is not old}
        self.slots.write()


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


def _able(module: nn.Module, path: str):
    """Sees to it that a module can take on other widths: one that took the place of a growable one may be plain."""
    make_growable(module)
    if not hasattr(module, "note_widths"):
        raise TypeError(
            f"{path.rstrip('.')!r} holds a tensor that would change, and a {type(module).__name__} cannot take on "
            "another width: untie its tensors, or call growable(model, example) again"
        )


def put_back(model: nn.Module, things: dict) -> dict:
    """Puts tensors and attributes in their places, by name, and returns what was there."""
    modules, now = dict(as_written(model).named_modules()), {}
    for path, thing in things.items():
        holder, _, name = path.rpartition(".")
        own = [modules[holder]._parameters, modules[holder]._buffers, vars(modules[holder])]
        place = next(slots for slots in own if name in slots)
        now[path], place[name] = place[name], thing
    return now


def places_of(hidden: Hidden, kept: Tensor, by: int) -> dict[tuple, tuple[Tensor, Tensor]]:
    """For every module and the axis of its tensors, what a change that keeps some units and adds others does to it.

    Returns:
        origin: For every index after the change, the one before it, or -1.
        now: The indices of the units that were kept and of the new ones, (units, spread).
    """
    more = len(kept) + by - hidden.width
    rows = torch.cat([kept, torch.full((by,), -1)])
    found = {(producer, 0): (rows, torch.arange(len(rows))[:, None]) for producer in hidden.producers}
    for axis, reader in [(0, norm) for norm in hidden.norms] + [(1, consumer) for consumer in hidden.consumers]:
        old, now = hidden.columns(reader), hidden.columns(reader, more)
        size = inputs_of(reader)
        origin = torch.full((size + now.numel() - old.numel(),), -1)
        origin[now[: len(kept)]] = old[kept]
        strangers = torch.ones(size, dtype=torch.bool).index_fill_(0, old.flatten(), False)
        free = torch.ones_like(origin, dtype=torch.bool).index_fill_(0, now.flatten(), False)
        origin[free] = strangers.nonzero()[:, 0]
        found[reader, axis] = origin, now
    return found


def tensors_by_unit(module: nn.Module) -> list[str]:
    """The names of the tensors of a producer or norm that have an entry for every unit."""
    tensors = [*module._parameters.items(), *module._buffers.items()]
    return [name for name, tensor in tensors if tensor is not None and tensor.ndim]
