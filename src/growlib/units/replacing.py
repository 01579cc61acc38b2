"""Replacing the tensors of a width, in the model and in its optimizer, and back."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from growlib.surgery import _collapsed_axis, _start
from growlib.units.attributes import noted
from growlib.units.hidden import Hidden, Table
from growlib.units.layouts import size_of, widths_in


@dataclass(frozen=True)
class Before:
    """What a change replaced: where each tensor was, the number of units, and what modules kept beside."""

    tensors: tuple[tuple[nn.Module, str, Tensor], ...]
    sizes: dict[str, int]
    numbers: tuple[tuple[nn.Module, str, object], ...]


@dataclass
class Resized:
    """A tensor as it will be.

    Args:
        old: As it is.
        value: What takes its place.
        moves: For every axis that changes, where each entry comes from, or -1.
    """

    old: Tensor
    value: Tensor
    moves: dict[int, Tensor]


def carried(value: Tensor, moves: dict[int, Tensor], start: float | Tensor) -> Tensor:
    """A tensor whose entries come from elsewhere along some axes, or from `start` where they are new."""
    for axis, origin in moves.items():
        value = value.index_select(axis, origin.clamp_min(0).to(value.device))
    for axis, origin in moves.items():
        fresh = (origin < 0).nonzero().flatten().to(value.device)
        if torch.is_tensor(start) and start.ndim:
            value.index_copy_(axis, fresh, start.index_select(axis, fresh).to(value))
        else:
            value.index_fill_(axis, fresh, float(start))
    return value


def commit(hidden: Hidden, new: dict[int, Resized], after: dict[str, int], optimizer: Optimizer | None) -> Before:
    """Puts tensors into their places, in the model and in its optimizer: everything that could fail is done before."""
    fresh = {key: _parameter(resized) for key, resized in new.items()}
    states = _states(optimizer, new, fresh)
    modules, tensors = [], []
    for module, name, layouts in hidden.table.axes:
        if any(hidden.own in widths_in(layout) for layout in layouts):
            tensors.append((module, name, getattr(module, name)))
            modules.append(module)
    before = Before(tuple(tensors), dict(hidden.table.sizes), ())
    for module, name, old in tensors:
        holder = module._parameters if name in module._parameters else module._buffers
        holder[name] = fresh[id(old)]
    for group, place, tensor, state in states:
        optimizer.state.pop(group["params"][place], None)
        group["params"][place] = tensor
        if state:
            optimizer.state[tensor] = state
    hidden.table.sizes.update(after)
    numbers = note(hidden.table, dict.fromkeys(modules))
    return Before(before.tensors, before.sizes, numbers)


def note(table: Table, modules) -> tuple:
    """Lets modules know of the sizes of their tensors; returns what they kept before."""
    numbers = [(module, name, value) for module in modules for name, value in noted(module).items()]
    numbers += [(module, name, size_of(layout, table.sizes)) for module, name, layout in table.attributes]
    old = tuple((module, name, getattr(module, name)) for module, name, _ in numbers)
    for module, name, value in numbers:
        setattr(module, name, value)
    return old


def _parameter(resized: Resized) -> Tensor:
    old, value = resized.old, resized.value.contiguous()
    if not isinstance(old, nn.Parameter):
        return value
    new = nn.Parameter(value, old.requires_grad)
    if old.grad is not None:
        new.grad = carried(old.grad, resized.moves, 0.0)
    new._backward_hooks = old._backward_hooks  # the same dicts, so that handles still remove them
    new._post_accumulate_grad_hooks = old._post_accumulate_grad_hooks
    return new


def _states(optimizer: Optimizer | None, new: dict[int, Resized], fresh: dict[int, Tensor]) -> list:
    """What an optimizer will hold: (group, place there, tensor, state)."""
    found = []
    for group in optimizer.param_groups if optimizer else ():
        for place, parameter in enumerate(group["params"]):
            if id(parameter) in new:
                tensor, moves = fresh[id(parameter)], new[id(parameter)].moves
                old = optimizer.state.get(parameter, {})
                state = {key: _moved(key, value, parameter, tensor, moves, group) for key, value in old.items()}
                found.append((group, place, tensor, state))
    return found


def _moved(key: str, value, parameter: Tensor, tensor: Tensor, moves: dict[int, Tensor], group: dict):
    if not torch.is_tensor(value) or value.ndim == 0:
        return value
    own = {axis: origin for axis, origin in moves.items() if axis != _collapsed_axis(key, parameter)}
    return carried(value, own, _start(key, tensor, group))


@contextmanager
def as_before(hidden: Hidden, before: Before) -> Iterator[None]:
    """Puts the tensors that a change replaced back for a while."""
    table, now = hidden.table, [(module, name, getattr(module, name)) for module, name, _ in before.tensors]
    numbers, sizes = [(module, name, getattr(module, name)) for module, name, _ in before.numbers], dict(table.sizes)
    try:
        _put(before.tensors, before.numbers)
        table.sizes.update(before.sizes)
        yield
    finally:
        _put(now, numbers)
        table.sizes.update(sizes)


def _put(tensors, numbers):
    for module, name, tensor in tensors:
        (module._parameters if name in module._parameters else module._buffers)[name] = tensor
    for module, name, value in numbers:
        setattr(module, name, value)
