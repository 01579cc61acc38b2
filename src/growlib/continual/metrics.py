"""How well a sequence of tasks is kept: the matrix of accuracies, and the numbers that are read from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from growlib.data import SPLITS, refuse_namesakes
from growlib.layers import tasks_of
from growlib.trainer import Callback

if TYPE_CHECKING:
    import pandas as pd


class Accuracies(Callback):
    """After every task, records the accuracy on every data set whose task the model knows: a row of the matrix.

    Into History go `learned`, the name of the task just learned, and a column such as `test_accuracy_mnist` for each
    data set: to look at only.

    Args:
        data: Datasets of different names.
        split: "test", or "val" to choose by.
    """

    def __init__(self, *data, split: str = "test"):
        names = [one.name for one in data]
        if not data or len(set(names)) < len(names):
            raise ValueError(
                f"Accuracies needs data sets of different names, and got {', '.join(names) or 'none'}: "
                "load(source, name='second') gives one"
            )
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
        self.data, self.split = data, split

    def before_task(self, trainer):
        refuse_namesakes(*self.data, trainer.data, splits=(self.split,))

    def after_task(self, trainer):
        known = tasks_of(trainer.model)
        found = {
            f"{self.split}_accuracy_{data.name}": trainer.evaluate(data, self.split)["accuracy"]
            for data in self.data
            if known is None or data.name in known
        }
        trainer.history.log(trainer.step, learned=trainer.data.name, **found)


def accuracy_matrix(history, split: str = "test") -> pd.DataFrame:
    """The accuracies that `Accuracies` recorded.

    Args:
        history: A History, or its list of records.
        split: As it was given to Accuracies.

    Returns:
        A row for every task learned, a column for every task; nan where the model did not know a task yet.

    Raises:
        ValueError: For a history without them.

    Source: Lopez-Paz, Ranzato, "Gradient Episodic Memory for Continual Learning" (2017), the matrix R of section 2.
    """
    import pandas as pd

    records = [record for record in getattr(history, "records", history) if "learned" in record]
    prefix, learned = f"{split}_accuracy_", [record["learned"] for record in records]
    rows = [{k.removeprefix(prefix): v for k, v in record.items() if k.startswith(prefix)} for record in records]
    if not any(rows):
        raise ValueError(f"no column {prefix}... in History: train with Accuracies(*data, split={split!r})")
    tasks = dict.fromkeys([*learned, *(task for row in rows for task in row)])
    frame = pd.DataFrame(rows, index=pd.Index(learned, name="after"), columns=list(tasks), dtype=float)
    return frame.dropna(axis=1, how="all")


def average_accuracy(matrix: pd.DataFrame) -> float:
    """The mean accuracy over all tasks that are known, after the last one.

    Source: Lopez-Paz, Ranzato (2017), ACC.
    """
    return float(matrix.iloc[-1].mean())


def forgetting(matrix: pd.DataFrame) -> float:
    """The mean, over the tasks before the last one, of the best accuracy that a task ever had less its last one.

    Raises:
        ValueError: For a single task.

    Source: Chaudhry et al., "Riemannian Walk for Incremental Learning" (2018), the measure F_k for the last task k.
    """
    tasks = _before_the_last(matrix, "forgetting")
    return float((matrix.iloc[:-1][tasks].max() - matrix.iloc[-1][tasks]).mean())


def backward_transfer(matrix: pd.DataFrame) -> float:
    """The mean, over the tasks before the last one, of the last accuracy less the one right after learning the task.

    Raises:
        ValueError: For a single task.

    Source: Lopez-Paz, Ranzato (2017), BWT.
    """
    tasks = _before_the_last(matrix, "backward transfer")
    first = matrix[~matrix.index.duplicated()]
    return float(sum(matrix.iloc[-1][task] - first.loc[task, task] for task in tasks) / len(tasks))


def forward_transfer(matrix: pd.DataFrame, chance: float | Mapping[str, float]) -> float:
    """The mean, over the tasks after the first one, of the accuracy right before learning a task less chance.

    Args:
        matrix: See `accuracy_matrix`. The model must know every task before it learns it.
        chance: The accuracy of a network that has learned nothing, for all tasks or by task.

    Raises:
        ValueError: For a single task, or an accuracy that is not known.

    Source: Lopez-Paz, Ranzato (2017), FWT.
    """
    import pandas as pd

    _before_the_last(matrix, "forward transfer")
    gains = []
    for row, task in enumerate(matrix.index[1:]):
        before = matrix.iloc[row][task]
        if pd.isna(before):
            raise ValueError(
                f"the model did not know {task!r} when it had learned {matrix.index[row]!r}: forward transfer needs "
                "one head for all tasks, or heads for all tasks from the start"
            )
        gains.append(before - (chance[task] if isinstance(chance, Mapping | pd.Series) else chance))
    return float(sum(gains) / len(gains))


def _before_the_last(matrix: pd.DataFrame, what: str) -> list[str]:
    tasks = [task for task in dict.fromkeys(matrix.index) if task != matrix.index[-1]]
    if not tasks:
        raise ValueError(f"{what} needs at least two tasks, and the matrix has {list(matrix.index)}")
    if strangers := [task for task in dict.fromkeys(matrix.index) if task not in matrix]:
        raise ValueError(f"{what}: pass the data of {', '.join(strangers)} to Accuracies too")
    return tasks
