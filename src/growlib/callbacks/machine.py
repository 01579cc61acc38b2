"""ResourceMonitor: the memory of the machine and of its accelerator, looked at and kept under a ceiling."""

import gc
from pathlib import Path

import psutil
import torch

from growlib import parallel
from growlib.trainer import Callback


class ResourceMonitor(Callback):
    """Records the most memory held in every epoch, and keeps it under a ceiling.

    Memory is read after every forward pass, when the activations are alive: the system's, and the device's where the
    model is on an accelerator. Over the ceiling the batch is halved, at equal gradients (`accumulate` doubles); if it
    is still over when the batch is down to 8, the run ends cleanly with a checkpoint.

    Args:
        ceiling: Share of the system's memory that this process may hold, and of the device's; or None.
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
        self.held = self.most = self.on_device = 0  # bytes, in this step and in this epoch; and this step on the device

    def before_epoch(self, trainer):
        self.most = 0
        if device_memory(trainer.device) is not None:
            torch.accelerator.reset_peak_memory_stats(trainer.device)

    def before_step(self, trainer):
        self.held = self.on_device = 0

    def after_loss(self, trainer):
        self.held = max(self.held, resident_bytes())
        self.most = max(self.most, self.held)
        if (found := device_memory(trainer.device)) is not None:
            self.on_device = max(self.on_device, found[0])

    def after_step(self, trainer):
        if self.ceiling is None or trainer.step < self.wait:
            return
        share, whose = max(self.shares(trainer.device))
        if share <= self.ceiling:
            return
        if trainer.batch_size > self.smallest_batch:
            trainer.accumulate *= 2
            trainer.batch_size = -(-trainer.batch_size // 2)
            self.wait = trainer.step + self.patience
            gc.collect()
            if device_memory(trainer.device) is not None:
                torch.accelerator.empty_cache()  # else what the larger batch took stays with this process
        else:
            trainer.stop_run(f"memory {share:.1%} of the {whose}'s is over the ceiling of {self.ceiling:.1%}")
            trainer.save(self.checkpoint)

    def shares(self, device: torch.device) -> list[tuple[float, str]]:
        """What the process with the most memory holds in this step, as shares of what there is, and of whose."""
        found = [(max(parallel.gathered(self.held)) / psutil.virtual_memory().total, "system")]
        if (on_device := device_memory(device)) is not None:
            found.append((max(parallel.gathered(self.on_device)) / on_device[1], "device"))
        return found

    def after_epoch(self, trainer):
        readings = {"memory_mb": max(parallel.gathered(self.most)) / 2**20}
        if device_memory(trainer.device) is not None:
            most = max(parallel.gathered(torch.accelerator.max_memory_allocated(trainer.device)))
            readings["gpu_memory_mb"] = most / 2**20
        trainer.history.log(trainer.step, **readings)


def resident_bytes() -> int:
    """The memory that this process holds (resident set size)."""
    return psutil.Process().memory_info().rss


def device_memory(device: torch.device) -> tuple[int, int] | None:
    """The bytes of an accelerator that this process holds, and all; None for a CPU, or if torch can't tell."""
    if device.type == "cpu":
        return None
    tell = torch.cuda.mem_get_info if device.type == "cuda" else getattr(torch.accelerator, "get_memory_info", None)
    try:
        return torch.accelerator.memory_reserved(device), tell(device)[1]
    except (RuntimeError, ValueError, TypeError):  # a device whose memory is not counted, or a torch that is too old
        return None
