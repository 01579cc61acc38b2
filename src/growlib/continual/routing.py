"""Inference without a task: every task's head looks at an image, and the surest one is believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from growlib.data import SPLITS, refuse_namesakes
from growlib.layers import evaluating

if TYPE_CHECKING:
    import pandas as pd


def entropy(model, inputs: Tensor, task: str) -> Tensor:
    """How unsure the head of a task is: the entropy of its probabilities, as a share of the largest one possible.

    Args:
        model: With `.tasks`.
        inputs: (B, ...).
        task: Its name.

    Returns:
        (B,), from 0 (one class has it all) to 1 (all classes alike), whatever the number of classes.
    """
    log_probabilities = model(inputs, task).log_softmax(1)  # (B, classes)
    found = torch.special.entr(log_probabilities.exp()).sum(1)
    return found / math.log(max(2, log_probabilities.shape[1]))


class Prototypes:
    """How far an image is from the nearest class of a task, as the features of that task see it.

    A class is the mean of its training examples' features. The distance is divided by that of a typical training
    example from the mean of its own class, so that tasks with features of other sizes and numbers compare. Classes
    without training examples have no prototype.

    Args:
        model: With `.tasks` and `.features`.
        data: The data sets of its tasks; their training examples are read, once.

    Raises:
        ValueError: If no training example differs from the mean of its class: nothing tells what is far then.
    """

    def __init__(self, model, *data):
        refuse_namesakes(*data)
        self.means, self.scales = {}, {}
        with evaluating(model), torch.no_grad():
            for one in data:
                one = one.to(next(model.parameters()).device)
                features = torch.cat([model.features(inputs, one.name) for inputs, _ in _batches(one, "train")])
                present, own = one.train.labels.unique(return_inverse=True)
                means = torch.stack([features[own == label].mean(0) for label in range(len(present))])
                self.means[one.name] = means  # (classes, features)
                self.scales[one.name] = float((features - means[own]).norm(dim=1).mean())
                if not self.scales[one.name] > 0:
                    raise ValueError(
                        f"every training example of {one.name} lies on the mean of its class ({len(own)} examples of "
                        f"{len(present)} classes): prototypes need more than one example a class"
                    )

    def __call__(self, model, inputs: Tensor, task: str) -> Tensor:
        """The distance of every input from the nearest class of a task, (B,); 1 is that of a typical member."""
        if task not in self.means:
            raise ValueError(
                f"no prototypes of task {task!r}: there are those of {', '.join(map(repr, self.means)) or 'none'}. "
                "Give Prototypes the data of all tasks"
            )
        distances = torch.cdist(model.features(inputs, task), self.means[task])  # (B, classes)
        return distances.amin(1) / self.scales[task]

    def __repr__(self) -> str:
        return f"Prototypes({', '.join(self.means)})"


@torch.no_grad()
def route(model, images: Tensor | Sequence[Tensor], by=entropy) -> Tensor:
    """The task that every image seems to belong to.

    Args:
        model: With `.tasks`, called as model(inputs, task).
        images: (B, ...), as the model takes them; or one such tensor a task, where the tasks' data sets are normalised
            each in its own way.
        by: What is least for the task that is chosen: called as by(model, inputs, task), it returns (B,).

    Returns:
        The numbers of the tasks, (B,).
    """
    views = [images] * len(model.tasks) if isinstance(images, Tensor) else list(images)
    views = [view.to(next(model.parameters()).device) for view in views]
    if len(views) != len(model.tasks):
        raise ValueError(
            f"route got {len(views)} views of the images for the {len(model.tasks)} tasks {', '.join(model.tasks)}"
        )
    with evaluating(model):
        return torch.stack([by(model, view, task) for task, view in zip(model.tasks, views, strict=True)], 1).argmin(1)


@torch.no_grad()
def accuracy_without_task(model, *data, by=entropy, split: str = "test") -> pd.DataFrame:
    """The accuracy when the task is told (task-incremental) beside that when it is not (class-incremental).

    An answer without the task is right if its task and its class are. Every task sees the images normalised as its own
    data set is, since nothing else is known of them.

    Args:
        model: With `.tasks`.
        data: The data sets of all its tasks, in any order.
        by: As in `route`.
        split: "test", or "val" to choose by.

    Returns:
        A row for every data set: with_task, without_task, and routed, the share of images sent to their own task.
    """
    import pandas as pd

    refuse_namesakes(*data)
    known = {one.name: one.to(next(model.parameters()).device) for one in data}
    if sorted(known) != sorted(model.tasks):
        raise ValueError(
            f"the model knows the tasks {', '.join(model.tasks)}, and the data are {', '.join(known) or 'none'}: give "
            "those of all tasks, since any may be chosen"
        )
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    with evaluating(model):
        rows = {name: _accuracies(model, known, name, by, split) for name in known}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("task")


def _accuracies(model, data: dict, name: str, by, split: str) -> dict[str, float]:
    own, hits = model.tasks.index(name), {"with_task": 0, "without_task": 0, "routed": 0}
    images, labels = getattr(data[name], split).images, getattr(data[name], split).labels
    for part, truth in zip(images.split(1000), labels.split(1000), strict=True):
        views = [data[task].normalize(part) for task in model.tasks]
        right = model(views[own], name).argmax(1) == truth
        routed = route(model, views, by) == own
        for column, hit in (("with_task", right), ("without_task", right & routed), ("routed", routed)):
            hits[column] += int(hit.sum())
    return {column: count / len(labels) for column, count in hits.items()}


def _batches(data, split: str):
    for index in torch.arange(len(getattr(data, split)), device=data.device).split(1000):
        yield data.batch(split, index)
