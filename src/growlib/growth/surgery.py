"""Replacing tensors of a model, with what its optimizer knows of them moved along, index by index."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from growlib.layers import Hidden, as_written, inputs_of


class Surgeon:
    """Replaces tensors of a model, wherever they are tied, and moves what an optimizer knows of them along."""

    def __init__(self, model: nn.Module, optimizer: Optimizer | None):
        refuse_unmovable(optimizer)
        self.model, self.optimizer = as_written(model), optimizer
        self.previous, self.places, self.done = {}, {}, {}
        for path, module in self.model.named_modules():
            for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
                if tensor is not None:
                    place = f"{path}.{name}" if path else name, module, name
                    self.places.setdefault(id(tensor), []).append(place)

    def put(self, module, name, values, axis, origin):
        """Puts `values` in the place of a tensor that changes along `axis`.

        Args:
            module: A module that holds the tensor.
            name: Its name there.
            values: What takes its place.
            axis: Along which its size changes.
            origin: For every index along the axis, the one it had before, or -1.
        """
        old = getattr(module, name)
        if (id(old), axis) in self.done:  # tied to one that has been replaced
            return
        new = values.contiguous()
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, old.requires_grad)
            if old.grad is not None:
                new.grad = moved(old.grad, axis, origin)
            new._backward_hooks = old._backward_hooks  # the same dicts, so that handles still remove them
            new._post_accumulate_grad_hooks = old._post_accumulate_grad_hooks
            if self.optimizer is not None:
                _hand_over(self.optimizer, old, new, axis, origin)
        for path, holder, own_name in self.places[id(old)]:
            self.previous.setdefault(path, old)
            setattr(holder, own_name, new)
            holder.note_widths()
        self.places[id(new)] = self.places[id(old)]
        self.done[id(new), axis] = new  # held, so that no other tensor gets its id

    def insert(self, module, name, fresh: Tensor, axis: int, place):
        """Puts the tensors of new units where they belong; `fresh` may hold those of the old units too."""
        origin, now = place
        values = moved(getattr(module, name), axis, origin)
        where = now.flatten()[now.numel() - fresh.shape[axis] :].to(fresh.device)
        rows = len(values) if axis == 0 else len(fresh)  # a layer that reads its own units has new rows already
        values[:rows].index_copy_(axis, where, fresh.to(values))
        self.put(module, name, values, axis, origin)

    def keep(self, module, name, axis: int, place):
        """Keeps the units of a tensor that have a place after the change."""
        self.put(module, name, moved(getattr(module, name), axis, place[0]), axis, place[0])

    def widen_norm(self, norm: nn.Module, place, sources: Tensor | None):
        """Gives a normalisation what its new units need: neutral values, or those of the units that they copy."""
        origin, now = place
        for name in tensors_by_unit(norm):
            tensor = getattr(norm, name)
            neutral = 1.0 if name in ("weight", "running_var") else 0.0
            if sources is None:
                fresh = tensor.new_full((int((origin < 0).sum()),), neutral)
            else:
                fresh = tensor[origin[now[sources.cpu()]].flatten().to(tensor.device)]
            self.insert(norm, name, fresh, 0, place)


def _hand_over(optimizer: Optimizer, old: Tensor, new: Tensor, axis: int, origin: Tensor):
    """Gives a new parameter the place of the old one in its group, and the old one's state, index by index."""
    for group in optimizer.param_groups:
        for position, parameter in enumerate(group["params"]):
            if parameter is old:
                group["params"][position] = new
                state = optimizer.state.pop(old, {})
                state = {key: _moved_state(key, value, old, new, axis, origin, group) for key, value in state.items()}
                if state:
                    optimizer.state[new] = state


def _moved_state(key, value, old, new, axis, origin, group):
    if not torch.is_tensor(value) or value.ndim == 0 or axis == _collapsed_axis(key, old):
        return value
    return moved(value, axis, origin, _start(key, new, group))


def _start(key: str, parameter: Tensor, group: dict) -> float | Tensor:
    """What an optimizer's state holds before the first step."""
    return {
        "step_size": group["lr"],  # Rprop
        "sum": group.get("initial_accumulator_value", 0.0),  # Adagrad
        "ax": parameter.detach(),  # ASGD's average of the weights
    }.get(key, 0.0)


