"""What sparse layers save: time against density, and memory part by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter

from growlib.plots._style import COLORS, INK, label_ends

if TYPE_CHECKING:
    import pandas as pd


def speedups(times: Sequence[Mapping], band: Sequence[Sequence[Mapping]] = (), ax: Axes | None = None) -> Axes:
    """Draw how many times faster than dense some ways to compute a sparse layer are, against its density.

    Args:
        times: one row a density: "density", "dense" and the time of every other way, by its name.
        band: recorded runs of the same kind, whose range is drawn in grey.
        ax: where to draw; left out, a new figure.

    Returns:
        The Axes; above the line at 1 the sparse way is the faster one.

    Raises:
        ValueError: no row, or one without the time of "dense".
    """
    import pandas as pd

    if not len(times) or any("dense" not in row or "density" not in row for row in times):
        raise ValueError("there is nothing to draw: every row needs its density and the time of 'dense'")
    ax, factors = ax or plt.figure().add_subplot(), _factors(times)
    ax.set(xscale="log", yscale="log")
    ax.axhline(1, color=INK, linewidth=1.4, linestyle=(0, (4, 2)), gid="break-even")
    recorded = pd.concat([_factors(rows) for rows in band]).groupby(level=0).agg(["min", "max"]) if band else {}
    ends = []
    for color, way in zip(COLORS, factors, strict=False):
        if way in recorded:
            reach = recorded[way]
            ax.fill_between(reach.index, reach["min"], reach["max"], color=INK, alpha=0.3, linewidth=0, gid="band")
        ax.plot(factors.index, factors[way], color=color, marker="o", markersize=5)
        ends.append((factors[way].iloc[-1], way, color))
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    ax.yaxis.set_major_formatter("{x:g} x")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_locator(NullLocator())
    ax.set(xlabel="density", title="speed, dense is 1")
    label_ends(ax, ends)
    return ax


def _factors(times: Sequence[Mapping]) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(times).set_index("density").sort_index()
    return frame.drop(columns="dense").rdiv(frame["dense"], axis=0)


def bills(found: Mapping[str, Mapping[str, int]], ax: Axes | None = None) -> Axes:
    """Draw memory bills as bars of stacked parts, one below the other.

    Args:
        found: name -> bytes by part, as `costs.memory` gives them ("total" is left out).
        ax: where to draw; left out, a new figure.

    Returns:
        The Axes, in MB.

    Raises:
        ValueError: no bill.
    """
    import pandas as pd

    if not found:
        raise ValueError("there is nothing to draw: no bill was given")
    frame = pd.DataFrame(found).T.drop(columns="total", errors="ignore").fillna(0) / 2**20
    ax = ax or plt.figure(figsize=(5.6, 1.2 + 0.5 * len(frame))).add_subplot()
    left = pd.Series(0.0, frame.index)
    for color, part in zip(COLORS, frame, strict=False):
        ax.barh(frame.index, frame[part], left=left, color=color, height=0.6, label=part)
        left += frame[part]
    for place, total in enumerate(left):
        ax.annotate(f" {total:.1f}", (total, place), va="center")
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set(xlabel="MB", xlim=(0, left.max() * 1.12))
    ax.legend(ncols=3, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
    return ax
