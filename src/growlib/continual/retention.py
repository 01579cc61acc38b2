"""Retention: does a model answer for its old tasks exactly as it did, bit for bit?"""

import torch
from torch import Tensor

from growlib.data import refuse_namesakes
from growlib.layers import evaluating
from growlib.numbers import is_whole
from growlib.trainer import Callback


@torch.no_grad()
def retention_snapshot(model, *data, images: int = 256) -> dict:
    """What a model answers for some tasks, and all tensors that belong to them.

    Args:
        model: A TaskModel.
        data: The data sets of tasks that the model knows.
        images: The number of validation images, the first ones.

    Returns:
        tasks {name: {"logits", "tensors" {name: tensor}}}, and what else decides about rounding: device, threads.

    Raises:
        ValueError: Without data or images: nothing could ever differ.
    """
    _refuse_nothing(data, images)
    refuse_namesakes(*data)
    tasks, device = {}, next(model.parameters()).device
    with evaluating(model):
        for one in data:
            inputs, _ = one.to(device).batch("val", torch.arange(min(images, len(one.val)), device=device))
            tensors = {**model.task_parameters(one.name), **model.task_buffers(one.name)}
            kept = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
            tasks[one.name] = {"logits": model(inputs, one.name).cpu(), "tensors": kept}
    return {"tasks": tasks, "device": str(device), "threads": torch.get_num_threads()}


def retention_certificate(before: dict, after: dict) -> dict:
    """Whether all answers and tensors in a snapshot are there, bit for bit, in a later one.

    Args:
        before: Of `retention_snapshot`.
        after: Of the same images, on the same device with as many threads (which decide about the order of sums).

    Returns:
        exact; logits_changed, of how many logits; tensors_changed, of how many tensors; largest_change of a logit;
        tasks, device, threads.

    Raises:
        ValueError: For snapshots that can't be compared, or that hold nothing that could differ.
    """
    if not before["tasks"] or not all(kept["logits"].numel() for kept in before["tasks"].values()):
        raise ValueError("the earlier snapshot lacks logits, so that nothing could differ: it certifies nothing")
    for name in ("device", "threads"):
        if before[name] != after[name]:
            raise ValueError(
                f"the snapshots are not comparable: {name} was {before[name]} and is {after[name]}, and sums are "
                "rounded in another order. Take both in the same surroundings"
            )
    if missing := sorted(set(before["tasks"]) - set(after["tasks"])):
        raise ValueError(
            f"the later snapshot lacks {', '.join(map(repr, missing))}: give retention_snapshot their data"
        )
    pairs = [(kept, after["tasks"][name]) for name, kept in before["tasks"].items()]
    changed = sum(_changed(old["logits"], new["logits"]) for old, new in pairs)
    tensors = sum(
        not _same(old["tensors"][name], new["tensors"].get(name)) for old, new in pairs for name in old["tensors"]
    )
    return {
        "exact": changed == 0 and tensors == 0,
        "logits_changed": changed,
        "logits": sum(old["logits"].numel() for old, _ in pairs),
        "tensors_changed": tensors,
        "tensors": sum(len(old["tensors"]) for old, _ in pairs),
        "largest_change": max((_largest(old["logits"], new["logits"]) for old, new in pairs), default=0.0),
        "tasks": list(before["tasks"]),
        "device": before["device"],
        "threads": before["threads"],
    }


def _refuse_nothing(data, images: int):
    if not data:
        raise ValueError("a snapshot needs the data sets of the tasks that are compared, and got none")
    if not is_whole(images):
        raise ValueError(f"images={images!r} must be a whole number of at least 1")
    if empty := [one.name for one in data if not len(one.val)]:
        raise ValueError(f"{', '.join(empty)}: no validation images, and a snapshot is taken of these")


def _same(old: Tensor, new: Tensor | None) -> bool:
    return new is not None and torch.equal(old, new)


def _changed(old: Tensor, new: Tensor) -> int:
    if torch.equal(old, new):
        return 0
    return int((old != new).sum()) if old.shape == new.shape else old.numel()


def _largest(old: Tensor, new: Tensor) -> float:
    return float((old - new).abs().max()) if old.shape == new.shape else float("inf")


class Certify(Callback):
    """Takes a snapshot of every task when it ends, and after every later task compares all of them.

    The certificates stand in `certificates`, one a task, and their numbers in History: logits_changed, tensors_changed.

    Args:
        data: The data sets of the stream.
        images: Of each, see `retention_snapshot`.
    """

    remembers = ("snapshot", "certificates")

    def __init__(self, *data, images: int = 256):
        _refuse_nothing(data, images)
        refuse_namesakes(*data)
        self.data, self.images = {one.name: one for one in data}, images
        self.snapshot, self.certificates = None, []

    def before_task(self, trainer):
        refuse_namesakes(*self.data.values(), trainer.data)

    def after_task(self, trainer):
        if trainer.data.name not in self.data:
            return
        learned = dict.fromkeys([*(self.snapshot or {"tasks": ()})["tasks"], trainer.data.name])
        now = retention_snapshot(trainer.model, *(self.data[name] for name in learned), images=self.images)
        if self.snapshot is not None:
            found = retention_certificate(self.snapshot, now)
            self.certificates.append(found)
            trainer.history.log(trainer.step, **{name: found[name] for name in ("logits_changed", "tensors_changed")})
            now["tasks"] |= self.snapshot["tasks"]  # the oldest answers are those that count
        self.snapshot = now
