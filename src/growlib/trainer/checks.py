"""What a trainer asks before it begins: does the model take these data?"""

from inspect import Parameter, signature
from numbers import Real

import torch
from torch import nn

from growlib.data import identity, refuse_others
from growlib.layers import evaluating, tasks_of, uncompiled
from growlib.models import TaskModel
from growlib.numbers import is_whole
from growlib.trainer.outputs import logits_in


def refuse_unfit(model: nn.Module, data: tuple, epochs: list[int], done: int = 0, learned: dict | None = None):
    """Raises a ValueError for data that the model does not take, or nothing to do.

    Args:
        model: What will be trained.
        data: Data sets.
        epochs: For each of them.
        done: The number of data sets that the trainer has finished.
        learned: Of what was learned before, the identity by name.
    """
    if not data or len(epochs) != len(data) or not all(map(is_whole, epochs)):
        raise ValueError(
            f"fit needs data and a whole number of epochs for each, and got {len(data)} data sets, {epochs}"
        )
    known = tasks_of(model) if tasks_of(model) is not None else [task.name for task in data]
    if done >= len(data) or any(task.name not in known for task in data[:done]):
        raise ValueError(
            f"the trainer has finished {done} tasks of its stream ({', '.join(known[:done])}): pass the whole stream, "
            f"not {', '.join(task.name for task in data)}"
        )
    for task in data[done:]:
        classes = _classes(model, task)
        for split in ("train", "val", "test"):
            labels = getattr(task, split).labels
            if labels.is_floating_point():  # a quantity, no class
                continue
            if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
                raise ValueError(
                    f"labels of {task.name} ({split}) reach from {labels.min()} to {labels.max()}, and the model "
                    f"has {classes} outputs: they must be 0 to {classes - 1}"
                )
    refuse_others(data, (model.learned if isinstance(model, TaskModel) else {}) | (learned or {}))


def note_data(model: nn.Module, data, learned: dict):
    """Remembers what a task is learned from, for `refuse_unfit`: in the run, and in a model that goes on to others."""
    learned[data.name] = identity(data)
    if isinstance(model, TaskModel):
        model.learned[data.name] = learned[data.name]


def refuse_settings(batch_size: int, accumulate: int, clip: float | None, seed: int):
    """Raises a ValueError for settings with which no Trainer can learn."""
    for name, number in {"batch_size": batch_size, "accumulate": accumulate}.items():
        if not is_whole(number):
            raise ValueError(f"{name} must be a whole number of at least 1, and is {number!r}")
    if clip is not None and (isinstance(clip, bool) or not (isinstance(clip, Real) and clip > 0)):
        raise ValueError(f"clip={clip!r} must be above 0, the largest norm of all gradients together, or None")
    if not is_whole(seed, 0):
        raise ValueError(f"seed={seed!r} must be a whole number from 0 on: runs are repeatable by it")


def refuse_optimizer(optimizer):
    """Raises a TypeError for an optimizer, also in a list, whose step wants to compute the loss again (LBFGS)."""
    for one in optimizer if isinstance(optimizer, (list, tuple)) else [optimizer]:
        closure = signature(one.step).parameters.get("closure")
        if closure is not None and closure.default is Parameter.empty:
            raise TypeError(
                f"{type(one).__name__}.step needs a closure that computes the loss several times a step, and the "
                "Trainer computes it once: choose an optimizer that takes one gradient a step, such as AdamW or SGD"
            )


@torch.no_grad()
def _classes(model: nn.Module, task) -> int:
    tasks = tasks_of(model)
    if tasks is not None and task.name in getattr(model, "closed", ()):
        raise ValueError(
            f"task {task.name!r} is closed: its units keep their values for ever. Train a new one, "
            "such as load(source, name='second')"
        )
    inputs, _ = task.batch("train", torch.arange(1, device=task.train.labels.device))
    named = (task.name,) if task.name in (tasks or ()) else ()
    try:
        with evaluating(model), uncompiled():
            outputs = logits_in(model(inputs.to(next(model.parameters()).device), *named))
            outputs = outputs.shape[1] if outputs.ndim > 1 else 1
            return outputs if named or tasks is None else len(task.classes)  # of a task that is to come
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"the model does not take {task.name}, of shape {tuple(task.shape)}: {error}") from error
