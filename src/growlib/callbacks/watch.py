"""Evaluate, Checkpoint and EarlyStopping: callbacks that look at how well it goes."""

from pathlib import Path

from growlib.callbacks._written import written
from growlib.data import not_test
from growlib.trainer import Callback
from growlib.when import improvement, plateau


class Evaluate(Callback):
    """Adds the loss and accuracy on another split, such as "test", to the record of every epoch: to look at only."""

    def __init__(self, split: str = "test"):
        self.split = split

    def after_epoch(self, trainer):
        found = trainer.evaluate(trainer.data, self.split)
        trainer.history.log(trainer.step, **{f"{self.split}_{name}": value for name, value in found.items()})

    def __repr__(self) -> str:
        return written(self, self.split)


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
        return written(self, best=self.column)  # the folder may move


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
        return written(self, self.when)
