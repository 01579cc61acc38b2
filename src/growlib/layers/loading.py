"""Loading a state of other widths: those of hidden layers are taken on, and no other size is."""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from growlib.layers.hidden import Hidden, known_hidden
from growlib.layers.resizing import make_growable


class TakesOnWidths:
    """A model whose hidden layers take on the widths of the state that it loads."""

    def _load_from_state_dict(self, state, prefix, *rest):
        take_on_widths(self, state, prefix)
        super()._load_from_state_dict(state, prefix, *rest)


def take_on_widths(model: nn.Module, state: dict, prefix: str = "", *rest):
    """Gives the hidden layers of a model the widths of a state that is to be loaded.

    Parameters stay the same objects, as torch's `load_state_dict` keeps them. Where anything but hidden widths differs,
    nothing is done, and torch says what does not fit.

    Args:
        model: With hidden layers that growlib knows; any other stays as it is.
        state: What will be loaded.
        prefix: Of the model's names in it.
        rest: What torch tells hooks beside these.
    """
    places, free = {}, {}
    for path, module in model.named_modules():
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None:
                saved = state.get(f"{prefix}{path}.{name}" if path else prefix + name)
                places.setdefault(id(tensor), (tensor, saved, []))[2].append((module, name))
    for hidden in known_hidden(model):
        for tensor, axis in _sized(hidden):
            free.setdefault(id(tensor), set()).add(axis)
    known = [places[key] + (axes,) for key, axes in free.items() if key in places]
    if all(_fits(tensor, saved, axes) for tensor, saved, _, axes in known):
        for tensor, saved, holders, _ in known:
            if saved.shape != tensor.shape:
                take_shape(tensor, saved, holders)


def take_shapes(module: nn.Module, state: dict, prefix: str):
    """Gives all tensors of a module that nothing was trained in the shapes of a state, as `take_on_widths` does."""
    for path, part in module.named_modules(prefix=prefix):
        for name, tensor in [*part._parameters.items(), *part._buffers.items()]:
            saved = state.get(f"{path}.{name}")
            if tensor is not None and saved is not None and saved.shape != tensor.shape:
                take_shape(tensor, saved, [(part, name)])


def take_shape(tensor: Tensor, saved: Tensor, holders: list[tuple[nn.Module, str]]):
    """Gives a tensor the shape of a saved one: a Parameter in place, a buffer by another.

    Args:
        tensor: Of the model.
        saved: That will be loaded.
        holders: The modules that have the tensor, and its names there.
    """
    empty = torch.empty_like(saved, dtype=tensor.dtype, device=tensor.device)
    if isinstance(tensor, nn.Parameter):
        tensor.resized_from = tuple(tensor.shape)  # see `refuse_old_state`
        tensor.grad, tensor.data = None, empty
        if not _watching:
            _watching.append(register_optimizer_step_pre_hook(refuse_old_state))
    for module, name in holders:
        if name in module._buffers:
            module._buffers[name] = empty
        make_growable(module)
        if hasattr(module, "note_widths"):
            module.note_widths()


_watching = []  # the hook of all optimizers, once there is something to watch for


def _sized(hidden: Hidden):
    """The tensors of a Hidden that have an entry for every unit, and along which axis."""
    for axis, modules in ((0, (*hidden.producers, *hidden.norms)), (1, hidden.consumers)):
        for module in modules:
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if tensor is not None and tensor.ndim > axis:
                    yield tensor, axis


def _fits(tensor: Tensor, saved: Tensor, axes: set[int]) -> bool:
    """Whether a saved tensor differs from one of the model along the axes of hidden units only."""
    if not torch.is_tensor(saved) or saved.ndim != tensor.ndim:
        return False
    return all(axis in axes or tensor.shape[axis] == saved.shape[axis] for axis in range(tensor.ndim))


def refuse_old_state(optimizer: Optimizer, *rest):
    """Raises a RuntimeError before a step with state of widths that parameters had before they were loaded."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            before = getattr(parameter, "resized_from", None)
            state = optimizer.state.get(parameter, {}) if before else {}
            if any(torch.is_tensor(value) and not _fits_state(value, parameter) for value in state.values()):
                raise RuntimeError(
                    f"{type(optimizer).__name__} holds state of a parameter as it was before weights of other "
                    f"widths were loaded: {before} then, {tuple(parameter.shape)} now. Build the optimizer anew, load "
                    "its state too, or load the weights before it is made"
                )


def _fits_state(value: Tensor, parameter: Tensor) -> bool:
    """Whether something has the shape of a parameter, or of a factor of it."""
    pairs = zip(value.shape, parameter.shape, strict=False)
    return not value.ndim or (value.ndim == parameter.ndim and all(mine in (1, theirs) for mine, theirs in pairs))
