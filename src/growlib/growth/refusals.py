"""What cannot change its structure as it is, and what to do about it."""

from collections.abc import Iterable
from numbers import Integral

from torch import Tensor, nn

from growlib.layers import Hidden, Sparse, as_written, hidden_of
from growlib.numbers import is_whole

QUANTISED = ("torch.ao.nn", "torch.nn.quantized", "torchao", "bitsandbytes", "optimum.quanto")  # where such layers live


def refuse_sparse(hidden: Hidden, deed: str):
    """Raise ValueError for a layer whose number of connections is fixed."""
    if sparse := [module for module in (*hidden.producers, *hidden.consumers) if isinstance(module, Sparse)]:
        count = " and ".join(f"{int(layer.mask.sum()):,}" for layer in sparse)
        raise ValueError(
            f"cannot {deed} layer {hidden.name!r}: the layers that make and read its units are sparse, with {count} "
            f"connections that may move but not change in number. Call {deed} before sparsify"
        )


def refuse_quantised(model: nn.Module, deed: str):
    """Raise ValueError for a model with weights that are stored in few bits."""
    for name, module in as_written(model).named_modules():
        tensors = [tensor for tensor in module._parameters.values() if tensor is not None]
        if type(module).__module__.startswith(QUANTISED) or any(map(_in_few_bits, tensors)):
            raise ValueError(
                f"cannot {deed} a quantised model: the weights of {name!r} ({type(module).__name__}) are stored in few "
                f"bits, and new ones would need scales of their own. Quantise last: {deed} the model before"
            )


def _in_few_bits(tensor: Tensor) -> bool:
    small = tensor.is_floating_point() and tensor.element_size() < 2
    wrapped = type(tensor.data) is not Tensor and type(tensor.data).__module__.startswith(QUANTISED)
    return small or wrapped or tensor.is_quantized or not (tensor.is_floating_point() or tensor.is_complex())


def refuse_changed(model: nn.Module, hidden: Hidden, deed: str):
    """Raise ValueError for a layer whose modules were replaced, or whose tensors are made of others, by now."""
    names = {module: name for name, module in as_written(model).named_modules()}
    roles = {"makes": hidden.producers, "normalises": hidden.norms, "reads": hidden.consumers}
    for role, modules in roles.items():
        for module in modules:
            if module not in names:
                raise ValueError(
                    f"cannot {deed} layer {hidden.name!r}: the {module!r} that {role} its units is not in the model "
                    f"any more{_instead(model, module, role)}. Call growable(model, example) again"
                )
            for name in _tensors_of(hidden, module):
                if isinstance(module, Sparse) or any(name in own for own in (module._parameters, module._buffers)):
                    continue
                made = name in getattr(module, "parametrizations", ())  # to read one may already change it
                if made or getattr(module, name, None) is not None:
                    raise ValueError(_computed(names[module], name, hidden.name, deed))


def _tensors_of(hidden: Hidden, module: nn.Module) -> list[str]:
    return [entry.name for entry in hidden.entries if entry.module is module]


def _computed(module: str, name: str, layer: str, deed: str) -> str:
    return (
        f"cannot {deed} layer {layer!r}: the {name} of {module!r} is no parameter of its own, but made of others "
        "(weight_norm, spectral_norm, nn.utils.prune or another parametrization). Remove that first, with "
        "torch.nn.utils.parametrize.remove_parametrizations, remove_weight_norm, remove_spectral_norm or prune.remove, "
        f"and apply it again after {deed}"
    )


def _instead(model: nn.Module, lost: nn.Module, role: str) -> str:
    """What stands in a model where another module was, as far as one can tell."""
    names = {module: name for name, module in as_written(model).named_modules()}
    known = {names.get(entry.module) for hidden in hidden_of(model) for entry in hidden.entries}
    own = {id(tensor) for tensor in lost.parameters()}
    heirs = [name for module, name in names.items() if own & {id(p) for p in module._parameters.values()}]
    if not heirs:
        axis = 1 if role == "reads" else 0
        heirs = [name for module, name in names.items() if _size(module, axis) == _size(lost, axis) is not None]
        heirs = [name for name in heirs if name not in known] or heirs
    return f" (in its place may be {' or '.join(map(repr, heirs[:3]))})" if heirs else ""


def _size(module: nn.Module, axis: int) -> tuple | None:
    weight = module._parameters.get("weight")
    return None if weight is None or weight.ndim <= axis else (weight.ndim, weight.shape[axis])


def number_of_units(by, hidden: Hidden) -> int:
    """How many units `widen` adds.

    Raises:
        ValueError: It is not a positive multiple of the layer's unit.
    """
    if not is_whole(by) or by % hidden.unit:
        multiple = f"multiple of {hidden.unit}, the size of a group"
        whole = "a positive number" if hidden.unit == 1 else f"a positive {multiple}"
        raise ValueError(f"cannot widen layer {hidden.name!r} ({hidden.width} units) by {by!r}: give {whole}")
    return int(by)


def units_to_prune(units, hidden: Hidden) -> list[int]:
    """The indices of the units that `prune` removes, from indices or a mask.

    Raises:
        ValueError: For an unknown unit, a part of a group, a mask of another length, anything that is not whole, or
            when no unit would stay.
    """
    width, name = hidden.width, hidden.name
    units = units.tolist() if hasattr(units, "tolist") else units
    units = list(units) if isinstance(units, Iterable) else [units]
    units = [unit.item() if hasattr(unit, "item") else unit for unit in units]
    if units and all(isinstance(unit, bool) for unit in units):
        if len(units) != width:
            raise ValueError(f"cannot prune layer {name!r} of {width} units by a mask of {len(units)}")
        units = [unit for unit, goes in enumerate(units) if goes]
    for unit in units:
        if isinstance(unit, bool) or not isinstance(unit, Integral):
            raise ValueError(
                f"cannot prune unit {unit!r} of layer {name!r}: give the indices of the units that go, as "
                "scores.argsort()[:4] does, or a boolean mask of all units"
            )
        if not 0 <= unit < width:
            raise ValueError(f"cannot prune unit {unit}: layer {name!r} has {width} units")
    units = sorted(set(map(int, units)))
    if not units or len(units) == width:
        count = "no unit" if not units else f"all {width} units"
        raise ValueError(f"cannot prune {count} of layer {name!r}: name at least one, and leave at least one")
    _refuse_parts(units, hidden)
    return units


def _refuse_parts(units: list[int], hidden: Hidden):
    for unit in units if hidden.unit > 1 else ():
        group = unit // hidden.unit * hidden.unit
        if not set(range(group, group + hidden.unit)) <= set(units):
            raise ValueError(
                f"cannot prune unit {unit} of layer {hidden.name!r} by itself: units go in groups of {hidden.unit}, "
                f"here {group} to {group + hidden.unit - 1}"
            )
