"""RandomWalk: the noise of Deep Rewiring."""

import math

import torch

from growlib.layers import sparse_layers
from growlib.sparsity import CsrLinear
from growlib.trainer import Callback, derive_seed


class RandomWalk(Callback):
    """Pulls every connection towards zero and jostles it, after each step: what makes weights cross zero.

    A weight w moves by -rate * pull * sign(w) + sqrt(2 * rate * temperature) * a normal number, where rate is the
    learning rate of its parameter group. The numbers depend on the trainer's seed and on the step alone, so a run that
    resumes walks the same way. Put it before Rewire in the list.

    Args:
        pull: The slope of the penalty `pull * |w|`, as the optimizer would see it.
        temperature: Of the walk; 0 leaves the pull alone.

    Source: Bellec, Kappel, Maass, Legenstein, "Deep Rewiring: Training very sparse deep networks" (2018), algorithm 1.
    """

    def __init__(self, pull: float, temperature: float = 0.0):
        if pull < 0 or temperature < 0:
            raise ValueError(f"RandomWalk(pull={pull}, temperature={temperature}): neither can be negative")
        self.pull, self.temperature = pull, temperature

    @torch.no_grad()
    def after_step(self, trainer):
        rates = {id(p): float(group["lr"]) for group in trainer.optimizer.param_groups for p in group["params"]}
        noise = torch.Generator(trainer.device).manual_seed(derive_seed(trainer.seed, trainer.step, 0, 0, 1))
        for layer in sparse_layers(trainer.model).values():
            stored = isinstance(layer, CsrLinear)
            weight = layer.values if stored else layer.weight
            rate = rates.get(id(weight), 0.0)  # of frozen ones
            weight.sub_(rate * self.pull * weight.sign())
            if self.temperature:
                walk = torch.empty(layer.mask.shape, dtype=weight.dtype, device=weight.device)
                walk = walk.normal_(0.0, math.sqrt(2 * rate * self.temperature), generator=noise)
                weight.add_(walk[layer.mask] if stored else walk * layer.mask)
