"""Pictures of one training history, or of the same column over many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

from growlib.plots._style import COLORS, INK, PALETTE, label_ends, shades

if TYPE_CHECKING:
    import pandas as pd

# Student's t, two-sided 95 %, for 1 to 10 degrees of freedom; beyond, an expansion that is right to 0.003.
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_NAMES = {"train": "training", "val": "validation"}


def curves(
    history, columns=("train_loss", "val_loss"), band=None, x: str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw columns of a history, with a pin wherever the network changed.

    Args:
        history: a History, or its list of records.
        columns: names of columns of the records; accuracies are shown in per cent when all of them are.
        band: recorded runs to compare with, as lists of records (one a seed) or one DataFrame: their range, in grey.
        x: "epoch" or "step"; left out, epochs, or steps where the epochs start anew with every task.
        ax: where to draw; left out, a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: a column that was not recorded, or no record at all.
    """
    frame = frame_of(history)
    x, columns = x or _default_x(frame), [columns] if isinstance(columns, str) else list(columns)
    ax = ax or plt.figure().add_subplot()
    ends = []
    if band is not None:
        ends += _draw_band(ax, _stack(band), columns, x)
    for color, column in zip(shades(len(columns)), columns, strict=True):
        points = column_of(frame, column)
        ax.plot(points[x], points[column], color=color, marker="o", markersize=4 if len(points) < 40 else 0)
        own = _words(column, columns) if len(columns) > 1 else "this run"
        ends.append((points[column].iloc[-1], own, color))
    _dress(ax, columns, x)
    mark_changes(ax, history, frame, x)
    label_ends(ax, ends if len(ends) > 1 else [])
    return ax


