"""GEM and A-GEM: a step may not make what is remembered worse, to first order."""

import math

import torch
from torch import Tensor, nn

from growlib.continual._calls import learning, logits_of, two_at_least
from growlib.continual.memory import Memory


class GEM(Memory):
    """Gradient episodic memory: turns the gradient as little as it takes to harm no earlier task.

    In every step the gradient of each earlier task is measured on all that is remembered of it. Where the step would
    raise one of these losses, the gradient is replaced by the nearest one that raises none.

    Args:
        memory: Examples kept of all tasks together.
        margin: The least weight that every earlier task's gradient gets in such a step; more than 0 favours old tasks.

    Source: Lopez-Paz, Ranzato, "Gradient Episodic Memory for Continual Learning" (2017), equations 8 to 11.
    """

    def __init__(self, memory: int, margin: float = 0.0):
        if not 0 <= margin < math.inf:
            raise ValueError(f"GEM(margin={margin!r}): a finite number from 0 on")
        super().__init__(memory)
        self.margin = margin

    def after_backward(self, trainer):
        old = [self.gradient(trainer, name, data) for name, data in self.kept.items() if name != trainer.data.name]
        if old:
            now = gradients(trainer.model)
            turned = projected(now, torch.stack(old), self.margin)
            if turned is not now:
                put(trainer.model, turned)

    def gradient(self, trainer, task: str, data) -> Tensor:
        """That of the mean loss over all that is remembered of a task, (parameters,)."""
        index, size = torch.arange(len(data.train), device=trainer.device), len(data.train)
        index = two_at_least(trainer.model, index, size, f"task {task!r} in the memory")
        inputs, labels = data.batch("train", index)
        return slope(trainer.model, trainer.loss(logits_of(trainer.model, inputs, task), labels))


class AGEM(Memory):
    """Averaged GEM: one condition in place of one a task, on as many remembered examples as the batch has new ones.

    Args:
        memory: Examples kept of all tasks together.

    Source: Chaudhry et al., "Efficient Lifelong Learning with A-GEM" (2019), equation 11.
    """

    def before_step(self, trainer):
        super().before_step(trainer)
        self.count = 0  # of the examples of this step

    def after_loss(self, trainer):
        self.count += len(trainer.inputs)

    def after_backward(self, trainer):
        if any(name != trainer.data.name for name in self.kept):
            now, old = gradients(trainer.model), slope(trainer.model, self.remembered(trainer, self.count))
            if (product := now @ old) < 0:
                put(trainer.model, now - product / (old @ old) * old)


def projected(gradient: Tensor, old: Tensor, margin: float = 0.0) -> Tensor:
    """The vector nearest to a gradient that has no negative inner product with any of some others.

    Args:
        gradient: (parameters,).
        old: One row for each of the others, (tasks, parameters).
        margin: The least weight of every row in what is added to the gradient.

    Returns:
        (parameters,): the gradient itself if it has no negative inner product.

    Source: Lopez-Paz, Ranzato (2017), equation 11: the dual problem, in as many unknowns as there are tasks.
    """
    rows, wanted = old.double(), gradient.double()
    inner = rows @ wanted  # (tasks,)
    if (inner >= 0).all():
        return gradient
    products = rows @ rows.T  # (tasks, tasks)
    weights = margin + nonnegative(products, inner + margin * products.sum(1))
    return (wanted + weights @ rows).to(gradient)


def nonnegative(matrix: Tensor, vector: Tensor) -> Tensor:
    """Minimises x' matrix x / 2 + vector' x over all x of numbers from 0 on, exactly.

    Args:
        matrix: Of inner products, (n, n) in float64.
        vector: (n,).

    Source: Lawson, Hanson, "Solving Least Squares Problems" (1974), chapter 23: the active-set method NNLS.
    """
    found, free = torch.zeros_like(vector), torch.zeros_like(vector, dtype=torch.bool)
    tolerance = 1e-12 * max(1e-300, float(vector.abs().max()))
    for _ in range(3 * len(vector)):
        slope = torch.where(free, torch.inf, matrix @ found + vector)
        if slope.min() >= -tolerance:
            break
        free[slope.argmin()] = True
        while True:
            best = torch.zeros_like(found)
            best[free] = -torch.linalg.pinv(matrix[free][:, free], hermitian=True) @ vector[free]
            if (best[free] > 0).all():
                break
            falling = free & (best <= 0)
            part = (found[falling] / (found[falling] - best[falling])).min()
            found = found + part * (best - found)
            free &= found > 0
        found = best
    return found


def slope(model: nn.Module, loss: Tensor) -> Tensor:
    """The gradient of a loss over all parameters that learn, in one row; zeros where it does not depend on them."""
    parameters = list(learning(model).values())
    if not loss.requires_grad:  # all that it depends on is frozen
        return flat(parameters, [None] * len(parameters))
    return flat(parameters, torch.autograd.grad(loss, parameters, allow_unused=True))


def gradients(model: nn.Module) -> Tensor:
    """The gradients that backward() left, in one row."""
    parameters = list(learning(model).values())
    return flat(parameters, [parameter.grad for parameter in parameters])


def flat(parameters: list[Tensor], gradients) -> Tensor:
    """Gradients in one row, (parameters,): zeros where there is none."""
    pairs = zip(parameters, gradients, strict=True)
    return torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in pairs])


def put(model: nn.Module, gradient: Tensor):
    """Replaces the gradients by those of one row."""
    parameters = list(learning(model).values())
    for parameter, part in zip(parameters, gradient.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter).clone()
