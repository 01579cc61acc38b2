"""Memory: some examples of the earlier tasks are kept, shared fairly among tasks and classes."""

from dataclasses import replace

import torch
from torch import Tensor

from growlib.continual._calls import Drawing, logits_of, two_at_least
from growlib.data import REMEDY, Dataset, Split
from growlib.numbers import is_whole
from growlib.trainer import derive_seed

PLAIN = ("classes", "mean", "std", "provenance", "shift", "flip", "cutout")  # of a Dataset, beside its examples


class Memory(Drawing):
    """What Replay, GEM and AGEM have in common: a few examples of every task that has ended.

    When a task ends, the memory is shared equally among all tasks so far, and within a task equally among its classes.
    Images are kept as they came, with uint8 pixels, and normalised and augmented as their own data set was.

    Args:
        memory: Examples kept of all tasks together.
    """

    def __init__(self, memory: int):
        if not is_whole(memory):
            raise ValueError(f"{type(self).__name__}(memory={memory!r}): a whole number of at least 1")
        self.memory = memory
        self.kept, self.draws = {}, 0  # a small Dataset by task; batches drawn in all

    def before_fit(self, trainer):
        self.kept = {name: data.to(trainer.device) for name, data in self.kept.items()}

    def before_task(self, trainer):
        data, kept = trainer.data, self.kept.get(trainer.data.name)
        if kept is not None and kept.provenance.get("sha256") != data.provenance.get("sha256"):
            raise ValueError(f"the memory holds examples of another task that is called {data.name!r}. {REMEDY}")
        tasks = {*self.kept, data.name}
        if self.memory < len(tasks):
            raise ValueError(f"a memory of {self.memory} examples cannot be shared among {len(tasks)} tasks: raise it")

    def remembered(self, trainer, count: int) -> Tensor:
        """The mean loss of examples drawn from the memory, each through the head of its task."""
        seed, loss, first = derive_seed(trainer.seed, self.draws), 0.0, 0
        drawn = torch.randperm(self.size, generator=torch.Generator().manual_seed(seed))[:count]
        noise = torch.Generator(trainer.device).manual_seed(seed)
        for name, data in self.kept.items():
            own = drawn[(drawn >= first) & (drawn < first + len(data.train))] - first
            first += len(data.train)
            if drawn_here := len(own):
                own = two_at_least(trainer.model, own, len(data.train), f"task {name!r} in the memory")
                inputs, labels = data.batch("train", own.to(trainer.device), noise)
                loss = loss + trainer.loss(logits_of(trainer.model, inputs, name), labels) * drawn_here / len(drawn)
        self.draws += 1
        return loss

    @property
    def size(self) -> int:
        """How many examples are kept."""
        return sum(len(data.train) for data in self.kept.values())

    def after_task(self, trainer):
        data = trainer.data
        tasks = list(dict.fromkeys([*self.kept, data.name]))
        generator = torch.Generator().manual_seed(derive_seed(trainer.seed, len(tasks)))
        self.kept[data.name] = _part(data, balanced(data.train.labels.cpu(), generator)[: self.memory])
        for number, name in enumerate(tasks):
            share = self.memory // len(tasks) + (number < self.memory % len(tasks))
            self.kept[name] = _part(self.kept[name], torch.arange(min(share, len(self.kept[name].train))))

    def state_dict(self) -> dict:
        kept = {}
        for name, data in self.kept.items():
            settings = {key: getattr(data, key) for key in PLAIN}
            kept[name] = {"images": data.train.images, "labels": data.train.labels} | settings
        return {"kept": kept, "draws": self.draws}

    def load_state_dict(self, state: dict):
        self.draws, self.kept = state["draws"], {}
        for name, saved in state["kept"].items():
            split = Split(saved["images"], saved["labels"])
            settings = {key: saved[key] for key in PLAIN}
            self.kept[name] = Dataset(name, train=split, val=split, test=split, **settings)


def balanced(labels: Tensor, generator: torch.Generator) -> Tensor:
    """An order of examples, drawn by lot, in which classes take turns: every beginning of it is balanced.

    Args:
        labels: (N,); of (N, ...), a label for every pixel, no class is told apart.
        generator: Draws the lots.

    Returns:
        Indices, (N,).
    """
    order = torch.randperm(len(labels), generator=generator)
    if labels.ndim > 1:
        return order
    turn = torch.empty_like(order)
    for label in labels.unique():
        own = labels[order] == label
        turn[own] = torch.arange(int(own.sum()))
    return order[turn.argsort(stable=True)]


def _part(data: Dataset, index: Tensor) -> Dataset:
    """A small data set of some training examples only."""
    index = index.to(data.device)
    split = Split(data.train.images.index_select(0, index), data.train.labels.index_select(0, index))
    provenance = data.provenance | {"sizes": {"train": len(split)}}
    return replace(data, train=split, val=split, test=split, provenance=provenance)
