"""Which memory: a tree of questions, and what methods know at first and in the end."""

from collections.abc import Mapping
from textwrap import fill

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from growlib.plots._style import INK, PALETTE

_WRAP = 13  # characters of a question's line


def decisions(tree: Mapping[str, Mapping], ax: Axes | None = None) -> Axes:
    """Draw questions whose answers lead to advice, from left to right.

    Args:
        tree: one question -> {answer: the next such tree, or a text}.
        ax: where to draw; left out, a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: a tree that does not begin with one question.
    """
    if len(tree) != 1:
        raise ValueError(f"a tree of decisions begins with one question, and not with {list(tree)}")
    nodes, leaves = [], []
    _place(tree, 0, None, "", nodes, leaves)
    depth = max(node["x"] for node in nodes)
    ax = ax or plt.figure(figsize=(5.6, 0.4 + 0.72 * len(leaves))).add_subplot()
    for node in nodes:
        _draw(ax, node)
    ax.set(xlim=(-0.5, depth + 0.5), ylim=(len(leaves) - 0.5, -0.5))
    ax.axis("off")
    return ax


def _place(tree, x: int, parent: dict | None, answer: str, nodes: list, leaves: list) -> dict:
    """Give the root of a tree and all below it a place: advice in rows, a question in the middle of its answers."""
    node = {"x": x, "parent": parent, "answer": answer, "leaf": isinstance(tree, str)}
    nodes.append(node)
    if node["leaf"]:
        node |= {"text": fill(tree, _WRAP), "y": len(leaves)}
        leaves.append(node)
        return node
    ((question, answers),) = tree.items()
    below = [_place(one, x + 1, node, given, nodes, leaves)["y"] for given, one in answers.items()]
    node |= {"text": fill(question, _WRAP), "y": sum(below) / len(below)}
    return node


def _draw(ax: Axes, node: dict) -> None:
    color = PALETTE["blue"] if node["leaf"] else INK
    weight = "bold" if node["leaf"] else "normal"
    left = node["x"] - 0.4 if node["leaf"] else node["x"]
    align = {"ha": "left" if node["leaf"] else "center", "va": "center"}
    ax.text(left, node["y"], node["text"], color=color, weight=weight, fontsize="small", **align)
    if parent := node["parent"]:
        start, bend, end = parent["x"] + 0.4, parent["x"] + 0.48, node["x"] - 0.43
        ax.plot([start, bend, end], [parent["y"], node["y"], node["y"]], color=INK, linewidth=1.2)
        side = -1 if node["y"] < parent["y"] else 1
        ax.annotate(
            node["answer"],
            (bend, node["y"]),
            (0, -10 * side),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize="small",
            weight="bold",
        )


def forgotten(rows: Mapping[str, Mapping[str, float]], ax: Axes | None = None) -> Axes:
    """Draw how much of what it learned a method still knows: a ring, a dot, and the way between them.

    Args:
        rows: name -> "learned", the mean accuracy of a task right after it was learned, and "kept", that in the end;
            "half", where it is known, is half the width of the 95 % interval of the latter.
        ax: where to draw; left out, a new figure.

    Returns:
        The Axes, the first name on top.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("there is nothing to draw: no method was given")
    ax = ax or plt.figure(figsize=(5.6, 0.9 + 0.34 * len(rows))).add_subplot()
    for place, row in enumerate(rows.values()):
        color = PALETTE["orange"] if row["kept"] < row["learned"] - 1e-9 else PALETTE["blue"]
        ax.plot([row["learned"], row["kept"]], [place, place], color=color, linewidth=2.2)
        ax.plot(row["learned"], place, "o", color=color, markersize=8, fillstyle="none")
        ax.errorbar(row["kept"], place, xerr=row.get("half", 0), color=color, marker="o", markersize=7, linewidth=1.2)
    ax.set_yticks(range(len(rows)), list(rows), fontsize="small")
    ax.set(ylim=(len(rows) - 0.5, -0.5), title="ring: right after learning; dot: in the end")
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    ax.grid(axis="y", visible=False)
    return ax
