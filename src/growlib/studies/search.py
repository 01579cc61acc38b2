"""How large a growth should be: candidates tried in order of size, until more parameters buy too little."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import log2
from typing import TYPE_CHECKING

from growlib import costs
from growlib.layers import tasks_of

if TYPE_CHECKING:
    import pandas as pd


def search_growth(train: Callable, factors: Iterable[float], gain: float = 0.01) -> tuple[float, pd.DataFrame]:
    """Tries growth by several factors, and chooses by validation accuracy per parameter.

    From the smallest on, a larger factor is taken while it buys at least `gain` of accuracy for every doubling of the
    parameters. All are tried, so that the table shows what was left.

    Args:
        train: Called with a factor; trains a fresh copy with growth of that size and returns its Trainer.
        factors: Of the size of the growth, such as (0.5, 1, 2).
        gain: The share of validation images that twice the parameters must bring.

    Returns:
        The factor, and a table with a row for each: parameters of the newest task, val_accuracy, and the gain for a
        doubling over the row that was taken last.
    """
    import pandas as pd

    factors = sorted(factors)
    if not factors or factors[0] <= 0:
        raise ValueError(f"factors={factors} must be positive numbers, at least one")
    rows, taken = [], None
    for factor in factors:
        trainer = train(factor)
        model, value = trainer.model, trainer.history.column("val_accuracy")[-1]
        own = model.task_parameters(model.tasks[-1]).values() if tasks_of(model) else ()
        size = sum(parameter.numel() for parameter in own) or costs.parameters(model)
        row = {"factor": factor, "parameters": size, "val_accuracy": value, "gain": float("nan")}
        if taken:
            row["gain"] = (value - taken["val_accuracy"]) / max(log2(size / taken["parameters"]), 1e-9)
        if taken is None or row["gain"] >= gain:
            taken = row
        rows.append(row)
    return taken["factor"], pd.DataFrame(rows).set_index("factor")
