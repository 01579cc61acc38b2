"""LwF: on the images of the new task, the heads of the old ones go on saying what they said before."""

import math

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from growlib.continual._calls import answers, on
from growlib.layers import evaluating, tasks_of
from growlib.trainer import Callback


class LwF(Callback):
    """Learning without forgetting: distils the network of when the last task ended, through the old tasks' heads.

    Adds strength x the sum over the earlier tasks of the divergence between their old and their present probabilities,
    both softened, on the images of the new task. The old network is a copy of the weights, not of the images. (The
    paper's cross-entropy differs by a number that does not depend on the weights. Its warm-up of the new head is left
    out.)

    Args:
        strength: Of this loss, the paper's lambda_o.
        temperature: By which logits are divided; the higher, the more the small probabilities count.

    Source: Li, Hoiem, "Learning without Forgetting" (2016), equations 2 and 3.
    """

    remembers = ("tasks", "teacher")

    def __init__(self, strength: float, temperature: float = 2.0):
        if not 0 <= strength < math.inf or not 0 < temperature < math.inf:
            raise ValueError(
                f"LwF(strength={strength!r}, temperature={temperature!r}): a finite number from 0 on, and one above 0"
            )
        self.strength, self.temperature = strength, temperature
        self.tasks, self.teacher = [], {}  # learned so far; the weights and buffers as they were

    def before_fit(self, trainer):
        if tasks_of(trainer.model) is None:
            raise ValueError(f"LwF needs a head for every task, and {type(trainer.model).__name__} has no `.tasks`")
        self.teacher = on(trainer.device, self.teacher)

    def after_loss(self, trainer):
        model, inputs = trainer.model, trainer.inputs
        tasks = [task for task in self.tasks if task != trainer.data.name]
        if not tasks:
            return
        with torch.no_grad(), evaluating(model):
            old = answers(model, inputs, tasks, self.teacher)  # (B, classes) each
        for logits, wanted in zip(answers(model, inputs, tasks), old, strict=True):
            distance = divergence(logits, wanted, self.temperature)
            trainer.batch_loss = trainer.batch_loss + self.strength * distance

    def after_task(self, trainer):
        self.tasks = list(dict.fromkeys([*self.tasks, trainer.data.name]))
        self.teacher = {name: tensor.detach().clone() for name, tensor in trainer.model.state_dict().items()}


def divergence(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The mean over examples of the Kullback-Leibler divergence of softened probabilities from the teacher's.

    Args:
        logits: (B, classes).
        teacher: Its logits, (B, classes).
        temperature: By which both are divided.
    """
    log_probabilities, wanted = (logits / temperature).log_softmax(1), (teacher / temperature).log_softmax(1)
    return kl_div(log_probabilities, wanted, reduction="batchmean", log_target=True)
