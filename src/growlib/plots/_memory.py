"""Tasks in sequence: who owns the units, what is known after every task, and how many old answers moved."""

from itertools import accumulate

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from growlib.plots._matrix import accuracy_matrix
from growlib.plots._scrubber import Scrubber, scrubber
from growlib.plots._style import INK, shades


def memory(networks: dict) -> Scrubber:
    """Put the life of several networks under one slider, a frame after every task.

    Args:
        networks: title -> one dict a task: `matrix` (accuracies up to now, see `accuracy_matrix`), `units` (layer ->
            owner -> how many; the owner is a task, or None for units that all tasks share), `changed` (logits of old
            tasks that are not what they were when their task ended) and `logits` (how many there are).

    Returns:
        A slider over the tasks.

    Raises:
        ValueError: no network, or networks of different lengths.
    """
    lengths = {title: len(moments) for title, moments in networks.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(f"every network needs as many moments, and at least one, and got {lengths}")
    last = next(iter(networks.values()))[-1]["matrix"]
    tasks, frames, labels, alts = list(last.columns), [], [], []
    top = {
        title: max(sum(owned.values()) for owned in moments[-1]["units"].values())
        for title, moments in networks.items()
    }
    for number, task in enumerate(tasks[: len(last)]):
        now = {title: moments[number] for title, moments in networks.items()}
        frames.append(_frame(now, tasks, max(top.values())))
        labels.append(f"after {task}")
        told = (f"{title}: {one['changed']:,} of {one['logits']:,} old logits changed" for title, one in now.items())
        alts.append(f"Accuracy matrices up to {task}, and the units by owner. {'; '.join(told)}.")
    return scrubber(frames, labels, alts)


def _frame(now: dict, tasks: list[str], top: int) -> Figure:
    figure = plt.figure(figsize=(5.6, 4.6))
    grid = figure.add_gridspec(2, len(now), height_ratios=[3, 2])
    above = [figure.add_subplot(grid[0, column]) for column in range(len(now))]
    full = {title: one["matrix"].reindex(index=tasks, columns=tasks) for title, one in now.items()}
    accuracy_matrix(full, above)
    for column, one in enumerate(now.values()):
        ax = figure.add_subplot(grid[1, column])
        _blocks(ax, one["units"], tasks, top)
        ax.set_title(f"old logits changed: {one['changed']:,}", loc="center", fontsize="small", y=-0.42)
    return figure


def _blocks(ax: Axes, units: dict, tasks: list[str], top: int):
    """The units of every layer as a stack, in the colours of the tasks that own them."""
    colors = dict(zip(tasks, shades(len(tasks)), strict=True)) | {None: INK}
    for place, owned in enumerate(units.values()):
        for (task, count), end in zip(owned.items(), accumulate(owned.values()), strict=True):
            ax.add_patch(Rectangle((place - 0.35, end - count), 0.7, count, color=colors[task], linewidth=0))
    ax.set(xlim=(-0.6, len(units) - 0.4), ylim=(0, top), yticks=[])
    ax.set_xticks(range(len(units)), list(units), fontsize="small")
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines["left"].set_visible(False)


def stream(history, tasks: list[str]) -> list[Axes]:
    """Draw who owns the units of a network while it learns tasks in sequence, and how well it learns each.

    Args:
        history: a History of a TaskNet.
        tasks: its tasks, in their order.

    Returns:
        The Axes of the units, and the one of the validation accuracy below.

    Raises:
        ValueError: no record.
    """
    if not history.records:
        raise ValueError("there is nothing to draw: no epoch was recorded")
    _, (above, below) = plt.subplots(2, 1, sharex=True, height_ratios=[3, 2], figsize=(5.6, 4.6))
    colors, end = shades(len(tasks)), history.records[-1]["step"]
    floor = 0
    for (steps, units), task, color in zip(_owned(history), tasks, colors, strict=False):
        steps, units = [*steps, end], [*units, units[-1]]
        above.fill_between(steps, floor, [floor + n for n in units], step="post", color=color, linewidth=0)
        above.annotate(task, (end, floor + units[-1] / 2), (4, 0), textcoords="offset points", va="center", color=color)
        floor += units[-1]
    for number, color in enumerate(colors):
        own = [record for record in history.records if record["task"] == number]
        below.plot([r["step"] for r in own], [r["val_accuracy"] for r in own], "o-", color=color, markersize=4)
    above.set(ylabel="units", xlim=(0, end), ylim=(0, None))
    below.set(xlabel="step", ylabel="val accuracy", ylim=(0, 1))
    return [above, below]


def _owned(history) -> list[tuple[list[int], list[int]]]:
    """For every task the steps at which its number of units became another, and the numbers."""
    life = [([0], [sum(history.records[0]["widths"].values())])]
    for change in history.changes:
        if change["kind"] == "task":
            life.append(([change["step"]], [change["after"]]))
        else:
            steps, units = life[-1]
            steps.append(change["step"])
            units.append(units[-1] + change["after"] - change["before"])
    return life
