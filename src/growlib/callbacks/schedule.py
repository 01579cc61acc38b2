"""LRSchedule: the schedules of torch, the one of the 128 -> 512 network, and a triangle."""

import warnings
from inspect import isclass, signature

from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from growlib.trainer import Callback


def warmup_decay(optimizer, warmup: int, decay: float, patience: float, floor: float) -> LambdaLR:
    """A schedule for LRSchedule: linear warm-up, then decay ** ((epoch - warmup) / patience), not below a floor.

    Args:
        optimizer: Whose rate it is a factor of.
        warmup: Epochs (or steps) of linear warm-up.
        decay: The factor reached `patience` epochs after the warm-up.
        patience: In epochs (or steps).
        floor: The smallest factor.
    """

    def factor(epoch):
        if epoch < warmup:
            return (epoch + 1) / (warmup + 1)
        return max(decay ** ((epoch - warmup) / patience), floor)

    return LambdaLR(optimizer, factor)


def triangle(optimizer, total_steps: int, start: float = 0.2, peak: float = 0.23, end: float = 0.07) -> LambdaLR:
    """A schedule for LRSchedule: up from a share of the rate to all of it, then down, in straight lines.

    Args:
        optimizer: Whose rates it is a factor of.
        total_steps: Steps (or epochs) of the task; LRSchedule tells it.
        start: The factor of the first step.
        peak: The share of the steps after which the factor is 1.
        end: The factor after the last step.

    Source: Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (2024), listing 4.
    """

    def factor(step):
        done = min(1.0, step / total_steps)
        if done < peak:
            return start + (1 - start) * done / peak
        return 1 + (end - 1) * (done - peak) / (1 - peak)

    return LambdaLR(optimizer, factor)


class LRSchedule(Callback):
    """A learning-rate schedule of torch.optim.lr_scheduler, `warmup_decay` or `triangle`.

    A kind that needs `total_steps` and is not told gets those of the task, and every task a schedule of its own. So has
    every task under ReduceLROnPlateau, which gets the validation loss of every epoch, and begins at the first rate.
    A schedule that has come to its end stays at its last rate, with a warning where training goes on.

    Args:
        kind: Called as kind(optimizer, **settings), such as OneCycleLR.
        per: "epoch" or "step": when it advances.
        settings: For `kind`.
    """

    def __init__(self, kind, per: str = "epoch", **settings):
        if per not in ("epoch", "step"):
            raise ValueError(f"LRSchedule(per={per!r}): it advances per 'epoch' or per 'step'")
        by_loss = isclass(kind) and issubclass(kind, ReduceLROnPlateau)
        if by_loss and per == "step":
            raise ValueError("ReduceLROnPlateau looks at the validation loss, which comes once an epoch: per='epoch'")
        self.kind, self.per, self.settings, self.scheduler, self.saved = kind, per, settings, None, None
        told = {"total_steps", "epochs"} & set(settings)
        self.needs_length = "total_steps" in signature(kind).parameters and not told
        self.by_task, self.rates = self.needs_length or by_loss, None  # of every group, at the start of the first task
        self.beyond = 0  # advances after the end

    def before_fit(self, trainer):
        resumes = self.saved is not None
        if (resumes or not self.by_task) and self._is_new(trainer):
            self.build(trainer)

    def before_task(self, trainer):
        if self.by_task:
            self.saved = None
            self.build(trainer)

    def _is_new(self, trainer) -> bool:
        return self.scheduler is None or self.scheduler.optimizer is not trainer.optimizer

    def build(self, trainer):
        """Makes the schedule; one that was saved goes on where it was."""
        groups = trainer.optimizer.param_groups
        now = [{name: value for name, value in group.items() if name != "params"} for group in groups]
        length = {"total_steps": trainer.steps if self.per == "step" else trainer.epochs} if self.needs_length else {}
        rates = [group["lr"] for group in groups]
        if self.rates is None or (self.scheduler is not None and self.scheduler.get_last_lr() != rates):
            self.rates = rates  # set by hand since
        if self.by_task:
            for group, rate in zip(groups, self.rates, strict=True):
                group["lr"] = rate
        self.scheduler, self.beyond = self.kind(trainer.optimizer, **self.settings, **length), 0
        if self.saved is not None:
            self.scheduler.load_state_dict(self.saved)
            for group, settings in zip(groups, now, strict=True):
                group.update(settings)

    def after_step(self, trainer):
        if self.per == "step":
            self.advance(trainer)

    def after_epoch(self, trainer):
        if self.per == "epoch":
            self.advance(trainer)

    def advance(self, trainer):
        """Sets the rates of what comes next."""
        total = getattr(self.scheduler, "total_steps", None)
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(trainer.history.column("val_loss")[-1])
        elif total is None or self.scheduler.last_epoch < total - 1:
            self.scheduler.step()
        else:
            self.beyond += 1  # the first is that of the last step
            if self.beyond == 2:
                rate = trainer.optimizer.param_groups[0]["lr"]
                warnings.warn(
                    f"{type(self.scheduler).__name__} was made for {total} {self.per}s, and training goes on: the rate "
                    f"stays at {rate:.3g}. Raise total_steps, or leave it out, and every task gets its own schedule",
                    stacklevel=2,
                )

    def state_dict(self) -> dict:
        return {} if self.scheduler is None else {"saved": self.scheduler.state_dict(), "rates": self.rates}

    def load_state_dict(self, state: dict):
        self.saved, self.rates, self.beyond = state.get("saved"), state.get("rates"), 0
        if self.saved is None:  # put back to before it began
            self.scheduler = None
        elif self.scheduler is not None:
            self.scheduler.load_state_dict(self.saved)