def restart(optimizer: Optimizer | None, parameter: nn.Parameter, where: Tensor):
    """Lets an optimizer forget what it knows of some entries of a parameter.

    Factors that are shared by a row or column (Adafactor's) stay as they are.

    Args:
        optimizer: In use, or None.
        parameter: As it is now; those that the optimizer does not hold are passed over.
        where: Boolean, of the parameter's shape.
    """
    for group in optimizer.param_groups if optimizer else ():
        if any(held is parameter for held in group["params"]):
            for key, value in optimizer.state.get(parameter, {}).items():
                if torch.is_tensor(value) and value.shape == parameter.shape:
                    start = torch.as_tensor(_start(key, parameter, group)).to(value)
                    value.copy_(torch.where(where, start, value))


def moved(tensor: Tensor, axis: int, origin: Tensor, start=0.0) -> Tensor:
    """A tensor whose entries along `axis` come from the indices `origin`, or from `start` where that is -1."""
    placed = tensor.index_select(axis, origin.clamp_min(0).to(tensor.device))
    fresh = (origin < 0).nonzero().flatten().to(tensor.device)
    if len(fresh):
        values = start.index_select(axis, fresh) if torch.is_tensor(start) and start.ndim else None
        if values is None:
            placed.index_fill_(axis, fresh, float(start))
        else:
            placed.index_copy_(axis, fresh, values.to(placed))
    return placed


def _collapsed_axis(key: str, parameter: Tensor) -> int | None:
    """The axis over which Adafactor averages a factor of its second moments."""
    return {"row_var": parameter.ndim - 1, "col_var": parameter.ndim - 2}.get(key)


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
        origin[torch.ones_like(origin, dtype=torch.bool).index_fill_(0, now.flatten(), False)] = strangers.nonzero()[
            :, 0
        ]
        found[reader, axis] = origin, now
    return found


def tensors_by_unit(module: nn.Module) -> list[str]:
    """The names of the tensors of a producer or norm that have an entry for every unit."""
    tensors = [*module._parameters.items(), *module._buffers.items()]
    return [name for name, tensor in tensors if tensor is not None and tensor.ndim]


def adopt(optimizer: Optimizer, tensors: Iterable[nn.Parameter], like: Iterable[nn.Parameter]):
    """Lets tensors without ancestors join the groups of an optimizer, in place.

    Args:
        optimizer: In use. Its groups stay the same objects, so schedulers go on.
        tensors: Each joins the group of the first of `like` that has as many dimensions (biases may be kept apart from
            weights), or of the first of all; where the optimizer does not hold that one, the tensor stays out too.
        like: Parameters that the optimizer holds. If it holds none any more, tensors join its first group.
    """
    like = list(like)
    for tensor in tensors:
        model = next((p for p in like if p.ndim == tensor.ndim), like[0] if like else None)
        for number, group in enumerate(optimizer.param_groups):
            if any(parameter is model for parameter in group["params"]) or (model is None and number == 0):
                group["params"].append(tensor)
                if isinstance(optimizer, torch.optim.Adagrad):  # makes its state when it is built
                    optimizer.state.update(type(optimizer)([{**group, "params": [tensor]}]).state)


def release(optimizer: Optimizer, tensors: Iterable[nn.Parameter]):
    """Takes tensors out of the groups of an optimizer, in place, and forgets their state.

    Args:
        optimizer: In use.
        tensors: Parameters; those that it does not hold are passed over.
    """
    gone = {id(tensor) for tensor in tensors}
    for group in optimizer.param_groups:
        group["params"][:] = [parameter for parameter in group["params"] if id(parameter) not in gone]
    for parameter in [parameter for parameter in optimizer.state if id(parameter) in gone]:
        del optimizer.state[parameter]


def refuse_unmovable(optimizer: Optimizer | None):
    """Raise TypeError for an optimizer whose state cannot follow a change of structure."""
    if optimizer is None:
        return
    if isinstance(optimizer, torch.optim.LBFGS):
        raise TypeError(
            "LBFGS cannot follow a change of structure: its history holds all weights in one flat vector. "
            "Change the structure with another optimizer, then start a new LBFGS"
        )
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if not torch.is_tensor(value) or value.ndim == 0 or value.shape == parameter.shape:
                continue
            if _collapsed_axis(key, parameter) is None or value.ndim != parameter.ndim:
                raise TypeError(
                    f"cannot move the state {key!r} of {type(optimizer).__name__}: its shape {tuple(value.shape)} is "
                    f"not that of its parameter, {tuple(parameter.shape)}. Change the structure without "
                    "`optimizer=`, then start a new optimizer"
                )
