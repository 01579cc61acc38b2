"""Folds: every hidden unit of a network on the plane is the line where it switches on; watch the lines move."""

import copy

import numpy as np
import torch
from contourpy import FillType, contour_generator

from growlib.plots._scrubber import Scrubber, arm
from growlib.plots._style import INK, shades

_SIDE = 1000  # the picture's own units
_GRID = 57


def snapshot(model: torch.nn.Module, title: str = "", born=None) -> dict:
    """Keep what `folds` draws of a model at this moment.

    Args:
        model: a network on points of the plane, (B, 2) -> logits (B, classes), whose first layer has the hidden units.
        title: what to say about the moment, such as "epoch 3".
        born: when each unit was born, (units,), any numbers; left out, `folds` takes the first snapshot that has it.

    Returns:
        A dict: "title", "weight" (units, 2), "bias" (units,), "strength" (units,) the size of the outgoing weights,
        "born", and "regions", a function from points (N, 2) to class probabilities (N, classes).

    Raises:
        ValueError: the model has no layer that reads points of the plane.
    """
    frozen = copy.deepcopy(model).cpu().eval()
    matrices = [part for part in frozen.modules() if isinstance(getattr(part, "weight", None), torch.Tensor)]
    matrices = [part for part in matrices if part.weight.ndim == 2]
    if not matrices or matrices[0].weight.shape[1] != 2:
        shape = tuple(matrices[0].weight.shape) if matrices else None
        raise ValueError(f"folds need a first layer that reads 2 inputs; the first weight matrix here is {shape}")
    weight, bias = matrices[0].weight.detach(), matrices[0].bias
    units = len(weight)

    @torch.no_grad()
    def regions(points: np.ndarray) -> np.ndarray:
        return frozen(torch.as_tensor(points, dtype=weight.dtype)).double().softmax(1).numpy()

    reads = matrices[1].weight.detach() if len(matrices) > 1 else torch.ones(1, units)
    return {
        "title": title,
        "weight": weight.numpy(),
        "bias": np.zeros(units) if bias is None else bias.detach().numpy(),
        "strength": reads.norm(dim=0).numpy() if reads.shape[1] == units else np.ones(units),
        "born": born,
        "regions": regions,
    }


def folds(frames, data) -> Scrubber:
    """Draw the plane of a two-input network: its decision regions, and every hidden unit's line coloured by birth.

    A line is where a unit's input is zero; its tick points to the side where it is on. Units whose outgoing weights are
    still close to zero are dotted: nothing hears them yet.

    Args:
        frames: snapshots in order, or name -> snapshots, such as {"naive": ..., "zero_out": ...}, to choose from.
            A snapshot of your own is a dict with "weight" (units, 2), "bias" (units,) and "regions", a function from
            points (N, 2) to class probabilities (N, classes); "title", "born" and "strength" may be left out.
        data: a Dataset of points, or (points (N, 2), labels (N,)).

    Returns:
        The slider.

    Raises:
        ValueError: no snapshot, or data that are not points of the plane.
    """
    points, labels = (data.train.images, data.train.labels) if hasattr(data, "train") else data
    points, labels = _array(points).astype(float), _array(labels)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"folds are drawn on the plane: the data have shape {points.shape}, not (N, 2)")
    runs = frames if isinstance(frames, dict) else {"": frames}
    empty = [name for name, run in runs.items() if not len(run)]
    if empty or not runs:
        raise ValueError(f"there is no snapshot to draw {'for ' + repr(empty[0]) if empty else ''}".strip())
    plane = _Plane(points)
    births = {name: _births(run) for name, run in runs.items()}
    times = sorted({time for run in births.values() for born in run for time in born})
    colors = dict(zip(times, shades(len(times)), strict=True))
    arms = {}
    for name, run in runs.items():
        pictures = [_picture(*one, colors, plane) for one in zip(run, births[name], strict=True)]
        told = [_told(frame, points, labels) for frame in run]
        alts = [f"The plane of the data, folded along one line for each hidden unit: {text}" for text in told]
        arms[name] = arm(pictures, told, alts, name)
    return Scrubber(arms, _shell(plane, points, labels), _key(colors))


def _array(values) -> np.ndarray:
    return np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values)


