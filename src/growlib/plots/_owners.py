"""Weights in the colours of the tasks that own them."""

from itertools import groupby

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from growlib.plots._style import INK, shades


def owners(weights: dict, rows: list[str], columns: list[str] | None = None) -> list[Axes]:
    """Draw weight matrices in the colours of the tasks that own their rows, the stronger the larger the weight.

    A weight is grey where its neuron belongs to an older task than what it reads: it never counts. One that is nan does
    not exist, and is left empty.

    Args:
        weights: title -> (units, inputs), an array or a tensor.
        rows: the task of every unit, in the order of time: units of a task that comes later stand further down.
        columns: the task of every input; left out, the inputs belong to nobody.

    Returns:
        One Axes a matrix.

    Raises:
        ValueError: no matrix, or tasks that are too many or too few.
    """
    if not weights:
        raise ValueError("there is nothing to draw: weights is empty")
    tasks = list(dict.fromkeys(rows))
    side = 7.6 / len(weights)
    figure, axes = plt.subplots(1, len(weights), figsize=(7.6, min(3.6, 0.3 + side)), squeeze=False)
    for ax, (title, weight) in zip(axes[0], weights.items(), strict=True):
        weight = np.asarray(weight.detach().cpu() if hasattr(weight, "detach") else weight, dtype=float)
        inputs = len(columns) if columns is not None else weight.shape[-1]
        if weight.shape != (len(rows), inputs):
            raise ValueError(
                f"{title!r} has the shape {weight.shape}, and tasks for {len(rows)} units, {inputs} inputs"
            )
        ax.imshow(_colored(weight, rows, columns, tasks), interpolation="nearest", aspect="auto")
        ax.set_title(title, fontsize="small")
        ax.grid(visible=False)
        ax.tick_params(length=0)
        ax.xaxis.tick_top()
        _name(ax, tasks, rows, "y")
        _name(ax, tasks, columns or [], "x")
        for spine in ax.spines.values():
            spine.set(visible=True, color=INK, linewidth=0.8)
    return list(axes[0])


def _colored(weight: np.ndarray, rows: list[str], columns: list[str] | None, tasks: list[str]) -> np.ndarray:
    """Red, green, blue and opacity of every weight: (units, inputs, 4)."""
    row_number = np.array([tasks.index(task) for task in rows])[:, None]
    strength = np.sqrt(np.abs(weight) / (np.nanmax(np.abs(weight), initial=0.0) or 1.0))
    picture = np.empty((*weight.shape, 4))
    picture[..., :3] = np.array([to_rgb(color) for color in shades(len(tasks))])[row_number]
    picture[..., 3] = np.where(np.isnan(weight), 0, 0.15 + 0.85 * np.nan_to_num(strength))
    if columns is not None:
        never = row_number < np.array([tasks.index(task) for task in columns])
        picture[never, :3] = to_rgb(INK)
        picture[never, 3] *= 0.5
    return picture


def _name(ax: Axes, tasks: list[str], places: list[str], axis: str) -> None:
    """Write the name of each task beside its units or above its inputs, in its colour."""
    start, middles, names = 0, [], []
    for task, run in groupby(places):
        size = len(list(run))
        middles.append(start + (size - 1) / 2)
        names.append(task)
        start += size
        if start < len(places):
            (ax.axhline if axis == "y" else ax.axvline)(start - 0.5, color=INK, linewidth=0.8)
    ax.set(**{f"{axis}ticks": middles, f"{axis}ticklabels": names})
    turned = {"rotation": 90, "va": "center"} if axis == "y" else {}
    for label, task in zip(getattr(ax, f"get_{axis}ticklabels")(), names, strict=True):
        label.set(color=shades(len(tasks))[tasks.index(task)], fontsize="small", **turned)
