"""Pictures of numbers that lie in the plane, and of connections that come and go."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba

from growlib.plots._style import INK, PALETTE, shades

# Zero is the page itself, so that it is the same thing on white and on dark.
_COLORS = ("orange", 1), ("orange", 0), ("blue", 0), ("blue", 1)
_SIGNED = LinearSegmentedColormap.from_list("signed", [to_rgba(PALETTE[name], alpha) for name, alpha in _COLORS])


def maps(pictures: dict, columns: int = 4) -> list[Axes]:
    """Draw matrices side by side, each in its own scale: blue above zero, orange below, nothing at zero.

    Args:
        pictures: title -> (rows, columns), an array or a tensor.
        columns: how many stand in a row.

    Returns:
        One Axes a matrix.

    Raises:
        ValueError: nothing to draw, or something that is not a matrix.
    """
    if not pictures:
        raise ValueError("there is nothing to draw: pictures is empty")
    columns = min(columns, len(pictures))
    rows, side = -(-len(pictures) // columns), 5.6 / columns
    figure, axes = plt.subplots(rows, columns, figsize=(5.6, rows * (side + 0.3)), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (title, picture) in zip(axes.flat, pictures.items(), strict=False):
        picture = np.asarray(picture.detach().cpu() if hasattr(picture, "detach") else picture, dtype=float)
        if picture.ndim != 2:
            raise ValueError(f"{title!r} has the shape {picture.shape}: a map is a matrix")
        ax.set_axis_on()
        most = np.abs(picture).max() or 1.0
        ax.imshow(picture, cmap=_SIGNED, vmin=-most, vmax=most, interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.set_title(title, fontsize="small")
        ax.grid(visible=False)
        for spine in ax.spines.values():
            spine.set(visible=True, color=INK, linewidth=0.8)
    return list(axes.flat[: len(pictures)])


def lives(walks: list[dict], ax: Axes | None = None) -> Axes:
    """Draw what the weights of connections do from birth to death, a line each; a cross is a death.

    Args:
        walks: of each connection its "steps", its "values" (positive on its own side of zero), and whether it "died".
        ax: where to draw; left out, a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: no connection at all.
    """
    if not walks:
        raise ValueError("there is nothing to draw: no connection lived")
    ax = ax or plt.figure().add_subplot()
    for color, walk in zip(shades(len(walks)), walks, strict=True):
        ax.plot(walk["steps"], walk["values"], color=color, linewidth=1.4)
        if walk["died"]:
            ax.plot(walk["steps"][-1], walk["values"][-1], marker="x", markersize=8, markeredgewidth=2, color=color)
    ax.axhline(0, color=INK, linewidth=1)
    ax.set(xlabel="step", ylabel="weight × sign at birth")
    return ax
