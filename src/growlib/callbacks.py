"""Callbacks: what happens beside the loop, each one small class."""

import gc
import inspect
import os
import sys
import warnings
from pathlib import Path

import psutil
import torch
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from growlib.data import not_test
from growlib.growth import check_growth, hidden_of, prune, widen
from growlib.inits import zero_out
from growlib.signals import magnitude
from growlib.trainer import Callback
from growlib.when import Trigger, improvement, plateau

TOLERANCE = 1e-5  # of outputs in float32 that a function-preserving init may move


def each(trainer, hidden: list) -> list:
    """All hidden layers: each decides for itself."""
    return hidden


class Widen(Callback):
    """Adds units to hidden layers.

    Args:
        by: How many, or a function of (trainer, hidden) that tells.
        when: A trigger, asked about every hidden layer after each step and each epoch.
        where: Chooses among the hidden layers, as (trainer, list of Hidden) -> list of Hidden.
        init: How they start, see `growlib.inits`.
    """

    def __init__(self, by, when: Trigger, where=each, init=zero_out):
        if isinstance(by, int) and by < 1:
            raise ValueError(f"Widen(by={by}) would add nothing: give a positive number of units")
        self.by, self.when, self.where, self.init = by, when, where, init

    def after_step(self, trainer):
        for hidden in self.where(trainer, hidden_of(trainer.model)):
            if cause := self.when(trainer, hidden):
                self.widen(trainer, hidden, cause)

    after_epoch = after_step

    def widen(self, trainer, hidden, cause: str):
        by = self.by if isinstance(self.by, int) else self.by(trainer, hidden)
        change = trainer.change(widen, hidden, by, init=self.init, cause=cause)
        found = check_growth(trainer.model, change, trainer.inputs)
        if self.init.preserves and found["moved"] > TOLERANCE:
            raise RuntimeError(
                f"widening {hidden.name!r} with {self.init.__name__} moved an output by {found['moved']:.1e} of the "
                f"largest one, more than {TOLERANCE:.0e}: the init's `preserves` is not true here"
            )
        if found["lost"]:
            raise RuntimeError(f"the optimizer does not hold {', '.join(found['lost'])}: these tensors never learn")
        for name in ("dead", "twins"):
            if len(found[name]) == change.after - change.before:
                warnings.warn(f"growlib: all new units of {hidden.name!r} are {name}: {found[name]}", stacklevel=2)

    def __repr__(self) -> str:
        return _written(self, self.by, self.when, where=self.where, init=self.init)


class Prune(Callback):
    """Removes the units of least worth from hidden layers.

    Args:
        by: How many.
        when: A trigger, asked about every hidden layer after each step and each epoch.
        score: A signal, (probe, hidden) -> worth of every unit.
    """

    def __init__(self, by: int, when: Trigger, score=magnitude):
        if by < 1:
            raise ValueError(f"Prune(by={by}) would remove nothing: give a positive number of units")
        self.by, self.when, self.score = by, when, score

    def after_step(self, trainer):
        for hidden in hidden_of(trainer.model):
            if cause := self.when(trainer, hidden):
                worst = self.score(None, hidden).argsort(stable=True)[: self.by]
                trainer.change(prune, hidden, worst.tolist(), cause=cause)

    after_epoch = after_step

    def __repr__(self) -> str:
        return _written(self, self.by, self.when, score=self.score)


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


