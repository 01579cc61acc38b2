"""Whiten and Freeze: what a stem of fixed filters needs."""

from fnmatch import fnmatch

import torch

from growlib.models import Tagged, whiten
from growlib.trainer import Callback


class Whiten(Callback):
    """Gives a layer the filters that make the patches of the training images white, once, before a task; see `whiten`.

    In a model that knows tasks it is the layer's block of that task: stand it behind the callback that makes it.

    Args:
        layer: The name of a convolution, or of a tagged one.
        examples: The number of training images that are looked at.
    """

    remembers = ("done",)

    def __init__(self, layer: str = "stem", examples: int = 5000):
        self.layer, self.examples, self.done = layer, examples, []  # the names of the layers that have been whitened

    def before_task(self, trainer):
        data, layer, name = trainer.data, trainer.model.get_submodule(self.layer), self.layer
        if isinstance(layer, Tagged):
            number = trainer.model.number(data.name)
            layer, name = layer.block(number), f"{name}.blocks.{number}"
        if layer is None or name in self.done:  # a task may have no block of its own
            return
        index = torch.arange(min(self.examples, len(data.train)), device=trainer.device)
        whiten(layer, data.batch("train", index)[0])
        self.done.append(name)
        trainer.forget_model()


class Freeze(Callback):
    """Stops training some parameters once a task has had its first epochs.

    Args:
        names: Of the parameters, with * for anything: "stem*bias".
        after: Epochs of the task.
    """

    def __init__(self, names: str, after: int):
        self.names, self.after = names, after

    def before_fit(self, trainer):
        if not any(fnmatch(name, self.names) for name, _ in trainer.model.named_parameters()):
            raise ValueError(f"Freeze: no parameter of {type(trainer.model).__name__} is called {self.names!r}")
        self.before_epoch(trainer)  # in a run that goes on in the middle of an epoch

    def before_epoch(self, trainer):
        if trainer.progress.task_epoch < self.after:
            return
        for name, parameter in trainer.model.named_parameters():
            if parameter.requires_grad and fnmatch(name, self.names):
                parameter.requires_grad_(False)
                trainer.forget_model()
