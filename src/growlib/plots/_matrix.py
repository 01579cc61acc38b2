"""The picture of a memory: how well every task is known after every task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from growlib.plots._style import PALETTE

if TYPE_CHECKING:
    import pandas as pd

# White numbers stand out 4.5:1 on every colour of it, so that the cells look the same on a white and on a dark page.
_KNOWN = LinearSegmentedColormap.from_list("known", [PALETTE["orange"], "#806a85", PALETTE["blue"]])


def accuracy_matrix(matrix, axes=None) -> Axes | list[Axes]:
    """Draw accuracies, a row after every task and a column for every task: blue where it is known, orange at 0 %.

    Cells of tasks that were still to come are left out.

    Args:
        matrix: from `growlib.continual.accuracy_matrix`; or several, title -> matrix, to stand side by side.
        axes: where to draw, one Axes a matrix; left out, a new figure.

    Returns:
        The Axes; of several matrices a list.

    Raises:
        ValueError: no number to draw.
    """
    several = isinstance(matrix, dict)
    matrices = matrix if several else {"": matrix}
    if not matrices or any(not one.notna().to_numpy().any() for one in matrices.values()):
        raise ValueError("there is nothing to draw: no accuracy is known")
    if axes is None:
        rows, columns = np.max([one.shape for one in matrices.values()], axis=0)
        width = 5.6 if several else min(5.6, 1.6 + 0.8 * columns)
        height = 0.9 + (width - 1.1) / len(matrices) * 0.8 * rows / columns
        _, axes = plt.subplots(1, len(matrices), figsize=(width, min(height, 5)), squeeze=False)
        axes = list(axes.flat)
    axes = list(axes) if isinstance(axes, list | np.ndarray) else [axes]
    for ax, (title, one) in zip(axes, matrices.items(), strict=True):
        _draw(ax, one, title, small=len(matrices) > 1)
    for ax in axes[1:]:
        ax.tick_params(labelleft=False)
    return axes if several else axes[0]


def _draw(ax: Axes, matrix: pd.DataFrame, title: str, small: bool) -> None:
    first = {task: list(matrix.index).index(task) for task in matrix.index}  # the row where a task is learned
    decimals = 1 if matrix.shape[1] <= 6 and not small else 0
    for row, column in np.argwhere(matrix.notna().to_numpy()):
        if first.get(matrix.columns[column], 0) > row:
            continue
        value = matrix.iloc[row, column]
        ax.add_patch(Rectangle((column - 0.47, row - 0.46), 0.94, 0.92, color=_KNOWN(value), linewidth=0))
        text = f"{100 * value:.{decimals}f}"
        ax.text(column, row, text, ha="center", va="center", color="white", fontsize="x-small" if small else "small")
    ax.set(xlim=(-0.5, matrix.shape[1] - 0.5), ylim=(len(matrix) - 0.5, -0.5), title=title)
    turned = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if _long(matrix.columns, small) else {}
    ax.set_xticks(range(matrix.shape[1]), matrix.columns, fontsize="small", **turned)
    ax.set_yticks(range(len(matrix)), [f"after {name}" for name in matrix.index], fontsize="small")
    ax.grid(visible=False)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _long(names, small: bool) -> bool:
    return max(map(len, map(str, names))) * len(names) > (14 if small else 44)
