"""Parameters that join and leave an optimizer while it is in use."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from growlib.growth.slots import OptimizerSlots


def add_parameters(optimizer, model: nn.Module, modules: Iterable[nn.Module]):
    """Lets the parameters of new modules join the groups of an optimizer, in place.

    A weight joins the group of the nearest weight of the model, one of as many dimensions where there is one; the
    weight of a norm, its bias and the bias of a layer join that of the nearest of their kind. Frozen neighbours that
    the optimizer does not hold are passed over; where one that learns is not held, the new one stays out too.

    Args:
        optimizer: In use, or a list of them. Its groups stay the same objects, so schedulers go on.
        model: That the modules are part of.
        modules: New ones.
    """
    slots = OptimizerSlots(optimizer)
    new = {id(parameter) for module in modules for parameter in module.parameters()}
    order = list(_kinds(model))
    for position, (name, parameter, _) in enumerate(order):
        if id(parameter) in new and slots.groups:
            old = [other for other, (_, p, _) in enumerate(order) if id(p) not in new]
            known = [other for other in old if id(order[other][1]) in slots.held]
            able = [other for other in old if other in known or order[other][1].requires_grad]
            nearest = _nearest(order, position, old, able)
            if nearest is None:
                slots.add(parameter, name, slots.groups[0])
            elif nearest in known:
                slots.add(parameter, name, _group_of(slots, order[nearest][1]))


def remove_parameters(optimizer, tensors: Iterable[nn.Parameter]):
    """Takes tensors out of the groups of an optimizer, in place, and forgets their state.

    Args:
        optimizer: In use, or a list of them.
        tensors: Parameters; those that it does not hold are passed over.
    """
    OptimizerSlots(optimizer).remove({id(tensor) for tensor in tensors})


def restart(optimizer, parameter: nn.Parameter, where: Tensor):
    """Lets an optimizer forget what it knows of some entries of a parameter.

    Factors that are shared by a row or column (Adafactor's) stay as they are.

    Args:
        optimizer: In use, or None.
        parameter: As it is now; those that the optimizer does not hold are passed over.
        where: Boolean, of the parameter's shape.
    """
    OptimizerSlots(optimizer).forget(parameter, where)


def rename_parameters(optimizer, before: dict[int, str], model: nn.Module):
    """Keeps the names right by which an optimizer calls parameters, where it was given names.

    Args:
        optimizer: In use, or a list of them.
        before: The names that the parameters had in the model, by their ids.
        model: In which some are called otherwise now.
    """
    now = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in OptimizerSlots(optimizer).groups:
        names = group.get("param_names", [])
        for position, (name, parameter) in enumerate(zip(names, group["params"], strict=False)):
            if before.get(id(parameter)) == name:
                names[position] = now.get(id(parameter), name)


def lay_out_alike(model: nn.Module, modules: Iterable[nn.Module]):
    """Lets new convolutions lie in memory as those of the model do: channels last, if any of theirs does."""
    new = {id(parameter) for module in modules for parameter in module.parameters()}
    old = [parameter for parameter in model.parameters() if id(parameter) not in new]
    for ndim, last in ((4, torch.channels_last), (5, torch.channels_last_3d)):
        alike = [p for p in old if p.ndim == ndim and p.is_contiguous(memory_format=last) and not p.is_contiguous()]
        for module in modules if alike else ():
            module.to(memory_format=last)


def _kinds(model: nn.Module):
    """The parameters of a model in its order: name, parameter, and its kind."""
    seen = set()
    for path, module in model.named_modules():
        scale = module._parameters.get("weight")
        layer = "norm" if scale is not None and scale.ndim == 1 else "layer"
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                role = "bias" if name == "bias" else "weight"
                yield f"{path}.{name}" if path else name, parameter, (parameter.ndim, layer, role)


def _unlike(one: tuple, other: tuple) -> int:
    """How much two kinds differ: 0 not at all, 1 in detail, 2 as weights and biases do."""
    if one == other:
        return 0
    return 1 if (one[0] > 1) == (other[0] > 1) else 2


def _nearest(order: list, position: int, old: list[int], able: list[int]) -> int | None:
    """The place of the parameter that is most alike and then nearest; of two that are equally near, the one before."""
    if not able:
        return None
    kind = order[position][2]
    best = min(_unlike(kind, order[other][2]) for other in able)
    alike = sorted([*(other for other in old if _unlike(kind, order[other][2]) == best), position])
    here = alike.index(position)
    far = [(abs(rank - here), rank > here, other) for rank, other in enumerate(alike) if other in able]
    return min(far)[2]


def _group_of(slots: OptimizerSlots, parameter: Tensor) -> dict:
    return next(group for group in slots.groups if any(one is parameter for one in group["params"]))
