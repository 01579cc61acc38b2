"""A small network with a head for every task, streams of tasks, and runs that are cut in two."""

from dataclasses import replace

import torch
from torch import nn

from growlib import Callback, Trainer, split_by_class
from growlib.data import SPLITS, Split


class Heads(nn.Module):
    """One hidden layer for all tasks, then a head for each."""

    def __init__(self, tasks, inputs=64, width=12, classes=5, norm=False):
        super().__init__()
        self.hidden1 = nn.Linear(inputs, width)
        self.norm = nn.BatchNorm1d(width) if norm else nn.Identity()
        self.heads = nn.ModuleDict({task: nn.Linear(width, classes) for task in tasks})

    @property
    def tasks(self):
        return list(self.heads)

    def forward(self, x, task):
        return self.heads[task](self.norm(self.hidden1(x.flatten(1))).relu())


def halves(data, size):
    """Two tasks of five classes each, with the first examples of every split only."""
    found = []
    for task in split_by_class(data, 2):
        few = {name: Split(getattr(task, name).images[:size], getattr(task, name).labels[:size]) for name in SPLITS}
        found.append(replace(task, **few))
    return found


def make(callbacks, tasks, seed=0, rate=0.01, model=None, **settings):
    torch.manual_seed(seed)
    model = model or Heads([data.name for data in tasks])
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    return Trainer(model, optimizer, callbacks, device="cpu", batch_size=32, **settings)


class Save(Callback):
    """Writes a checkpoint after one step."""

    may_differ = ("path", "step")

    def __init__(self, path, step):
        self.path, self.step = path, step

    def after_step(self, trainer):
        if trainer.step == self.step:
            trainer.save(self.path)


def cut_in_two(path, callbacks, tasks, step, epochs=2):
    """A run, and the same run as it goes on from a checkpoint of the middle: `callbacks()` makes fresh ones."""
    whole = make([*callbacks(), Save(path, step)], tasks)
    whole.fit(*tasks, epochs=epochs)
    assert path.exists()
    model = Heads([data.name for data in tasks])
    parted = Trainer.load(path, model, [*callbacks(), Save(path, -1)], device="cpu")
    parted.fit(*tasks, epochs=epochs)
    return whole, parted


def same(whole, parted):
    """Whether two runs ended in the same weights, by the same losses."""
    weights = zip(whole.model.state_dict().values(), parted.model.state_dict().values(), strict=True)
    return whole.history.losses == parted.history.losses and all(torch.equal(*pair) for pair in weights)
