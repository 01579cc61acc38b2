"""Runs that fork: what growing did at every moment, what a signal said there, and where a threshold would lead."""

import base64
import io

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from growlib.plots._scrubber import Scrubber, arm
from growlib.plots._style import INK, PALETTE, shades


def roc(curves: dict, ax: Axes | None = None) -> Axes:
    """Draw how many hits a threshold buys for how many false alarms, for several predictors.

    Args:
        curves: name -> (share of false alarms, share of hits), a number each for every threshold.
        ax: where to draw; left out, a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: no curve.
    """
    if not curves:
        raise ValueError("there is nothing to draw: curves is empty")
    ax = ax or plt.figure(figsize=(5.6, 4.2)).add_subplot()
    ax.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1.2, label="chance")
    for color, (name, (alarms, hits)) in zip(shades(len(curves)), curves.items(), strict=True):
        ax.plot(alarms, hits, color=color, label=name)
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel="false alarms", ylabel="hits")
    ax.legend(fontsize="small", loc="lower right")
    return ax


def forks(run: list, moments: list, readings: list[float], known: tuple, signal: str, low: bool) -> Scrubber:
    """Put thresholds of a signal under one slider: where a run would have grown, what came of it, and the ROC point.

    Args:
        run: (step, validation loss) pairs of the run that did not grow.
        moments: what happened at each of its forks: `layer`, `steps`, `plain` and `grown`, as in `growlib.Fork`.
        readings: of the signal at these forks.
        known: readings of the signal at other forks, and whether growing paid there; of them, the ROC.
        signal: its name.
        low: whether growing is asked for below the threshold, not above.

    Returns:
        A slider over thresholds.

    Raises:
        ValueError: no fork, or not one reading a fork; forks of which none or all paid.
    """
    values, pays = np.asarray(known[0], float), np.asarray(known[1], bool)
    if not moments or len(moments) != len(readings):
        raise ValueError(f"forks need one reading each: {len(moments)} forks, {len(readings)} readings")
    if pays.all() or not pays.any():
        raise ValueError(f"a ROC needs forks that paid and forks that did not: {pays.sum()} of {len(pays)} paid")
    # From the threshold that never grows to the one that always does.
    places = np.quantile(np.concatenate([values, readings]), np.linspace(0, 1, 25))
    places = places if low else places[::-1]
    asked = values[:, None] <= places if low else values[:, None] >= places  # (forks, thresholds)
    hits, alarms = asked[pays].mean(0), asked[~pays].mean(0)
    figure, axes = _ground(run, moments, readings, signal)
    axes[2].plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1.2)
    axes[2].plot([0, *alarms, 1], [0, *hits, 1], color=PALETTE["blue"])
    axes[2].set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="false alarms", ylabel="hits")
    figure.canvas.draw()
    figure.set_layout_engine("none")  # what is drawn above it counts on the places that the axes have now
    frames, labels = [], []
    for place, hit, alarm in zip(places, hits, alarms, strict=True):
        fires = [reading <= place if low else reading >= place for reading in readings]
        frames.append(_over(figure, axes, moments, readings, fires, place, (alarm, hit)))
        words = f"{signal.replace('_', ' ')} {'at most' if low else 'at least'} {place:.3g}"
        labels.append(
            f"{words}: grows at {sum(fires)} of {len(fires)} forks; "
            f"elsewhere {hit:.0%} of those that pay, {alarm:.0%} of the others".replace("%", " %")
        )
    size = figure.get_size_inches() * figure.dpi
    shell = f'<svg viewBox="0 0 {size[0]:.0f} {size[1]:.0f}"><image width="{size[0]:.0f}" height="{size[1]:.0f}" '
    shell += f'href="{_picture(figure)}"/><g class="slot">$frame</g></svg>'
    alt = "Validation loss over steps, with a pair of twins at every fork; the signal below, and a ROC curve. "
    return Scrubber({"": arm(frames, labels, [alt + label for label in labels])}, shell)


def _ground(run: list, moments: list, readings: list[float], signal: str) -> tuple[Figure, list[Axes]]:
    """What no threshold changes."""
    figure = plt.figure(figsize=(5.6, 5.4))
    grid = figure.add_gridspec(2, 2, height_ratios=[3, 2], width_ratios=[3, 2])
    above, below, beside = (
        figure.add_subplot(grid[0, :]),
        figure.add_subplot(grid[1, 0]),
        figure.add_subplot(grid[1, 1]),
    )
    above.plot(*zip(*run, strict=True), color=INK, linewidth=1.5)
    for one in moments:
        above.plot(one["steps"], one["grown"], color=PALETTE["green"], linewidth=1.5)
        above.plot(one["steps"], one["plain"], color=INK, linewidth=1.5)
    above.set_yscale("log")
    above.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    above.yaxis.set_major_formatter("{x:g}")
    above.yaxis.set_minor_locator(NullLocator())
    for ax in (above, below):
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_locator(NullLocator())
    above.set_title("validation loss; green: the twin that grew", fontsize="small")
    for layer in dict.fromkeys(one["layer"] for one in moments):
        own = [(one["steps"][0], value) for one, value in zip(moments, readings, strict=True) if one["layer"] == layer]
        below.plot(*zip(*own, strict=True), color=INK, linewidth=0.8, marker="o", markersize=5)
        below.annotate(layer, own[-1], (6, 0), textcoords="offset points", va="center", fontsize="small")
    below.set(xlabel="step", xlim=above.get_xlim())
    below.margins(y=0.15)
    below.set_title(signal.replace("_", " "), fontsize="small")
    return figure, [above, below, beside]


def _over(figure, axes, moments, readings, fires, place: float, point: tuple) -> str:
    """What a threshold changes, in SVG."""
    above, below, beside = axes
    drawn = []
    for one, reading, fired in zip(moments, readings, fires, strict=True):
        color = PALETTE["green"] if fired else INK
        there = [*zip(one["steps"], one["plain"], strict=True)]
        back = [*zip(one["steps"], one["grown"], strict=True)][::-1]
        drawn.append(
            f'<path d="M{_pixels(figure, above, there + back)}z" fill="{color}" opacity="{0.75 if fired else 0.2}"/>'
        )
        if fired:
            x, y = _pixels(figure, above, there[:1]).split()
            drawn.append(f'<circle cx="{x}" cy="{y}" r="8" fill="{color}"/>')
            x, y = _pixels(figure, below, [(one["steps"][0], reading)]).split()
            drawn.append(f'<circle cx="{x}" cy="{y}" r="10" fill="{color}"/>')
    low, high = below.get_ylim()
    ends = [(x, np.clip(place, low, high)) for x in below.get_xlim()]
    line = _pixels(figure, below, ends)
    drawn.append(f'<path d="M{line}" stroke="{PALETTE["orange"]}" stroke-width="4" stroke-dasharray="12 7"/>')
    x, y = _pixels(figure, beside, [point]).split()
    drawn.append(f'<circle cx="{x}" cy="{y}" r="11" fill="{PALETTE["orange"]}"/>')
    return "".join(drawn)


def _pixels(figure: Figure, ax: Axes, points: list) -> str:
    places = ax.transData.transform(points)
    height = figure.get_size_inches()[1] * figure.dpi
    return " ".join(f"{x:.0f} {height - y:.0f}" for x, y in places)


def _picture(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=2 * figure.dpi)
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
