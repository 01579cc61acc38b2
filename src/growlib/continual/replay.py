"""Replay: some examples of the earlier tasks are kept, and learned again beside the new ones."""

import math

from growlib.continual.memory import Memory


class Replay(Memory):
    """Experience replay: adds the loss on as many remembered examples as the batch has new ones.

    Args:
        memory: Examples kept of all tasks together, see `Memory`.
        weight: Of their loss; that of the new examples counts 1.

    Source: Chaudhry et al., "On Tiny Episodic Memories in Continual Learning" (2019).
    """

    def __init__(self, memory: int, weight: float = 1.0):
        if not 0 <= weight < math.inf:
            raise ValueError(f"Replay(weight={weight!r}): a number from 0 on")
        super().__init__(memory)
        self.weight = weight

    def after_loss(self, trainer):
        if self.kept:
            trainer.batch_loss = trainer.batch_loss + self.weight * self.remembered(trainer, len(trainer.inputs))
