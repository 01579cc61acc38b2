"""Joint: all tasks at once, the upper bound that no sequence is allowed."""

import torch

from growlib.continual._calls import Drawing, logits_of
from growlib.data import refuse_namesakes
from growlib.layers import tasks_of
from growlib.trainer import derive_seed


class Joint(Drawing):
    """Adds a batch of every other task to every step: the loss is the mean over all tasks that the model knows.

    It breaks the rule of the game, that data of other tasks are gone. With a model that knows all tasks from the start,
    one `fit` on any of the data sets trains all of them.

    Args:
        data: Datasets.
    """

    remembers = ("draws",)

    def __init__(self, *data):
        if not data:
            raise ValueError("Joint() has nothing to learn beside the task: pass the data sets of all tasks")
        self.data, self.draws = data, 0

    def before_fit(self, trainer):
        self.data = [data.to(trainer.device) for data in self.data]

    def before_task(self, trainer):
        refuse_namesakes(*self.data, trainer.data)

    def after_loss(self, trainer):
        known = tasks_of(trainer.model)
        others = [data for data in self.data if data.name != trainer.data.name]
        others = others if known is None else [data for data in others if data.name in known]
        loss = trainer.batch_loss
        for data in others:
            inputs, labels = self.drawn(trainer, data)
            loss = loss + trainer.loss(logits_of(trainer.model, inputs, data.name), labels)
        trainer.batch_loss = loss / (1 + len(others))

    def drawn(self, trainer, data):
        """As many training examples of a data set as the batch has."""
        seed = derive_seed(trainer.seed, self.draws)
        self.draws += 1
        order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))
        index = order[: len(trainer.inputs)].to(trainer.device)
        return data.batch("train", index, torch.Generator(trainer.device).manual_seed(seed))
