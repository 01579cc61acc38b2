"""Loading a state of other widths: those of hidden layers are taken on, and no other size is."""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from growlib.layers.attributes import note
from growlib.layers.hidden import Table, known_hidden
from growlib.layers.layouts import size_of, widths_in


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
        for entry in hidden.entries:
            free.setdefault(id(entry.tensor), set()).add(entry.axis)
    known = [places[key] + (axes,) for key, axes in free.items() if key in places]
    if not all(_fits(tensor, saved, axes) for tensor, saved, _, axes in known):
        return
    table = getattr(model, "_table", Table())
    sizes = sizes_of(table, {key: saved for key, (_, saved, _) in places.items()})
    if sizes is None:
        return
    for tensor, saved, holders, _ in known:
        if saved.shape != tensor.shape:
            take_shape(tensor, saved, holders)
    for module in {module for _, _, holders, _ in known for module, _ in holders}:
        note(module)  # once more, as some keep numbers of tensors that others hold
    table.sizes.update(sizes)
    for module, name, layout in table.attributes:
        setattr(module, name, size_of(layout, sizes))


def sizes_of(table: Table, saved: dict[int, Tensor]) -> dict[str, int] | None:
    """The sizes of all widths in a state: each is read off an axis where the others are known.

    Args:
        table: The widths as they are.
        saved: For every tensor of the model, by its id, the one in the state.

    Returns:
        None where tensors of the state contradict one another.
    """
    tensors = [(layouts, saved.get(id(getattr(module, name, None)))) for module, name, layouts in table.axes]
    shapes = [(layouts, tensor.shape) for layouts, tensor in tensors if torch.is_tensor(tensor)]
    axes, known = [pair for layouts, shape in shapes for pair in zip(layouts, shape, strict=False)], {}
    while (before := len(known)) < len(table.sizes):
        for layout, size in axes:
            unknown = widths_in(layout) - set(known)
            if len(unknown) == 1:
                own = unknown.pop()
                known[own] = _solved(layout, own, {**table.sizes, **known}, size)
        if len(known) == before:
            break
    sizes = {**table.sizes, **known}
    told = all(size_of(layout, sizes) == size for layout, size in axes)
    return sizes if told else None


def _solved(layout, own: str, sizes: dict[str, int], size: int) -> int:
    """The size of one width for which an axis is so long: it grows by as much with every step."""
    now, twice = size_of(layout, sizes), size_of(layout, {**sizes, own: 2 * sizes[own]})
    return sizes[own] + (size - now) * sizes[own] // (twice - now)


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
        note(module)


_watching = []  # the hook of all optimizers, once there is something to watch for


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
