"""Distill: a teacher's softened answers beside the labels, to keep what a model knows or to make a small one of it."""

import torch
from torch import Tensor, nn

from growlib.continual._calls import Drawing, logits_of, two_at_least
from growlib.continual.lwf import divergence
from growlib.data import refuse_namesakes, refuse_others
from growlib.layers import evaluating, tasks_of
from growlib.models import TaskModel
from growlib.trainer import derive_seed


class Distill(Drawing):
    """Distils a teacher: the loss becomes (1 - weight) x loss + weight x temperature^2 x divergence from its answers.

    A teacher that knows the task of the batch is asked about this task. One that does not (the model as it was before
    this task) is asked about every task it knows, on the new images, and the model's heads of these tasks go on
    answering so.

    With data, every step also learns from as many of their training images as the batch has, drawn at random and each
    through the head of its task: so one compact model can take over all tasks of a finished one.

    Args:
        teacher: Called as the model is; it does not learn.
        data: Data sets of tasks that the teacher knows.
        weight: From 0 to 1, of the teacher against the labels.
        temperature: By which logits are divided; the higher, the more the small probabilities count.

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (2015), section 2.
    """

    remembers = ("draws",)

    def __init__(self, teacher: nn.Module, *data, weight: float = 0.5, temperature: float = 2.0):
        if not 0 <= weight <= 1 or not 0 < temperature < float("inf"):
            raise ValueError(
                f"Distill(weight={weight!r}, temperature={temperature!r}): the weight is a share from 0 to 1, and the "
                "temperature a finite number above 0"
            )
        self.teacher, self.data, self.weight, self.temperature = teacher, list(data), weight, temperature
        self.draws = 0  # batches of the data, in all

    def before_fit(self, trainer):
        if self.teacher is trainer.model:
            raise ValueError("the teacher is the model itself: give Distill a copy of it, copy.deepcopy(model)")
        self.teacher.to(trainer.device)
        self.data = [one.to(trainer.device) for one in self.data]

    def before_task(self, trainer):
        refuse_namesakes(*self.data, trainer.data)
        if isinstance(self.teacher, TaskModel):
            refuse_others([trainer.data], self.teacher.learned)

    def after_loss(self, trainer):
        task, known = trainer.data.name, tasks_of(self.teacher)
        if known is None or task in known:
            soft = self.distance(trainer.model, trainer.inputs, task, trainer.logits)
        else:
            soft = sum(self.distance(trainer.model, trainer.inputs, old) for old in known) / len(known)
        loss = self.mixed(trainer.batch_loss, soft)
        trainer.batch_loss = loss + self.rehearsed(trainer) if self.data else loss

    def mixed(self, hard: Tensor, soft: Tensor) -> Tensor:
        """The loss on the labels and that on the teacher's answers, weighted."""
        return (1 - self.weight) * hard + self.weight * soft

    def distance(self, model, inputs: Tensor, task: str, logits: Tensor | None = None) -> Tensor:
        """The divergence of the model's softened answers from the teacher's, in units that the labels' loss has.

        Args:
            model: Which learns.
            inputs: (B, ...).
            task: The name of the head that is asked.
            logits: What the model says, (B, classes), if that is known.
        """
        with torch.no_grad(), evaluating(self.teacher):
            wanted = logits_of(self.teacher, inputs, task)  # (B, classes)
        logits = logits_of(model, inputs, task) if logits is None else logits
        if logits.shape != wanted.shape:
            raise ValueError(
                f"of task {task!r} the teacher knows {wanted.shape[1]} classes, and the model {logits.shape[1]}"
            )
        return self.temperature**2 * divergence(logits, wanted, self.temperature)

    def rehearsed(self, trainer) -> Tensor:
        """The mean loss on images drawn from all of the data."""
        seed = derive_seed(trainer.seed, self.draws)
        generator, noise = torch.Generator().manual_seed(seed), torch.Generator(trainer.device).manual_seed(seed)
        self.draws += 1
        sizes = torch.tensor([len(one.train) for one in self.data])
        drawn = torch.randint(int(sizes.sum()), (len(trainer.inputs),), generator=generator)
        loss, first = 0.0, 0
        for one, size in zip(self.data, sizes.tolist(), strict=True):
            own = drawn[(drawn >= first) & (drawn < first + size)] - first
            first += size
            if count := len(own):
                own = two_at_least(trainer.model, own, size, f"{one.name} to rehearse")
                inputs, labels = one.batch("train", own.to(trainer.device), noise)
                logits = logits_of(trainer.model, inputs, one.name)
                soft = self.distance(trainer.model, inputs, one.name, logits)
                loss = loss + self.mixed(trainer.loss(logits, labels), soft) * count / len(drawn)
        return loss
