"""How connections move: the pixels that a network reads, its weights over time, and the page of a rewired run."""

import base64
import io

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

from growlib.plots._scrubber import Scrubber, scrubber
from growlib.plots._style import INK, PALETTE, label_ends, shades

_SHELL = """<style>.growlib-pixels{display:grid;grid-template-columns:3fr 2fr;gap:1rem;align-items:center}
.growlib-pixels p{margin:0 0 .6rem}.growlib-pixels b{display:block;font-size:1.5em;line-height:1.2}
.growlib-pixels img{image-rendering:pixelated;border:1px solid #76808d}</style><div class="slot">$frame</div>"""


def pixels(arms: dict[str, list[dict]]) -> Scrubber:
    """A map of the inputs under a slider: the bluer a pixel, the more connections read it; beside it what moved.

    Args:
        arms: name -> moments of a run, each a dict: `read`, connections of every pixel (H, W); `connections`, their
            number in the model; `turnover`, the share that moved since the moment before; `label`, a text.

    Returns:
        An object that a notebook shows as its last expression.

    Raises:
        ValueError: an arm without a moment.
    """
    if not arms or not all(arms.values()):
        raise ValueError(f"every arm needs at least one moment: { ({name: len(rows) for name, rows in arms.items()}) }")
    most = max(np.asarray(row["read"]).max() for rows in arms.values() for row in rows)
    highest = max(row["turnover"] for rows in arms.values() for row in rows) or 1.0
    frames, labels, alts = {}, {}, {}
    for name, rows in arms.items():
        line = _points([row["turnover"] / highest for row in rows])
        frames[name] = [_moment(row, most, line, place) for place, row in enumerate(rows)]
        labels[name] = [row["label"] for row in rows]
        alts[name] = [f"{name}, {row['label']}: {_told(np.asarray(row['read']))}" for row in rows]
    found = scrubber(frames, labels, alts)
    return Scrubber(found.arms, _SHELL)


def _moment(row: dict, most: float, line: list[tuple[float, float]], place: int) -> str:
    read = np.asarray(row["read"], float)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
    x, y = line[place]
    return (
        f'<div class="growlib-pixels">{_picture((read / most) ** 0.5, PALETTE["blue"])}<div>'
        f"<p><b>{row['connections']:,}</b>connections</p>"
        f"<p><b>{(read == 0).mean():.0%}</b>of the pixels are not read</p>"
        f"<p><b>{row['turnover']:.0%}</b>of the connections moved</p>"
        f'<svg viewBox="-2 -4 104 48" aria-hidden="true"><path d="M0 40H100" stroke="{INK}" fill="none"/>'
        f'<polyline points="{path}" fill="none" stroke="{PALETTE["orange"]}" stroke-width="1.5"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{PALETTE["orange"]}"/></svg></div></div>'
    )


def _points(values: list[float]) -> list[tuple[float, float]]:
    step = 100 / max(1, len(values) - 1)
    return [(step * place, 40 - 40 * value) for place, value in enumerate(values)]


def _told(read: np.ndarray) -> str:
    height, width = read.shape
    middle = read[height // 4 : height - height // 4, width // 4 : width - width // 4]
    return f"{middle.sum() / max(1, read.sum()):.0%} of the connections read the middle quarter of the image"


def weights(moments: list, labels: list[str]) -> Scrubber:
    """A weight under a slider, one dot a connection: blue ones excite, orange ones inhibit, absent ones are empty.

    Args:
        moments: the weight (outputs, inputs) at several moments, zero where there is no connection.
        labels: one text a moment.

    Returns:
        An object that a notebook shows as its last expression.
    """
    moments = [np.asarray(weight, float) for weight in moments]
    most = max(np.abs(weight).max() for weight in moments)
    frames = [_picture(np.abs(w / most) ** 0.5, PALETTE["blue"], PALETTE["orange"], w < 0) for w in moments]
    alts = [f"{label}: {np.count_nonzero(w):,} of {w.size:,} weights" for w, label in zip(moments, labels, strict=True)]
    return Scrubber(scrubber(frames, labels, alts).arms, _SHELL)


def _picture(strength: np.ndarray, color: str, other: str | None = None, where=False) -> str:
    """An image of one pixel a value, transparent where it is 0."""
    rgba = np.empty((*strength.shape, 4))
    rgba[..., :3] = to_rgb(color)
    if other is not None:
        rgba[where, :3] = to_rgb(other)
    rgba[..., 3] = np.where(strength > 0, 0.15 + 0.85 * strength, 0)
    file = io.BytesIO()
    plt.imsave(file, rgba, format="png")
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="" style="image-rendering:pixelated" src="data:image/png;base64,{data}">'


def sparsity(history) -> Figure:
    """The page of a rewired run: for every layer its connections, turnover, explored weights and their age.

    Args:
        history: of a run with Rewire, or its records.

    Returns:
        The Figure.

    Raises:
        ValueError: a run that did not rewire.
    """
    import pandas as pd

    frame = pd.json_normalize(getattr(history, "records", history))
    names = [column.split(".", 1)[1] for column in frame if column.startswith("turnover.")]
    if not names:
        raise ValueError("this history has no turnover: train with a Rewire among the callbacks")
    figure, grid = plt.subplots(2, 2, figsize=(7.6, 5), sharex=True)
    panels = {
        "connections": "connections",
        "turnover": "moved in the epoch",
        "explored": "weights ever tried",
        "age": "mean age in steps",
    }
    for ax, (column, title) in zip(grid.flat, panels.items(), strict=True):
        ends = []
        for color, name in zip(shades(len(names)), names, strict=True):
            values = frame[f"{column}.{name}"]
            ax.plot(frame["epoch"], values, color=color)
            ends.append((values.iloc[-1], name, color))
        ax.set(title=title, ylim=(0, None))
        if column in ("turnover", "explored"):
            ax.yaxis.set_major_formatter(PercentFormatter(1, 0))
        else:
            ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        label_ends(ax, ends)
    for ax in grid[1]:
        ax.set_xlabel("epoch")
    return figure
