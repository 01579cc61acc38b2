"""A network diagram whose units appear as they are born: dots for units, one frame a change."""

import html
from itertools import groupby, pairwise

import numpy as np

from growlib.plots._scrubber import Scrubber, arm
from growlib.plots._style import INK, generations, shades

_WIDE, _HIGH = 420, 300
_TALL = 236  # of the height, what the dots may take
_MOST_DOTS, _MOST_LINES = 16, 200  # beyond: inputs and outputs are a bar, connections a band


def network(history, inputs: int | None = None, outputs: int | None = None) -> Scrubber:
    """Draw a network as a diagram that grows: every unit a dot in the colour of its generation, a slider over changes.

    Args:
        history: a History, or lists of the widths of all layers, such as [[2, 3, 2], [2, 4, 2]].
        inputs: the number of inputs, which a History does not tell.
        outputs: the number of outputs, which a History does not tell.

    Returns:
        The slider.

    Raises:
        ValueError: no widths, or lists of unequal length.
    """
    names, frames, labels = _life(history, inputs, outputs)
    if not frames or len({len(widths) for widths in frames}) != 1 or len(frames[0]) < 2:
        raise ValueError(f"a network needs the same two or more layers in every frame, not {frames}")
    lives = [generations([widths[layer] for widths in frames]) for layer in range(len(frames[0]))]
    columns = [_Column(life, place, len(lives)) for place, life in enumerate(lives)]
    drawings = [_frame(columns, names, number) for number in range(len(frames))]
    counts = [", ".join(str(width) for width in widths if width) for widths in frames]
    alts = [f"Network diagram, {label}: layers of {count} units" for label, count in zip(labels, counts, strict=True)]
    shell = f'<svg viewBox="0 0 {_WIDE} {_HIGH}" font-size="14" text-anchor="middle" fill="currentColor" class="slot">'
    return Scrubber({"": arm(drawings, labels, alts)}, shell + "$frame</svg>")


def _life(history, inputs, outputs) -> tuple[list[str], list[list[int]], list[str]]:
    """Return names of the layers, the widths of all layers frame by frame, and what to say about each frame."""
    if not hasattr(history, "records"):
        frames = [[int(width) for width in widths] for widths in history]
        names = ["inputs", *[""] * (len(frames[0]) - 2), "outputs"] if frames else []
        return names, frames, [" - ".join(map(str, widths)) for widths in frames]
    if not history.records:
        raise ValueError("there is nothing to draw: the history has no record yet (they are written after each epoch)")
    names = list(history.records[-1]["widths"])
    now = dict(history.records[0]["widths"])
    for change in reversed(history.changes):
        now[change["layer"]] = change["before"]
    frames, labels = [list(now.values())], ["at the start"]
    for step, together in groupby(history.changes, key=lambda change: change["step"]):
        together = list(together)
        now |= {change["layer"]: change["after"] for change in together}
        whats = ", ".join(f"{change['kind']} {change['layer']} to {change['after']}" for change in together)
        causes = "; ".join(dict.fromkeys(str(change["cause"]) for change in together))
        frames, labels = [*frames, list(now.values())], [*labels, f"step {step}, {whats}: {causes}"]
    return ["inputs", *names, "outputs"], [[inputs or 0, *widths, outputs or 0] for widths in frames], labels


class _Column:
    """One layer: where its dots stand. Places do not move from frame to frame, so that births can be seen."""

    def __init__(self, life: list[list[float]], place: int, layers: int):
        self.life = [np.round(np.cumsum(sizes)).astype(int) for sizes in life]
        self.most = max(int(ends[-1]) for ends in self.life)
        self.colors = shades(len(life[-1]))
        outside = place in (0, layers - 1)
        self.bar = outside and not 0 < self.most <= _MOST_DOTS
        self.colors = [INK] if outside and len(self.colors) == 1 else self.colors
        self.x = _WIDE * (place + 0.5) / layers
        self.dots = self._places(room=_WIDE / layers * 0.6)
        self.radius = min(7.0, self.pitch * 0.36)

    def _places(self, room: float) -> np.ndarray:
        rows = 8
        while -(-self.most // rows) * _TALL / rows > max(room, _TALL / rows) or (rows < self.most <= _MOST_DOTS):
            rows += 1
        self.pitch = _TALL / rows
        columns = max(1, -(-self.most // rows))
        height = min(rows, self.most)
        order = range(height)
        if columns == 1:  # from the middle outwards, so that the column stays centred while it grows
            order = sorted(order, key=lambda row: abs(row - (height - 1) / 2))
        x = self.x + (np.arange(columns) - (columns - 1) / 2) * self.pitch
        y = _TALL / 2 + 8 + (np.array(order) - (height - 1) / 2) * self.pitch
        return np.array([(across, down) for across in x for down in y][: self.most]).reshape(-1, 2)  # (units, 2)

    def alive(self, number: int) -> np.ndarray:
        return self.dots[: self.life[number][-1]]

    def sides(self, number: int) -> tuple[float, float, float, float]:
        """Return left, right, top and bottom of what is there."""
        if self.bar:
            return self.x - 9, self.x + 9, 8, 8 + _TALL
        (left, top), (right, bottom) = self.alive(number).min(0) - self.radius, self.alive(number).max(0) + self.radius
        return left, right, top, bottom


def _frame(columns: list[_Column], names: list[str], number: int) -> str:
    parts = [_connections(left, right, number) for left, right in pairwise(columns)]
    for column, name in zip(columns, names, strict=True):
        parts += [_units(column, number), _label(column, name, number)]
    return "".join(parts)


def _units(column: _Column, number: int) -> str:
    if column.bar:
        left, _, top, _ = column.sides(number)
        return f'<rect x="{left:g}" y="{top}" width="18" height="{_TALL}" rx="9" fill="{INK}"/>'
    ends = column.life[number]
    newest = len(ends) - 1 if number and len(ends) > len(column.life[number - 1]) else None
    parts = []
    for generation, (start, end) in enumerate(pairwise([0, *ends])):
        if start == end:
            continue
        path = "".join(f"M{x:.4g} {y:.4g}h0" for x, y in column.dots[start:end])
        size = column.radius * (2.7 if generation == newest else 2)
        parts.append(f'<path d="{path}" stroke="{column.colors[generation]}" stroke-width="{size:.3g}"/>')
    return f'<g stroke-linecap="round">{"".join(parts)}</g>'


def _connections(left: _Column, right: _Column, number: int) -> str:
    if not (left.bar or right.bar) and left.most * right.most <= _MOST_LINES:
        pairs = [(a, b) for a in left.alive(number) for b in right.alive(number)]
        path = "".join(f"M{a[0]:.4g} {a[1]:.4g}L{b[0]:.4g} {b[1]:.4g}" for a, b in pairs)
        return f'<path d="{path}" stroke="{INK}" stroke-opacity=".45" fill="none"/>'
    _, start, top, bottom = left.sides(number)
    end, _, high, low = right.sides(number)
    path = f"M{start:.4g} {top:.4g}L{end:.4g} {high:.4g}V{low:.4g}L{start:.4g} {bottom:.4g}z"
    return f'<path d="{path}" fill="{INK}" fill-opacity=".2"/>'


def _label(column: _Column, name: str, number: int) -> str:
    width = int(column.life[number][-1]) or ""
    return (
        f'<text x="{column.x:g}" y="{_HIGH - 24}" font-weight="bold">{width}</text>'
        f'<text x="{column.x:g}" y="{_HIGH - 6}">{html.escape(name)}</text>'
    )
