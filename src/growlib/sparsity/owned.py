"""Weights that belong to tasks. Who owns them lies in the model, so that no file and no copy of it answers without."""

import torch
from torch import Tensor, nn

OWNER = "_owner"  # ending of the buffer beside a parameter: for every entry the number of a task from 1, or 0
PACKED = "packed_tasks"  # buffer of the model: for every task its number, or 0


def own(layer: nn.Module, name: str):
    """Gives every entry of a parameter an owner, nobody for now."""
    layer.register_buffer(name + OWNER, torch.zeros_like(layer.get_parameter(name), dtype=torch.uint8))


def owners_of(model: nn.Module) -> dict[str, Tensor]:
    """The owners of all weights that have some, by the name of the parameter."""
    parameters = dict(model.named_parameters())
    found = {name.removesuffix(OWNER): tensor for name, tensor in model.named_buffers() if name.endswith(OWNER)}
    return {name: tensor for name, tensor in found.items() if name in parameters}


def number_tasks(model: nn.Module, tasks: list[str]):
    """Numbers tasks of a model from 1 on: from now on each is answered with its own weights and those before.

    Args:
        model: Called as model(inputs, task), with `tasks`.
        tasks: Names, in the order in which they came to own weights.
    """
    numbers = [tasks.index(task) + 1 if task in tasks else 0 for task in model.tasks]
    _put_numbers(model, torch.tensor(numbers, dtype=torch.uint8, device=next(model.parameters()).device))


def _put_numbers(model: nn.Module, numbers: Tensor):
    if PACKED not in model._buffers:
        model.behind_mask = {}  # by name, the weights behind the mask while the model runs
        model.register_forward_pre_hook(mask, with_kwargs=True)
        model.register_forward_hook(unmask, always_call=True)
    model.register_buffer(PACKED, numbers)


def mask(model: nn.Module, given: tuple, named: dict):
    """Hides what a task may not read: the newest one reads all, the others what they and those before them own."""
    asked = named.get("task", given[1] if len(given) > 1 else None)
    task = model.tasks.index(asked) if isinstance(asked, str) else (-1 if asked is None else asked)
    numbers = dict(enumerate(model.get_buffer(PACKED).tolist()))
    number = numbers.get(task % len(model.tasks), 0)
    if number in (0, max(numbers.values())):
        return
    if torch.is_grad_enabled():
        name = model.tasks[task]
        raise ValueError(f"task {name!r} is packed, its weights are fixed: ask the model under torch.no_grad()")
    for name, owner in owners_of(model).items():
        parameter = model.get_parameter(name)
        model.behind_mask[name] = parameter.data
        parameter.data = parameter.where((owner > 0) & (owner <= number), 0)


def unmask(model: nn.Module, given: tuple, result):
    """Puts the weights back after the answer, or when there was none."""
    while model.behind_mask:
        name, values = model.behind_mask.popitem()
        model.get_parameter(name).data = values


def describe_owned(model: nn.Module) -> dict[str, list[str]]:
    """For every module that holds buffers about owners, their names."""
    found = {"": [PACKED]} if PACKED in model._buffers else {}
    for name in owners_of(model):
        layer, _, parameter = name.rpartition(".")
        found.setdefault(layer, []).append(parameter + OWNER)
    return found


def match_owned(model: nn.Module, wanted: dict[str, list[str]], weights: dict[str, Tensor]):
    """Gives a model the buffers about owners that it has in a file, ready to load them; it answers as the one there."""
    for name, buffers in wanted.items():
        layer = model.get_submodule(name)
        for buffer in buffers:
            if buffer == PACKED and PACKED not in model._buffers:
                _put_numbers(model, torch.zeros_like(weights[PACKED], device=next(model.parameters()).device))
            elif buffer.endswith(OWNER) and buffer not in layer._buffers:
                own(layer, buffer.removesuffix(OWNER))
