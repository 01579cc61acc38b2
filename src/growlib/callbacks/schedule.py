"""LRSchedule: the schedules of torch, the one of the 128 -> 512 network, and a triangle."""

from inspect import signature

from torch.optim.lr_scheduler import LambdaLR

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

    A kind that needs `total_steps` and is not told gets those of the task, and every task a schedule of its own.

    Args:
        kind: Called as kind(optimizer, **settings), such as OneCycleLR.
        per: "epoch" or "step": when it advances.
        settings: For `kind`.
    """

    def __init__(self, kind, per: str = "epoch", **settings):
        if per not in ("epoch", "step"):
            raise ValueError(f"LRSchedule(per={per!r}): it advances per 'epoch' or per 'step'")
        self.kind, self.per, self.settings, self.scheduler, self.saved = kind, per, settings, None, None
        self.by_task = "total_steps" in signature(kind).parameters and not {"total_steps", "epochs"} & set(settings)

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
        length = {"total_steps": trainer.steps if self.per == "step" else trainer.epochs} if self.by_task else {}
        self.scheduler = self.kind(trainer.optimizer, **self.settings, **length)
        if self.saved is not None:
            self.scheduler.load_state_dict(self.saved)
            for group, settings in zip(groups, now, strict=True):
                group.update(settings)

    def after_step(self, trainer):
        if self.per == "step":
            self.scheduler.step()

    def after_epoch(self, trainer):
        if self.per == "epoch":
            self.scheduler.step()

    def state_dict(self) -> dict:
        return {} if self.scheduler is None else {"saved": self.scheduler.state_dict()}

    def load_state_dict(self, state: dict):
        self.saved = state.get("saved")
        if self.saved is None:  # put back to before it began
            self.scheduler = None
        elif self.scheduler is not None:
            self.scheduler.load_state_dict(self.saved)
