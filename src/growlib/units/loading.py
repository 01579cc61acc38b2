"""A state of other widths: the model takes them on before it loads."""

from torch import Tensor, nn

from growlib.units.hidden import Table
from growlib.units.layouts import size_of, widths_in
from growlib.units.replacing import note


def resize_on_load(model: nn.Module):
    """Lets a model that `growable` prepared take on the widths of a state that it loads, alone or within others."""
    if not hasattr(model, "_table"):
        model.register_load_state_dict_pre_hook(_take_on)


def _take_on(model: nn.Module, state: dict, prefix: str, *_):
    """A hook: it changes nothing unless all tensors of the widths fit the state."""
    paths, table = {module: path for path, module in model.named_modules()}, model._table
    saved = [(layouts, state.get(_key(prefix, paths.get(module), name))) for module, name, layouts in table.axes]
    saved = [(layouts, tensor) for layouts, tensor in saved if tensor is not None]
    sizes = sizes_of(table, saved)
    if sizes == table.sizes or any(_shape(layouts, sizes) != tuple(tensor.shape) for layouts, tensor in saved):
        return
    done = set()
    for module, name, layouts in table.axes:
        tensor = getattr(module, name)
        if id(tensor) not in done:
            tensor.data = tensor.new_empty(_shape(layouts, sizes))  # the same object, for those who hold it
            tensor.grad = None
            done.add(id(tensor))
    table.sizes.update(sizes)
    note(table, dict.fromkeys(module for module, *_ in table.axes))


def _key(prefix: str, path: str | None, name: str) -> str:
    return f"{prefix}{path}.{name}" if path else f"{prefix}{name}"


def _shape(layouts: list, sizes: dict[str, int]) -> tuple[int, ...]:
    return tuple(size_of(layout, sizes) for layout in layouts)


def sizes_of(table: Table, saved: list[tuple[list, Tensor]]) -> dict[str, int]:
    """The sizes of all widths in a state: each is read off an axis where the others are known.

    Args:
        table: The widths as they are.
        saved: For every tensor the layouts of its axes, and its value.
    """
    axes = [pair for layouts, tensor in saved for pair in zip(layouts, tensor.shape, strict=False)]
    known = {}
    for _ in table.sizes:
        for layout, size in axes:
            unknown = widths_in(layout) - set(known)
            if len(unknown) == 1:
                own = unknown.pop()
                known[own] = _solved(layout, own, {**table.sizes, **known}, size)
        if len(known) == len(table.sizes):
            break
    return {**table.sizes, **known}


def _solved(layout, own: str, sizes: dict[str, int], size: int) -> int:
    """The size of one width for which an axis is so long: it grows by as much with every step."""
    now, twice = size_of(layout, sizes), size_of(layout, {**sizes, own: 2 * sizes[own]})
    return sizes[own] + (size - now) * sizes[own] // (twice - now)