class LRSchedule(Callback):
    """A learning-rate schedule of torch.optim.lr_scheduler, or `warmup_decay`.

    Args:
        kind: Called as kind(optimizer, **settings), such as OneCycleLR.
        per: "epoch" or "step": when it advances.
        settings: For `kind`.
    """

    def __init__(self, kind, per: str = "epoch", **settings):
        if per not in ("epoch", "step"):
            raise ValueError(f"LRSchedule(per={per!r}): it advances per 'epoch' or per 'step'")
        self.kind, self.per, self.settings, self.scheduler, self.saved = kind, per, settings, None, None

    def before_fit(self, trainer):
        if self.scheduler is None or self.scheduler.optimizer is not trainer.optimizer:
            rates = [group["lr"] for group in trainer.optimizer.param_groups]
            self.scheduler = self.kind(trainer.optimizer, **self.settings)
            if self.saved is not None:
                self.scheduler.load_state_dict(self.saved)
                for group, rate in zip(trainer.optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate

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
        if self.scheduler is not None and self.saved is not None:
            self.scheduler.load_state_dict(self.saved)

    def __repr__(self) -> str:
        return _written(self, self.kind, per=self.per, **self.settings)


class Evaluate(Callback):
    """Adds the loss and accuracy on another split, such as "test", to the record of every epoch: to look at only."""

    def __init__(self, split: str = "test"):
        self.split = split

    def after_epoch(self, trainer):
        found = trainer.evaluate(trainer.data, self.split)
        trainer.history.log(trainer.step, **{f"{self.split}_{name}": value for name, value in found.items()})

    def __repr__(self) -> str:
        return _written(self, self.split)


class Checkpoint(Callback):
    """Keeps two files in a folder after every epoch: last.pt, and best.pt by a column of History.

    Args:
        folder: Made if it is not there.
        best: The column, of validation.
    """

    def __init__(self, folder, best: str = "val_loss"):
        self.folder, self.column, self.best = Path(folder), not_test(best), None

    def after_epoch(self, trainer):
        value = improvement(self.column, trainer.history.column(self.column)[-1])
        better = self.best is None or value > self.best
        self.best = value if better else self.best
        trainer.save(self.folder / "last.pt")
        if better:
            trainer.save(self.folder / "best.pt")

    def state_dict(self) -> dict:
        return {"best": self.best}

    def __repr__(self) -> str:
        return _written(self, best=self.column)  # the folder may move


class EarlyStopping(Callback):
    """Ends the run when a column has not improved for some epochs; a change of structure starts the count anew.

    Args:
        column: Of History, but nothing measured on test data.
        patience: In epochs.
    """

    def __init__(self, column: str = "val_loss", patience: int = 5):
        self.when = plateau(column, patience, "epochs")

    def after_epoch(self, trainer):
        if cause := self.when(trainer):
            trainer.stop(cause)

    def __repr__(self) -> str:
        return _written(self, self.when)


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
        share = self.held / psutil.virtual_memory().total
        if share <= self.ceiling:
            return
        if trainer.batch_size > self.smallest_batch:
            trainer.accumulate *= 2
            trainer.batch_size = -(-trainer.batch_size // 2)
            self.wait = trainer.step + self.patience
            gc.collect()
        else:
            trainer.stop(f"memory {share:.1%} of the system's is over the ceiling of {self.ceiling:.1%}")
            trainer.save(self.checkpoint)

    def after_epoch(self, trainer):
        readings = {"memory_mb": self.most / 2**20}
        if trainer.device.type == "cuda":
            readings["gpu_memory_mb"] = torch.cuda.max_memory_allocated(trainer.device) / 2**20
        trainer.history.log(trainer.step, **readings)

    def state_dict(self) -> dict:
        return {"wait": self.wait, "most": self.most}

    def __repr__(self) -> str:
        return _written(self, ceiling=self.ceiling, patience=self.patience)


def resident_bytes() -> int:
    """The memory that this process holds (resident set size)."""
    return psutil.Process().memory_info().rss


class ProgressBar(Callback):
    """A bar that leaves one line behind; quiet where the environment variable CI is set."""

    bar = None

    def before_fit(self, trainer):
        if not os.environ.get("CI"):
            file = _Line() if "ipykernel" in sys.modules else sys.stderr
            layout = "{percentage:3.0f}% {bar:20} {n_fmt}/{total_fmt} epochs, {elapsed}{postfix}"
            self.bar = tqdm(total=trainer.epochs, file=file, bar_format=layout)

    def after_epoch(self, trainer):
        if self.bar:
            self.bar.set_postfix(val_accuracy=f"{trainer.history.records[-1]['val_accuracy']:.4f}", refresh=False)
            self.bar.update()

    def after_fit(self, trainer):
        if self.bar:
            self.bar.close()
            self.bar = None


class _Line:
    """A file for tqdm in a notebook, whose one line is replaced: a static page shows the last state only."""

    def __init__(self):
        from IPython.display import display

        self.handle = display({"text/plain": ""}, raw=True, display_id=True)

    def write(self, text: str):
        if text.strip():
            self.handle.update({"text/plain": text.strip()}, raw=True)

    def flush(self):
        pass


def _written(callback: Callback, *values, **named) -> str:
    """How a callback would be written, the same in every process: functions by their names."""

    def text(value):
        return value.__name__ if inspect.isfunction(value) or inspect.isclass(value) else repr(value)

    parts = [*map(text, values), *(f"{name}={text(value)}" for name, value in named.items())]
    return f"{type(callback).__name__}({', '.join(parts)})"
