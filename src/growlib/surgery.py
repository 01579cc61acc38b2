"""Replacing tensors of a model, with what its optimizer knows of them moved along, index by index."""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Surgeon:
    """Replaces tensors of a model, and moves what an optimizer knows of them along."""

    def __init__(self, model: nn.Module, optimizer: Optimizer | None):
        refuse_unmovable(optimizer)
        self.model, self.optimizer = model, optimizer
        self.names = {id(module): name for name, module in model.named_modules()}
        self.previous = {}

    def extend(self, module, name, rows):
        self.put(module, name, torch.cat([getattr(module, name), rows]), axis=0)

    def keep(self, module, name, index, axis):
        self.put(module, name, getattr(module, name).index_select(axis, index), axis, index)

    def put(self, module, name, values, axis, keep=None):
        """Puts `values` in the place of a tensor that changes along `axis`, of which it keeps the entries `keep`."""
        old = getattr(module, name)
        path = self.names[id(module)]
        self.previous[f"{path}.{name}" if path else name] = old
        if not isinstance(old, nn.Parameter):
            setattr(module, name, values)
            return module.note_widths()
        new = nn.Parameter(values.contiguous(), old.requires_grad)
        if old.grad is not None:
            new.grad = _moved(old.grad, values.shape[axis], axis, keep)
        setattr(module, name, new)
        module.note_widths()
        if self.optimizer is not None:
            _hand_over(self.optimizer, old, new, axis, keep)


def _hand_over(optimizer: Optimizer, old: Tensor, new: Tensor, axis: int, keep: Tensor | None):
    """Gives a new parameter the place of the old one in its group, and the old one's state, index by index."""
    for group in optimizer.param_groups:
        for position, parameter in enumerate(group["params"]):
            if parameter is old:
                group["params"][position] = new
                state = optimizer.state.pop(old, {})
                moved = {key: _moved_state(key, value, old, new, axis, keep, group) for key, value in state.items()}
                if moved:
                    optimizer.state[new] = moved


def _moved_state(key, value, old, new, axis, keep, group):
    if not torch.is_tensor(value) or value.ndim == 0 or axis == _collapsed_axis(key, old):
        return value
    start = {
        "step_size": group["lr"],  # Rprop
        "sum": group.get("initial_accumulator_value", 0.0),  # Adagrad
        "ax": new.detach(),  # ASGD's average of the weights
    }.get(key, 0.0)
    return _moved(value, new.shape[axis], axis, keep, start)


def _moved(tensor: Tensor, size: int, axis: int, keep: Tensor | None, start=0.0) -> Tensor:
    """A tensor with the entries `keep` along `axis`, extended to `size` by `start`."""
    if keep is not None:
        return tensor.index_select(axis, keep)
    shape = [*tensor.shape]
    shape[axis] = size - tensor.shape[axis]
    if torch.is_tensor(start) and start.ndim:
        fresh = start.narrow(axis, tensor.shape[axis], shape[axis])
    else:
        fresh = tensor.new_full(shape, float(start))
    return torch.cat([tensor, fresh.to(tensor)], axis)


def _collapsed_axis(key: str, parameter: Tensor) -> int | None:
    """The axis over which Adafactor averages a factor of its second moments."""
    return {"row_var": parameter.ndim - 1, "col_var": parameter.ndim - 2}.get(key)


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
