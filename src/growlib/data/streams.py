"""Streams: one data set as a sequence of tasks."""

from dataclasses import replace

import torch
from torch import Tensor

from growlib.data.dataset import SPLITS, Dataset, Split


def split_by_class(data: Dataset, tasks: int = 5) -> list[Dataset]:
    """Tasks that share no class, each with as many classes, in their order; labels count from 0 in each.

    Args:
        data: Its statistics go on to all tasks.
        tasks: How many; the number of classes must be a multiple of it.
    """
    classes = len(data.classes)
    if not isinstance(tasks, int) or tasks < 1 or classes % tasks:
        raise ValueError(f"{classes} classes of {data.name} can't be shared by {tasks!r} tasks evenly")
    size = classes // tasks
    return [_only(data, number, range(number * size, (number + 1) * size)) for number in range(tasks)]


def _only(data: Dataset, number: int, labels: range) -> Dataset:
    splits = {}
    for name in SPLITS:
        split = getattr(data, name)
        here = ((split.labels >= labels.start) & (split.labels < labels.stop)).nonzero().flatten()
        splits[name] = Split(split.images[here], split.labels[here] - labels.start)
    return _task(data, number, [data.classes[label] for label in labels], splits)


def permuted(data: Dataset, tasks: int, seed: int = 0) -> list[Dataset]:
    """Tasks whose pixels are shuffled, all images of a task alike; those of the first stay where they are.

    Args:
        data: Of images.
        tasks: How many.
        seed: Of the orders.
    """
    pixels = data.train.images[0, 0].numel()
    return [_shuffled(data, number, order.to(data.device)) for number, order in _orders(pixels, tasks, seed)]


def _shuffled(data: Dataset, number: int, order: Tensor) -> Dataset:
    splits = {}
    for name in SPLITS:
        split = getattr(data, name)
        splits[name] = Split(split.images.flatten(2)[:, :, order].view_as(split.images), split.labels)
    return _task(data, number, data.classes, splits)


def relabelled(data: Dataset, tasks: int, seed: int = 0) -> list[Dataset]:
    """Tasks with the same inputs whose classes change their numbers; those of the first keep them.

    Args:
        data: With one label an example.
        tasks: How many.
        seed: Of the numbers.
    """
    if data.train.labels.ndim > 1:
        raise ValueError(f"{data.name} has labels of every pixel, and relabelled tasks need one an example")
    return [_renamed(data, number, order.to(data.device)) for number, order in _orders(len(data.classes), tasks, seed)]


def _orders(size: int, tasks: int, seed: int):
    """The number of every task and its order of so many things, that of the first as it was."""
    if not isinstance(tasks, int) or tasks < 1:
        raise ValueError(f"tasks={tasks!r} must be a whole number of at least 1")
    generator = torch.Generator().manual_seed(seed)
    return enumerate([torch.arange(size), *(torch.randperm(size, generator=generator) for _ in range(tasks - 1))])


def _renamed(data: Dataset, number: int, order: Tensor) -> Dataset:
    splits = {name: Split(getattr(data, name).images, order[getattr(data, name).labels]) for name in SPLITS}
    return _task(data, number, [data.classes[label] for label in order.argsort()], splits)


def _task(data: Dataset, number: int, classes: list[str], splits: dict) -> Dataset:
    name, sizes = f"{data.name}-{number + 1}", {split: len(splits[split]) for split in SPLITS}
    provenance = {**data.provenance, "name": name, "sizes": sizes}
    return replace(data, name=name, classes=classes, provenance=provenance, **splits)