def compare(arms: dict, column: str = "val_accuracy", x: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the mean of a column for every arm of a comparison, with its 95 % interval over the seeds.

    Args:
        arms: name -> lists of records, one a seed (or one DataFrame); a single seed gives a line without an interval.
        column: the column to compare.
        x: "epoch" or "step"; left out, epochs, or steps where the epochs start anew with every task.
        ax: where to draw; left out, a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: no arm, or a column that was not recorded.
    """
    if not arms:
        raise ValueError("there is nothing to compare: arms is empty")
    ax = ax or plt.figure().add_subplot()
    ends = []
    for color, (name, runs) in zip(shades(len(arms)), arms.items(), strict=True):
        frame = _stack(runs)
        x = x or _default_x(frame[frame["run"] == frame["run"].iloc[0]])
        points = column_of(frame, column).groupby(x)[column].agg(["mean", "std", "count"])
        ax.plot(points.index, points["mean"], color=color)
        half = points["std"] / np.sqrt(points["count"]) * points["count"].map(_t95)
        ax.fill_between(points.index, points["mean"] - half, points["mean"] + half, color=color, alpha=0.2, linewidth=0)
        ends.append((points["mean"].iloc[-1], name, color))
    _dress(ax, [column], x)
    label_ends(ax, ends)
    return ax


def tradeoff(frame: pd.DataFrame, x: str, y: str, arm: str, point: str, ax: Axes | None = None) -> Axes:
    """Draw what every arm of a comparison buys for its price: a line through its points, with 95 % intervals.

    A ring marks the points that no other point beats: none is cheaper and at least as good (the Pareto front).

    Args:
        frame: one row a run.
        x: the column of the price, on a logarithmic axis.
        y: the column of what it buys; accuracies are shown in per cent.
        arm: the column that names the arms, one line each.
        point: the column that tells the points of an arm apart; runs that agree in both are seeds.
        ax: where to draw; left out, a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: no row.
    """
    if not len(frame):
        raise ValueError("there is nothing to draw: the frame has no row")
    ax = ax or plt.figure().add_subplot()
    means = frame.groupby([arm, point], sort=False)[[x, y]].mean()
    runs = frame.groupby([arm, point], sort=False)[y]
    half = runs.std() / np.sqrt(runs.count()) * runs.count().map(_t95)
    names, ends = list(dict.fromkeys(frame[arm])), []
    for color, name in zip(shades(len(names)), names, strict=True):
        line = means.loc[name].sort_values(x)
        ax.errorbar(line[x], line[y], half.loc[name][line.index], color=color, marker="o", markersize=5, elinewidth=1.2)
        ends.append((line[y].iloc[-1], name, color))
    cheapest = means.sort_values([x, y], ascending=[True, False])
    front = cheapest[cheapest[y] > cheapest[y].cummax().shift(fill_value=-np.inf)]
    ax.plot(front[x], front[y], "o", color=INK, markerfacecolor="none", markersize=11, markeredgewidth=1.4, gid="front")
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:,.15g}")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set(xlabel=x.replace("_", " "), title=y.replace("_", " "))
    if "accuracy" in y:
        ax.yaxis.set_major_formatter(PercentFormatter(1))
    label_ends(ax, ends)
    return ax


def resources(history) -> list[Axes]:
    """Draw what a run cost: the seconds of every epoch and, after a ResourceMonitor, the memory in use.

    Args:
        history: a History, or its list of records.

    Returns:
        The Axes of time and, where memory was recorded, of memory.

    Raises:
        ValueError: no record at all.
    """
    frame = frame_of(history)
    x = _default_x(frame)
    memory = [name for name in ("memory_mb", "gpu_memory_mb") if name in frame and frame[name].notna().any()]
    _, panels = plt.subplots(1 + bool(memory), 1, sharex=True, squeeze=False, figsize=(5.6, 4 if memory else 2.4))
    time, *rest = panels[:, 0]
    seconds = frame["seconds"].diff().fillna(frame["seconds"])
    time.plot(frame[x], seconds, color=PALETTE["blue"], marker="o", markersize=4)
    time.set_title(f"seconds per epoch ({frame['seconds'].iloc[-1]:,.1f} s in all)")
    time.set_ylim(0, seconds.max() * 1.15 or 1)
    for panel in rest:
        ends = []
        for column, color in zip(memory, COLORS, strict=False):
            panel.plot(frame[x], frame[column], color=color, marker="o", markersize=4)
            ends.append((frame[column].iloc[-1], "GPU" if column.startswith("gpu") else "process", color))
        panel.set_title(f"memory in MB (at most {frame[memory].max().max():,.0f})")
        panel.set_ylim(0, frame[memory].max().max() * 1.15 or 1)
        label_ends(panel, ends if len(ends) > 1 else [])
    for panel in panels[:, 0]:
        mark_changes(panel, history, frame, x)
    _whole(panels[-1, 0], x)
    return [time, *rest]


def frame_of(history) -> pd.DataFrame:
    """Return a history's records as a DataFrame, one row an epoch."""
    import pandas as pd

    records = getattr(history, "records", history)
    if not len(records):
        raise ValueError("there is nothing to draw: the history has no record yet (they are written after each epoch)")
    return pd.DataFrame(records)


def column_of(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the rows where `column` was recorded."""
    if column not in frame or frame[column].isna().all():
        raise ValueError(f"no column {column!r} in the history, which records {', '.join(frame)}")
    return frame.dropna(subset=column)


def mark_changes(ax: Axes, history, frame: pd.DataFrame, x: str) -> None:
    """Put a pin on the x axis wherever the network changed."""
    for step in sorted({change["step"] for change in getattr(history, "changes", ())}):
        place = np.interp(step, [0, *frame["step"]], [0, *frame["epoch"]]) if x == "epoch" else step
        ax.axvline(place, ymax=0.07, color=INK, linewidth=1.2, gid="change")
        ax.plot(place, 0.07, marker="o", markersize=5, color=INK, transform=ax.get_xaxis_transform())


def _default_x(frame: pd.DataFrame) -> str:
    return "epoch" if frame["epoch"].is_monotonic_increasing and frame["epoch"].is_unique else "step"


def _stack(runs) -> pd.DataFrame:
    import pandas as pd

    if isinstance(runs, pd.DataFrame):
        return runs if "run" in runs else runs.assign(run=runs.get("seed", 0))
    return pd.concat([frame_of(run).assign(run=number) for number, run in enumerate(runs)], ignore_index=True)


def _draw_band(ax: Axes, frame: pd.DataFrame, columns: list[str], x: str) -> list[tuple]:
    for column in columns:
        spread = column_of(frame, column).groupby(x)[column].agg(["min", "max"])
        ax.fill_between(spread.index, spread["min"], spread["max"], color=INK, alpha=0.3, linewidth=0, gid="band")
    seeds = frame["run"].nunique()
    return [((spread["min"].iloc[-1] + spread["max"].iloc[-1]) / 2, f"{seeds} recorded", INK)]


def _dress(ax: Axes, columns: list[str], x: str) -> None:
    measures = {column.split("_")[-1] for column in columns}
    if measures == {"accuracy"}:
        ax.yaxis.set_major_formatter(PercentFormatter(1))
    if len(measures) == 1:
        ax.set_title(
            " ".join(_NAMES.get(word, word) for word in columns[0].split("_")) if len(columns) == 1 else measures.pop()
        )
    _whole(ax, x)


def _whole(ax: Axes, x: str) -> None:
    ax.set_xlabel(x)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _words(column: str, columns: list[str]) -> str:
    kind, _, measure = column.partition("_")
    same = len({name.split("_")[-1] for name in columns}) == 1
    return _NAMES.get(kind, kind) if same and measure else column.replace("_", " ")


def _t95(count: int) -> float:
    if count < 2:
        return np.nan
    freedom = count - 1
    return _T95[freedom - 1] if freedom <= len(_T95) else 1.96 + 2.37 / freedom + 2.8 / freedom**2
