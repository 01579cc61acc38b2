"""Where a model grows, and how much: choices among hidden layers, and numbers of units."""

import math
from collections.abc import Callable

from growlib.when import reading


def each(trainer, hidden: list) -> list:
    """All hidden layers: each decides for itself."""
    return hidden


def loudest(signal: Callable) -> Callable:
    """Of the layers whose trigger fires, the one with the largest reading of a signal.

    Args:
        signal: (probe, hidden) -> a number or (units,), see `growlib.signals`.
    """
    return _first(f"loudest({signal.__name__})", signal, max)


def quietest(signal: Callable) -> Callable:
    """Of the layers whose trigger fires, the one with the smallest reading of a signal."""
    return _first(f"quietest({signal.__name__})", signal, min)


def by_shortfall(signal: Callable, value: float, most: int = 64) -> Callable:
    """How many units: the share of `value` by which the reading misses it, as a share of the layer's width.

    Args:
        signal: (probe, hidden) -> a number or (units,).
        value: The threshold of the trigger.
        most: A limit on the number.

    Returns:
        (trainer, hidden) -> a number of units, whole groups where a layer has them, and at least one.
    """
    if not value or most < 1:
        raise ValueError(f"by_shortfall({signal.__name__}, {value}, {most}): the value is not 0, and most at least 1")

    def by(trainer, hidden) -> int:
        missed = abs(reading(trainer, signal, hidden) - value) / abs(value)
        units = min(most, hidden.width * missed)
        return max(1, math.ceil(units / hidden.unit)) * hidden.unit

    by.__name__ = f"by_shortfall({signal.__name__}, {value:g}, {most})"
    return by


def _first(name: str, signal: Callable, best: Callable) -> Callable:
    def where(trainer, hidden: list) -> list:
        return [best(hidden, key=lambda layer: reading(trainer, signal, layer))] if hidden else []

    where.__name__ = name
    return where
