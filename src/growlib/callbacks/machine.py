"""ResourceMonitor and ProgressBar: callbacks that look at the machine and at the clock."""

import gc
from pathlib import Path

import psutil
import torch

from growlib import parallel
from growlib.trainer import Callback


class ResourceMonitor(Callback):
    """Records the most memory held in every epoch, and keeps it under a ceiling.

    Memory is read after every forward pass, when the activations are alive. Over the ceiling the batch is halved, at
    equal gradients (`accumulate` doubles); if it is still over when the batch is down to 8, the run ends cleanly with a
    checkpoint.

    Args:
        ceiling: Share of the system's memory that this process may hold, or None.
        checkpoint: Where to write if the run has to end.
        patience: Steps that a smaller batch gets to show its effect.
    """

    smallest_batch = 8

    remembers = ("wait", "most")
    may_differ = ("checkpoint",)  # it may move

    def __init__(self, ceiling: float | None = None, checkpoint="stopped.pt", patience: int = 20):
        if ceiling is not None and not 0 < ceiling <= 1:
            raise ValueError(f"ceiling={ceiling} must be a share of the system's memory, above 0 and at most 1")
        self.ceiling, self.checkpoint, self.patience, self.wait = ceiling, Path(checkpoint), patience, 0
        self.held = self.most = 0  # bytes, in this step and in this epoch

    def before_epoch(self, trainer):
        self.most = 0

    def before_step(self, trainer):
        self.held = 0

    def after_loss(self, trainer):
        self.held = max(self.held, resident_bytes())
        self.most = max(self.most, self.held)

    def after_step(self, trainer):
        if self.ceiling is None or trainer.step < self.wait:
            return
        share = max(parallel.gathered(self.held)) / psutil.virtual_memory().total
        if share <= self.ceiling:
            return
        if trainer.batch_size > self.smallest_batch:
            trainer.accumulate *= 2
            trainer.batch_size = -(-trainer.batch_size // 2)
            self.wait = trainer.step + self.patience
            gc.collect()
        else:
            trainer.stop_run(f"memory {share:.1%} of the system's is over the ceiling of {self.ceiling:.1%}")
            trainer.save(self.checkpoint)

    def after_epoch(self, trainer):
        readings = {"memory_mb": max(parallel.gathered(self.most)) / 2**20}
        if trainer.device.type == "cuda":
            most = max(parallel.gathered(torch.cuda.max_memory_allocated(trainer.device)))
            readings["gpu_memory_mb"] = most / 2**20
        trainer.history.log(trainer.step, **readings)


def resident_bytes() -> int:
    """The memory that this process holds (resident set size)."""
    return psutil.Process().memory_info().rss
