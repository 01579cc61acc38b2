"""EWC: weights that mattered to earlier tasks are held by springs, as stiff as they mattered."""

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from growlib.continual._calls import learning, moved, on, some
from growlib.layers import evaluating, tasks_of
from growlib.numbers import is_whole
from growlib.trainer import Callback, derive_seed
from growlib.trainer.outputs import logits_in

AT_ONCE = 2**24  # numbers that the gradients of single examples may take up: 64 MB


class EWC(Callback):
    """Elastic weight consolidation: adds strength / 2 x sum of importance x (distance from where a task ended) squared.

    Its gradient is added to that of the loss, so the recorded losses are of the data alone.

    The importance is the diagonal of the Fisher information, see `fisher`, measured when a task ends. There is one
    spring for every task; since a sum of parabolas is one parabola, two numbers a weight remember them all.

    Args:
        strength: Of the penalty.
        examples: Of a task that the importance is measured on, or None for all.

    Source: Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks" (2017), equation 3.
    """

    remembers = ("importance", "anchors", "offset", "tasks")

    def __init__(self, strength: float, examples: int | None = None):
        if not 0 <= strength < math.inf:
            raise ValueError(f"EWC(strength={strength!r}): a finite number from 0 on")
        if examples is not None and not is_whole(examples):
            raise ValueError(f"EWC(examples={examples!r}): a whole number of at least 1, or None for all")
        self.strength, self.examples = strength, examples
        self.importance, self.anchors = {}, {}  # by parameter
        self.offset, self.tasks = 0.0, 0  # what the springs pull against each other; tasks remembered

    def before_fit(self, trainer):
        self.importance, self.anchors = (on(trainer.device, kept) for kept in (self.importance, self.anchors))

    @torch.no_grad()
    def after_backward(self, trainer):
        for name, distance in moved(trainer.model, self.anchors, "EWC").items():
            parameter = trainer.model.get_parameter(name)
            if parameter.grad is not None:  # nothing else moves the heads of other tasks
                parameter.grad += self.strength * self.importance[name] * distance

    def penalty(self, model: nn.Module) -> Tensor:
        """What the springs hold, the function whose gradient they add."""
        apart = moved(model, self.anchors, "EWC")
        energy = sum((self.importance[name] * distance.square()).sum() for name, distance in apart.items())
        return self.strength / 2 * (energy + self.offset)

    @torch.no_grad()
    def after_task(self, trainer):
        found = fisher(trainer.model, trainer.data, self.examples, derive_seed(trainer.seed, self.tasks))
        apart = moved(trainer.model, self.anchors, "EWC")
        for name, parameter in learning(trainer.model).items():
            if name in apart:
                old, new = self.importance[name], found[name]
                total = old + new
                share = torch.where(total > 0, new / total, 0.0)  # of the new spring
                self.offset += float((old * share * apart[name].square()).sum())
                self.anchors[name] = self.anchors[name] + share * apart[name]
                self.importance[name] = total
            else:
                self.importance[name], self.anchors[name] = found[name], parameter.detach().clone()
        self.tasks += 1


@torch.no_grad()
def fisher(model: nn.Module, data, examples: int | None = None, seed: int = 0) -> dict[str, Tensor]:
    """The diagonal of the Fisher information of every parameter that learns, on training data and in eval mode.

    For each example the gradient of the log-probability of every class is squared, and weighted by this probability;
    the mean over examples follows. Squaring the gradient of a batch's mean loss would give another, far smaller number.

    Args:
        model: Called as model(x, data.name) if it has tasks, else as model(x), for logits (B, classes).
        data: A Dataset.
        examples: How many are drawn, or None for all.
        seed: Of the draw.

    Returns:
        Name to importance, of the parameter's shape.

    Source: Kirkpatrick et al. (2017), section 2.1; computed as "exact" in van de Ven, "On the Computation of the Fisher
    Information in Continual Learning" (2025).
    """
    parameters = {name: parameter.detach() for name, parameter in learning(model).items()}
    task = () if tasks_of(model) is None else (data.name,)

    def log_probabilities(parameters, x):
        found = logits_in(functional_call(model, parameters, (x[None], *task)))[0].log_softmax(0)  # (classes,)
        return found, found

    def squares(x):
        slopes, found = jacrev(log_probabilities, has_aux=True)(parameters, x)  # (classes, ...) each
        return {name: torch.einsum("c,c...->...", found.exp(), slope.square()) for name, slope in slopes.items()}

    index = some(len(data.train), examples, seed).to(data.device)
    room = len(data.classes) * sum(parameter.numel() for parameter in parameters.values())
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    with evaluating(model):
        for part in index.split(max(1, AT_ONCE // max(1, room))):
            for name, found in vmap(squares)(data.batch("train", part)[0]).items():
                total[name] += found.sum(0)
    return {name: values / len(index) for name, values in total.items()}
