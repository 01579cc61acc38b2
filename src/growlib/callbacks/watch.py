"""Evaluate, Checkpoint and EarlyStopping: callbacks that look at how well it goes."""

import math
from pathlib import Path

from growlib.data import not_test
from growlib.trainer import Callback, view_accuracy
from growlib.when import improvement, plateau


class Evaluate(Callback):
    """Adds the loss and accuracy on another split, such as "test", to the record of every epoch: to look at only.

    Args:
        split: "train", "val" or "test".
        views: Of every image, such as `mirrored`: their accuracy is recorded beside the plain one, as
            "test_accuracy_mirrored". Every view costs a forward pass; `view_accuracy` finds it once, after a run.
    """

    def __init__(self, split: str = "test", *views):
        self.split, self.views = split, views

    def after_epoch(self, trainer):
        found = trainer.evaluate(trainer.data, self.split)
        for views in self.views:
            found[f"accuracy_{views.__name__}"] = view_accuracy(trainer, trainer.data, self.split, views)
        trainer.history.log(trainer.step, **{f"{self.split}_{name}": value for name, value in found.items()})


class Checkpoint(Callback):
    """Keeps two files in a folder after every epoch: last.pt, and best.pt by a column of History.

    best.pt is written first: whatever happens between the two, a run that goes on from last.pt finds it again.

    Args:
        folder: Made if it is not there.
        best: The column, of validation.
    """

    remembers = ("value",)
    may_differ = ("folder",)  # it may move

    def __init__(self, folder, best: str = "val_loss"):
        self.folder, self.best, self.value = Path(folder), not_test(best), None

    def after_epoch(self, trainer):
        value = improvement(self.best, trainer.history.column(self.best)[-1])
        if not math.isnan(value) and (self.value is None or value > self.value):
            self.value = value
            trainer.save(self.folder / "best.pt")
        trainer.save(self.folder / "last.pt")


class EarlyStopping(Callback):
    """Ends the task when a column has not improved for some epochs; a change of structure starts the count anew.

    Args:
        column: Of History, but nothing measured on test data.
        patience: In epochs.
    """

    def __init__(self, column: str = "val_loss", patience: int = 5):
        self.column, self.patience = column, patience
        self.when = plateau(column, patience, "epochs")

    def after_epoch(self, trainer):
        if cause := self.when(trainer):
            trainer.stop_task(cause)