class _Plane:
    """The square of the plane that is drawn, and the way from its points to the picture's."""

    def __init__(self, points: np.ndarray):
        low, high = points.min(0), points.max(0)
        self.middle = (low + high) / 2
        self.half = 0.56 * max((high - low).max(), 1e-6)

    def grid(self) -> np.ndarray:
        """Return the points of a square grid, (rows x columns, 2), the upper row first."""
        steps = np.linspace(-self.half, self.half, _GRID)
        x, y = np.meshgrid(self.middle[0] + steps, self.middle[1] - steps)
        return np.stack([x.ravel(), y.ravel()], axis=1)

    def pixels(self, points: np.ndarray) -> np.ndarray:
        places = (points - self.middle) / self.half * np.array([1, -1])
        return np.rint((places + 1) / 2 * _SIDE).astype(int)

    def cut(self, weight: np.ndarray, bias: float) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the two ends of the line weight x + bias = 0 inside the square, or None where it misses the square."""
        size = np.linalg.norm(weight)
        if size < 1e-12:
            return None
        normal = weight / size
        along = np.array([-normal[1], normal[0]])
        foot = -normal * (bias / size + normal @ self.middle)  # the line's nearest point, seen from the middle
        low, high = -np.inf, np.inf
        for start, slope in zip(foot, along, strict=True):
            if abs(slope) < 1e-9:
                if abs(start) > self.half:
                    return None
                continue
            ends = sorted(((-self.half - start) / slope, (self.half - start) / slope))
            low, high = max(low, ends[0]), min(high, ends[1])
        return (self.middle + foot + low * along, self.middle + foot + high * along) if low < high else None


def _births(run: list[dict]) -> list[list]:
    """Return when each unit of each snapshot was born: as it says, else the first snapshot that is wide enough."""
    first: list[int] = []
    for number, frame in enumerate(run):
        first += [number] * (len(frame["weight"]) - len(first))
    births = []
    for frame in run:
        born = frame.get("born")
        births.append(first[: len(frame["weight"])] if born is None else [float(time) for time in born])
    return births


def _picture(frame: dict, born: list, colors: dict, plane: _Plane) -> str:
    weight, bias = np.asarray(frame["weight"], dtype=float), np.asarray(frame["bias"], dtype=float)
    strength = np.asarray(frame.get("strength", np.ones(len(weight))), dtype=float)
    strength = strength / max(strength.max(initial=0), 1e-12)
    parts = [_regions(frame["regions"], plane)]
    for row, offset, loud, time in zip(weight, bias, strength, born, strict=True):
        ends = plane.cut(row, offset)
        if ends is None:
            continue
        (x, y), (to_x, to_y) = plane.pixels(np.array(ends))
        middle = plane.pixels(np.mean(ends, axis=0))
        tick = np.rint(22 * row / np.linalg.norm(row) * [1, -1]).astype(int)
        path = f"M{x} {y}L{to_x} {to_y}M{middle[0]} {middle[1]}l{tick[0]} {tick[1]}"
        dots = ' stroke-dasharray="2 14"' if loud < 0.05 else ""
        parts.append(f'<path d="{path}" stroke="{colors[time]}" opacity="{0.45 + 0.55 * loud:.2f}"{dots}/>')
    return "".join(parts)


def _regions(regions, plane: _Plane) -> str:
    """Fill every class but the first: the more classes, the more greys."""
    scores = np.log(np.maximum(regions(plane.grid()), 1e-12)).reshape(_GRID, _GRID, -1)
    classes, axis = scores.shape[-1], np.linspace(0, _SIDE, _GRID)
    parts = []
    for number in range(1, classes):
        margin = scores[..., number] - np.delete(scores, number, axis=-1).max(-1)
        contours = contour_generator(axis, axis, margin, fill_type=FillType.OuterOffset)
        path = "".join(
            _outline(points[start:end])
            for points, offsets in zip(*contours.filled(0, np.inf), strict=True)
            for start, end in zip(offsets[:-1], offsets[1:], strict=True)
        )
        grey = 0.3 * number / (classes - 1)
        parts.append(f'<path d="{path}" fill="{INK}" fill-opacity="{grey:.2f}" stroke="{INK}" stroke-width="3"/>')
    return "".join(parts)


def _outline(points: np.ndarray) -> str:
    places = np.rint(points).astype(int)
    moves = np.diff(places[:-1], axis=0)
    return f"M{places[0, 0]} {places[0, 1]}l" + " ".join(f"{x} {y}" for x, y in moves) + "z"


def _told(frame: dict, points: np.ndarray, labels: np.ndarray) -> str:
    right = (frame["regions"](points).argmax(1) == labels).mean()
    units = len(frame["weight"])
    words = [frame.get("title", ""), f"{units} unit" + "s" * (units != 1), f"{right:.0%} right".replace("%", " %")]
    return " · ".join(word for word in words if word)


def _shell(plane: _Plane, points: np.ndarray, labels: np.ndarray) -> str:
    """Draw what never changes once: the points, a shape for each class."""
    every = -(-len(points) // 400)
    shapes = ["m-7 0a7 7 0 1 0 14 0a7 7 0 1 0-14 0", "m-5-5l10 10m0-10l-10 10", "m-7 6h14l-7-13z"]
    looks = ['fill="none"', 'fill="none"', 'fill="currentColor"']
    drawn = []
    for number in np.unique(labels):
        places = plane.pixels(points[labels == number][::every])
        kind = int(number) % len(shapes)
        path = "".join(f"M{x} {y}{shapes[kind]}" for x, y in places)
        drawn.append(f'<path d="{path}" {looks[kind]} stroke="currentColor" stroke-width="2.5" opacity=".8"/>')
    return (
        f'<svg viewBox="0 0 {_SIDE} {_SIDE}"><g class="slot" fill="none" stroke-width="5">$frame</g>{"".join(drawn)}'
        f'<rect width="{_SIDE}" height="{_SIDE}" fill="none" stroke="{INK}" stroke-width="3"/></svg>'
    )


def _key(colors: dict) -> str:
    """Tell the order of birth: first colour, last colour, all between."""
    width = max(4, 16 - len(colors) // 2)
    look = f"display:inline-block;width:{width}px;height:5px;margin:0 1px;vertical-align:middle;background:"
    line = "".join(f'<span style="{look}{color}"></span>' for color in colors.values())
    return f"<div>units born first {line} last</div>" if len(colors) > 1 else ""
