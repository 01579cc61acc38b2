"""The connections of a small network, each a line: which inputs are read, and what leads from there to the outputs."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from growlib.plots._style import INK, PALETTE


def wiring(weights, shown, inputs, outputs, ax: Axes | None = None) -> Axes:
    """Draw every connection of a chain of linear layers: blue ones excite, orange ones inhibit, others are faint.

    Hidden units stand near those that they read, so that few lines cross; units without any connection are left out.

    Args:
        weights: of every layer, (outputs, inputs), zero or not; the first reads the inputs.
        shown: of every layer the connections in colour, boolean, weight-shaped.
        inputs: names of the inputs.
        outputs: names of the outputs.
        ax: where to draw; left out, a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: layers that do not fit together, or names that are too many or too few.
    """
    weights, shown = [_array(weight) for weight in weights], [_array(mask).astype(bool) for mask in shown]
    sizes = [len(inputs), *map(len, weights)]
    wanted = [(after, before) for before, after in pairwise(sizes)]
    if not [w.shape for w in weights] == [mask.shape for mask in shown] == wanted or sizes[-1] != len(outputs):
        shapes = ", ".join(f"{weight.shape} with {mask.shape}" for weight, mask in zip(weights, shown, strict=False))
        raise ValueError(f"{len(inputs)} inputs and {len(outputs)} outputs do not fit layers of {shapes}")
    ax = ax or plt.figure(figsize=(5.6, 3.8)).add_subplot()
    heights = [np.linspace(1, 0, len(inputs) + 2)[1:-1]]
    for weight in weights[:-1]:
        heights.append(_near(weight != 0, heights[-1]))
    heights.append(np.linspace(1, 0, len(outputs) + 2)[1:-1])
    for layer, (weight, mask) in enumerate(zip(weights, shown, strict=True)):
        _draw(ax, layer, weight, mask, heights[layer], heights[layer + 1])
    ax.set(xlim=(-0.05, len(weights) + 0.05), ylim=(0, 1))
    ax.axis("off")
    for names, place, side in ((inputs, 0, "right"), (outputs, len(weights), "left")):
        gap = -0.06 if side == "right" else 0.06
        for name, height in zip(names, heights[place], strict=True):
            ax.annotate(name, (place + gap, height), ha=side, va="center", annotation_clip=False)
    return ax


def _near(there: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Heights for units: in the order of the mean height of what they read, evenly spread."""
    reads = there.sum(1)
    wanted = np.where(reads > 0, there @ below / np.maximum(reads, 1), 0.5)
    places = np.empty(len(there))
    places[np.argsort(-wanted, kind="stable")] = np.linspace(0.98, 0.02, len(there))
    return places


def _draw(ax: Axes, layer: int, weight: np.ndarray, mask: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    strength = np.abs(weight) / max(np.abs(weight).max(), 1e-12)
    for chosen, color in (
        (~mask, INK),
        (mask & (weight > 0), PALETTE["blue"]),
        (mask & (weight < 0), PALETTE["orange"]),
    ):
        rows, columns = np.nonzero(chosen & (weight != 0))
        lines = [((layer, left[column]), (layer + 1, right[row])) for row, column in zip(rows, columns, strict=True)]
        if not lines:
            continue
        size = strength[rows, columns]
        alpha = 0.25 if color == INK else 0.25 + 0.75 * size
        ax.add_collection(LineCollection(lines, colors=color, linewidths=0.4 + 1.6 * size, alpha=alpha))


def _array(values) -> np.ndarray:
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
