"""The dashboard: what every layer felt while it learned, and why it grew where it did."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from growlib.plots._causes import reading_of, sentence
from growlib.plots._scrubber import Scrubber, scrubber
from growlib.plots._style import INK, label_ends, shades

_SPAN = 30  # largest over smallest reading, from which on an axis is logarithmic


def diagnostics(history, signals=None) -> list[Axes]:
    """Draw every signal of every layer over steps, a small panel a signal, with the births of every layer.

    A layer's changes are marks in its colour; the marks of several layers stand above one another.

    Args:
        history: a History with readings, as the callback Diagnostics or a trigger makes them.
        signals: names, or the signals themselves, in this order; left out, all that were read.

    Returns:
        One Axes a signal.

    Raises:
        ValueError: no reading at all, or none of a signal that is asked for.
    """
    known = _known(history)
    names = list(known) if signals is None else [getattr(signal, "__name__", signal) for signal in signals]
    if missing := [name for name in names if name not in known]:
        raise ValueError(f"no reading of {', '.join(map(str, missing))}: there are {', '.join(known)}")
    layers = list(dict.fromkeys(layer for lines in known.values() for layer in lines))
    colors = _colored(layers)
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    height = 1.5 if columns > 1 else 2.4
    figure, grid = plt.subplots(rows, columns, sharex=True, squeeze=False, figsize=(5.6, 0.6 + height * rows))
    for ax, name in zip(grid.flat, names, strict=False):
        _lines(ax, known[name], colors)
        _births(ax, history.changes, colors)
        ax.set_title(name, fontsize="small")
    for ax in grid.flat[len(names) :]:
        ax.set_axis_off()
    for ax in grid.flat[max(0, len(names) - columns) : len(names)]:
        ax.set_xlabel("step", fontsize="small")
        ax.tick_params(labelbottom=True)
    handles = [Line2D([], [], color=color, label=layer) for layer, color in colors.items()]
    if any(change["layer"] in colors for change in history.changes):
        handles.append(Line2D([], [], linestyle="", marker="|", markersize=11, color=INK, label="it changed"))
    figure.legend(handles=handles, loc="outside lower left", ncols=3, fontsize="small", borderpad=0)
    return list(grid.flat[: len(names)])


def why(history) -> Scrubber:
    """Answer "why did it grow here?", one frame a change: the widths so far, and below what the layer felt.

    The lower panel shows the reading that fired, its threshold as a dashed line, and the moment; the label reads the
    cause aloud. Where the cause tells of no reading, the loss stands there.

    Args:
        history: a History.

    Returns:
        The slider.

    Raises:
        ValueError: nothing has changed.
    """
    changes = [change for change in history.changes if change["before"] != change["after"]]
    if not changes:
        raise ValueError("there is nothing to explain: no layer of this history has changed")
    names = _names(history)
    labels = [sentence(change, names) for change in changes]
    alts = [f"Change {number} of {len(changes)}. {label}" for number, label in enumerate(labels, 1)]
    return scrubber([_frame(history, changes, number, names) for number in range(len(changes))], labels, alts)


def _known(history) -> dict[str, dict[str, tuple[list, list]]]:
    """Return signal -> layer -> (steps, values)."""
    known: dict = {}
    for reading in getattr(history, "readings", ()):
        steps, values = known.setdefault(reading["signal"], {}).setdefault(reading["layer"], ([], []))
        steps.append(reading["step"])
        values.append(reading["value"])
    if not known:
        raise ValueError("no signal was read in this run: give the Trainer a Diagnostics callback, or a trigger on one")
    return known


def _names(history) -> list[str]:
    columns = dict.fromkeys(name for record in history.records for name in record)
    return [*dict.fromkeys(reading["signal"] for reading in getattr(history, "readings", ())), *columns]


def _lines(ax: Axes, lines: dict, colors: dict[str, str]):
    for layer, (steps, values) in lines.items():
        ax.plot(
            steps, values, color=colors[layer], linewidth=1.5, gid=layer, marker="o", markersize=3 * (len(steps) < 3)
        )
    values = np.concatenate([values for _, values in lines.values()])
    _scale(ax, values[np.isfinite(values)])
    ax.tick_params(labelsize="small")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))


def _scale(ax: Axes, values: np.ndarray):
    if len(values) and values.min() > 0 and values.max() > _SPAN * values.min():
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 3) if values.max() < 1e3 * values.min() else (1,), numticks=4))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_locator(NullLocator())
    else:
        ax.yaxis.set_major_locator(MaxNLocator(nbins=3))


def _births(ax: Axes, changes: list[dict], colors: dict[str, str]):
    share = 1 / len(colors)
    for change in changes:
        if change["layer"] in colors:
            low = list(colors).index(change["layer"]) * share
            color = colors[change["layer"]]
            ax.axvline(change["step"], low, low + share, color=color, linewidth=1, alpha=0.6, gid="change")


def _frame(history, changes: list[dict], number: int, names: list[str]) -> Figure:
    change = changes[number]
    figure, (top, bottom) = plt.subplots(2, 1, sharex=True, figsize=(5.6, 4.2), height_ratios=(1, 1.3))
    end = max([change["step"] for change in changes] + [record["step"] for record in history.records])
    _widths(top, changes, number, end)
    told = reading_of(change["cause"], names)
    name, steps, values = _felt(history, change, told)
    seen = [step <= change["step"] for step in steps]
    color = _colors(changes)[change["layer"]]
    bottom.plot(steps, values, color=INK, linewidth=1, alpha=0.4)
    bottom.plot(np.array(steps)[seen], np.array(values)[seen], color=color, linewidth=1.8, gid="felt")
    if told is not None:
        bottom.axhline(told["level"], color=INK, linewidth=1.4, linestyle="--", gid="level")
    if any(seen):
        bottom.plot(change["step"], np.array(values)[seen][-1], marker="o", markersize=8, color=color, gid="moment")
    for ax in (top, bottom):
        ax.axvline(change["step"], color=INK, linewidth=1, gid="change")
        ax.grid(axis="x", visible=False)
    finite = np.array([value for value in values if np.isfinite(value)])
    _scale(bottom, finite if told is None or told["level"] > 0 else np.zeros(1))
    bottom.set_title(name)
    bottom.set(xlabel="step", xlim=(0, end * 1.02))
    return figure


def _widths(ax: Axes, changes: list[dict], number: int, end: int):
    ends = []
    for layer, color in _colors(changes).items():
        own = [change for change in changes if change["layer"] == layer]
        past = [change for change in changes[: number + 1] if change["layer"] == layer]
        steps = [0, *(change["step"] for change in past), changes[number]["step"]]
        widths = [own[0]["before"], *(change["after"] for change in past)]
        ax.step(steps, [*widths, widths[-1]], where="post", color=color, gid=layer)
        if layer == changes[number]["layer"]:
            ax.plot(changes[number]["step"], widths[-1], marker="o", markersize=8, color=color, gid="moment")
        ends.append((widths[-1], f"{layer}: {widths[-1]}", color))
    ax.set_ylim(0, max(max(change["before"], change["after"]) for change in changes) * 1.1)
    ax.set_xlim(0, end * 1.02)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    ax.set_title("width")
    label_ends(ax, ends)


def _colors(changes: list[dict]) -> dict[str, str]:
    return _colored(sorted({change["layer"] for change in changes}))


def _colored(layers: list[str]) -> dict[str, str]:
    return dict(zip(layers, shades(len(layers)), strict=True))


def _felt(history, change: dict, told: dict | None) -> tuple[str, list, list]:
    """Return the title of the lower panel, and steps and values of the reading that fired, or else of the loss."""
    if told is not None:
        own = [
            reading
            for reading in getattr(history, "readings", ())
            if (reading["signal"], reading["layer"]) == (told["name"], change["layer"])
        ]
        if own:
            title = f"{told['name']} of {change['layer']}"
            return title, [reading["step"] for reading in own], [reading["value"] for reading in own]
    columns = ("val_loss", "train_loss")
    name = told["name"] if told else next((c for c in columns if any(c in r for r in history.records)), columns[0])
    rows = [record for record in history.records if name in record]
    return name, [record["step"] for record in rows], [record[name] for record in rows]
