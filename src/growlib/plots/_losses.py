"""The training loss of runs that should be one and the same, step by step, laid over each other."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from growlib.plots._curves import mark_changes
from growlib.plots._style import COLORS, INK, PALETTE


def losses(runs: dict, lost: tuple[int, int] | None = None, ax: Axes | None = None) -> Axes:
    """Draw the loss of every step of several runs, the first one broad and the others thin in its middle.

    Args:
        runs: name -> trainer or History; pins mark where the first one changed.
        lost: (first, last) step of a stretch that a crash undid, to be shaded.
        ax: where to draw; left out, a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: no run, or one without a step.
    """
    histories = {name: getattr(run, "history", run) for name, run in runs.items()}
    empty = [name for name, history in histories.items() if not history.losses]
    if not histories or empty:
        raise ValueError(f"there is nothing to draw: {', '.join(empty) or 'not one run'} has no step yet")
    ax = ax or plt.figure().add_subplot()
    ax.set_yscale("log")
    for number, (name, history) in enumerate(histories.items()):
        look = {"linewidth": 1.1, "color": COLORS[number - 1]} if number else {"linewidth": 6, "color": INK}
        steps = range(1, len(history.losses) + 1)
        ax.plot(steps, history.losses, label=name, alpha=1 if number else 0.45, **look)
    if lost:
        ax.axvspan(*lost, color=PALETTE["magenta"], alpha=0.25, linewidth=0, label="lost in the crash", gid="lost")
    mark_changes(ax, next(iter(histories.values())), None, "step")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("step")
    ax.set_title("training loss")
    ax.legend(fontsize="small")
    return ax
