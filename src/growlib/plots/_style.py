"""The one look of all pictures: a palette, matplotlib settings, colours of generations, labels beside their lines."""

import sys
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_hex

# Every colour stands out 3:1 on white and on the dark page, the ink 4:1; neighbours differ under each colour blindness.
PALETTE = {
    "ink": "#76808d",
    "blue": "#1a6ce6",
    "orange": "#c05600",
    "green": "#2aa583",
    "magenta": "#cb2a55",
    "violet": "#85599e",
    "brown": "#af8e45",
}
INK = PALETTE["ink"]
COLORS = [color for name, color in PALETTE.items() if name != "ink"]
_BY_HUE = [PALETTE[name] for name in ("blue", "green", "brown", "orange", "magenta", "violet")]


def style() -> None:
    """Set matplotlib to the book's look: transparent, mid-grey text and axes, sizes that survive a phone.

    In a notebook the figures are also drawn at twice the resolution. Importing `growlib.plots` calls this once; call it
    again to undo a style set since.
    """
    plt.rcParams.update(
        {
            "figure.facecolor": "none",
            "figure.figsize": (5.6, 3.4),
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "savefig.facecolor": "none",
            "savefig.dpi": 220,
            "axes.facecolor": "none",
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "axes.titlecolor": INK,
            "axes.titlelocation": "left",
            "axes.titlesize": "medium",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.prop_cycle": plt.cycler(color=COLORS),
            "grid.color": INK,
            "grid.alpha": 0.22,
            "grid.linewidth": 0.8,
            "xtick.color": INK,
            "ytick.color": INK,
            "text.color": INK,
            "font.size": 12,
            "lines.linewidth": 2.2,
            "legend.frameon": False,
        }
    )
    _retina()


def _retina() -> None:
    if "IPython" not in sys.modules:  # a notebook has it loaded, and a script would pay for it
        return
    try:
        from IPython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:
        return
    shell = get_ipython()
    if shell is not None and hasattr(shell, "kernel"):
        set_matplotlib_formats("retina")


def shades(count: int) -> list[str]:
    """Return one colour a generation: the palette's own up to six, then as many steps through its hues."""
    if count <= len(COLORS):
        return COLORS[:count]
    through = LinearSegmentedColormap.from_list("generations", _BY_HUE)
    return [to_hex(through(place)) for place in np.linspace(0, 1, count)]


def generations(widths: list[int], units: list[list[int]] | None = None) -> list[list[float]]:
    """Split each width of a layer's life into the units born together: [8, 12, 9] -> [[8], [8, 4], [6, 3]].

    Args:
        widths: The width at the start and after every change.
        units: Of every change, which units came (as numbered after it) or went (as numbered before it). Where that is
            not known, every generation shrinks by the same share.
    """
    life, born = [[float(widths[0])]], [0] * widths[0]  # sizes of the generations; the generation of every unit
    for number, (before, after) in enumerate(pairwise(widths)):
        sizes = life[-1]
        if after > before:
            for unit in sorted(units[number]) if units else ():
                born.insert(unit, len(sizes))
            life.append([*sizes, float(after - before)])
        elif units:
            gone = [born.pop(unit) for unit in sorted(units[number], reverse=True)]
            life.append([size - gone.count(generation) for generation, size in enumerate(sizes)])
        else:
            life.append([size * (after / before if before else 1) for size in sizes])
    return life


def label_ends(axes, ends: list[tuple[float, str, str]]) -> None:
    """Write each line's name to the right of its end, pushed apart where two would overlap.

    Args:
        axes: where the lines are.
        ends: (last value, text, colour) of every line.
    """
    if not ends:
        return
    low, high = axes.transData.transform([(0, y) for y in axes.get_ylim()])[:, 1]
    pixels = [axes.transData.transform((0, value))[1] for value, _, _ in ends]
    wanted = np.clip((np.array(pixels) - low) / (high - low), 0, 1)
    size = plt.rcParams["font.size"] * 1.25 / 72
    gap = size / (axes.figure.get_figheight() * axes.get_position().height)
    places = spread(wanted, gap)
    for place, (_, text, color) in zip(places, ends, strict=True):
        axes.annotate(text, (1.02, place), xycoords="axes fraction", color=color, va="center", annotation_clip=False)


def spread(wanted: np.ndarray, gap: float) -> np.ndarray:
    """Move places as little as a left-to-right sweep allows until neighbours are `gap` apart, centred on the wanted."""
    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(len(wanted))
    # Without the steps, "at least a gap apart" is "does not decrease": a running maximum.
    swept = np.maximum.accumulate(wanted[order] - steps) + steps
    places = np.empty_like(swept)
    places[order] = swept - (swept - wanted[order]).mean()
    return places
