"""A picture of losses that are bowls over two weights: where each is low, and where training comes to rest."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse

from growlib.plots._style import COLORS, label_ends, shades

LEVELS = 0.25, 1, 2.25, 4  # of the loss


def bowls(bowls: dict, points: dict, ax: Axes | None = None) -> Axes:
    """Draw the level lines of quadratic losses of two weights, and named points.

    Args:
        bowls: name -> (steepness, lowest point), two numbers each: the loss is the sum of steepness x distance² / 2.
        points: name -> (first weight, second weight).
        ax: where to draw; left out, a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: no bowl, or one that is not steep in both directions.
    """
    if not bowls or any(min(map(float, steep)) <= 0 for steep, _ in bowls.values()):
        raise ValueError("there is nothing to draw: bowls needs a loss that rises in both directions")
    ax = ax or plt.figure(figsize=(5.6, 3.4)).add_subplot()
    for color, (name, (steep, lowest)) in zip(COLORS, bowls.items(), strict=False):
        for level in LEVELS:
            width, height = (2 * np.sqrt(2 * level / float(k)) for k in steep)
            ring = Ellipse(tuple(map(float, lowest)), width, height, fill=False, color=color, linewidth=1.3, alpha=0.7)
            ax.add_patch(ring)
        ax.plot(*map(float, lowest), marker="+", markersize=9, color=color)
        ax.annotate(f"task {name}", map(float, lowest), (6, 6), textcoords="offset points", color=color)
    ax.set(xlabel="w1", ylabel="w2", xlim=(-1.2, 2.2), ylim=(-1.2, 2.0), aspect="equal")
    ends = []
    for color, (name, place) in zip(shades(len(bowls) + len(points))[len(bowls) :], points.items(), strict=True):
        ax.plot(*map(float, place), marker="o", markersize=8, color=color)
        ends.append((float(place[1]), name, color))
    label_ends(ax, ends)
    return ax
