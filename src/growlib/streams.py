"""Streams: one data set as a sequence of tasks."""

from dataclasses import replace

import torch
from torch import Tensor

from growlib.data import SPLITS, Dataset, Split


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
    if not isinstance(tasks, int) or tasks < 1:
        raise ValueError(f"tasks={tasks!r} must be a whole number of at least 1")
    pixels, generator = data.train.images[0, 0].numel(), torch.Generator().manual_seed(seed)
    orders = [torch.arange(pixels), *(torch.randperm(pixels, generator=generator) for _ in range(tasks - 1))]
    return [_shuffled(data, number, order.to(data.device)) for number, order in enumerate(orders)]


def _shuffled(data: Dataset, number: int, order: Tensor) -> Dataset:
    splits = {}
    for name in SPLITS:
        split = getattr(data, name)
        splits[name] = Split(split.images.flatten(2)[:, :, order].view_as(split.images), split.labels)
    return _task(data, number, data.classes, splits)


def _task(data: Dataset, number: int, classes: list[str], splits: dict) -> Dataset:
    name, sizes = f"{data.name}-{number + 1}", {split: len(splits[split]) for split in SPLITS}
    provenance = {**data.provenance, "name": name, "sizes": sizes}
    return replace(data, name=name, classes=classes, provenance=provenance, **splits)
