"""Batch: the examples of one step, drawn anew from a few numbers at any time and on any rank."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from growlib import parallel


@dataclass(slots=True)
class Batch:
    """The examples of one optimizer step, a pure function of these numbers.

    Args:
        seed: Of the trainer.
        epoch: Decides the order of the examples.
        step: Decides the augmentation.
        start: The first example, in that order.
        size: Examples a forward pass.
        passes: Forward passes, whose gradients add up.
    """

    seed: int
    epoch: int
    step: int
    start: int
    size: int
    passes: int

    def index(self, data) -> Tensor:
        """Which examples of the training data: size x passes of them, or fewer at the end of an epoch."""
        order = shuffled(len(data.train), self.seed, self.epoch, data.device)
        return order[self.start : self.start + self.size * self.passes]

    def count(self, data) -> int:
        """The number of these examples."""
        return min(self.size * self.passes, len(data.train) - self.start)

    def parts(self, data) -> Iterator[tuple[Tensor, Tensor, float, bool]]:
        """For every forward pass this rank's inputs and labels, what their mean loss weighs, and whether it is last.

        Ranks average their gradients, so the weights add up to the number of ranks.
        """
        noise, index = None, self.index(data)
        if data.augments:
            noise = torch.Generator(data.device)
            noise.manual_seed(derive_seed(self.seed, self.step, 1 + parallel.rank()))
        parts = index.split(self.size)
        for number, part in enumerate(parts, 1):
            mine, share = parallel.portion(part, len(index))
            examples = data.batch("train", mine, noise, self.mirrored(data, mine))
            yield *examples, share * parallel.world(), number == len(parts)

    def mirrored(self, data, index: Tensor) -> Tensor | None:
        """Which examples are mirrored where that alternates, (B,): one half in even epochs, the other in odd ones."""
        if data.flip != "alternating":
            return None
        return halves(len(data.train), self.seed, data.device)[index] ^ bool(self.epoch % 2)


@lru_cache(maxsize=2)
def shuffled(size: int, seed: int, epoch: int, device: torch.device) -> Tensor:
    """The order of the training examples in an epoch, (size,)."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(derive_seed(seed, epoch))).to(device)


@lru_cache(maxsize=2)
def halves(size: int, seed: int, device: torch.device) -> Tensor:
    """One half of the training examples, drawn once for a run: (size,) of bool."""
    return (torch.rand(size, generator=torch.Generator().manual_seed(derive_seed(seed, 0, 0, 0, 2))) < 0.5).to(device)


def derive_seed(*numbers: int) -> int:
    """A seed for torch made of several numbers (torch's generators look at 32 bits only)."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
