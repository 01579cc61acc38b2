"""Carts that balance a pole, side by side: a film over states recorded beforehand."""

import html
from itertools import count

import numpy as np

from growlib.plots._scrubber import Scrubber, arm
from growlib.plots._style import INK, shades

_WIDE, _HIGH, _FLOOR = 420, 208, 150  # of one cart's stage, in the picture's own units
_METRE = 80


def poles(films: dict, stride: int = 3, seconds: float = 0.02) -> Scrubber:
    """Show episodes of CartPole side by side, as a film in real time that begins anew at its end.

    A cart whose episode is over stays where that happened, and turns grey.

    Args:
        films: name -> the states of one episode, (steps, 4): position, velocity, angle in radians, angular velocity.
        stride: every how many steps to draw.
        seconds: of one step.

    Returns:
        The film.

    Raises:
        ValueError: no episode, or one that is not (steps, 4).
    """
    films = {name: np.asarray(states, dtype=float) for name, states in films.items()}
    wrong = [f"{name!r} of {states.shape}" for name, states in films.items() if states.ndim != 2 or not states.size]
    wrong += [f"{name!r} of {states.shape}" for name, states in films.items() if states.shape[1:] != (4,)]
    if wrong or not films:
        raise ValueError(f"poles are drawn from episodes of shape (steps, 4), not {wrong[0] if wrong else 'from none'}")
    steps = range(0, max(map(len, films.values())), stride)
    colors = shades(len(films))
    frames = ["".join(map(_cart, count(), films.values(), colors, [step] * len(films))) for step in steps]
    times = {name: len(states) * seconds for name, states in films.items()}
    alt = "Carts with a pole on top. " + ", ".join(f"{name}: over after {time:.1f} s" for name, time in times.items())
    labels = [f"{int(step * seconds)} s" for step in steps]
    stages = "".join(map(_stage, count(), times, times.values()))
    shell = f'<svg viewBox="0 0 {_WIDE * len(films)} {_HIGH}" font-size="22" text-anchor="middle">{stages}'
    return Scrubber(
        {"": arm(frames, labels, alt)}, shell + '<g class="slot">$frame</g></svg>', beat=round(1000 * stride * seconds)
    )


def _stage(place: int, name: str, time: float) -> str:
    left = _WIDE * place
    return (
        f'<path d="M{left + 18} {_FLOOR + 13}h{_WIDE - 36}" stroke="{INK}" stroke-width="3"/>'
        f'<text x="{left + _WIDE / 2}" y="{_HIGH - 14}" fill="currentColor">{html.escape(name)}: {time:.1f} s</text>'
    )


def _cart(place: int, states: np.ndarray, color: str, step: int) -> str:
    over = step >= len(states)
    x, _, angle, _ = states[min(step, len(states) - 1)]
    across = _WIDE * (place + 0.5) + _METRE * x
    tip = across + _METRE * np.sin(angle), _FLOOR - _METRE * np.cos(angle)
    color = INK if over else color
    return (
        f'<rect x="{across - 22:.1f}" y="{_FLOOR}" width="44" height="12" rx="4" fill="{INK}"/>'
        f'<path d="M{across:.1f} {_FLOOR}L{tip[0]:.1f} {tip[1]:.1f}" stroke="{color}" stroke-width="8" '
        'stroke-linecap="round"/>'
    )
