"""Triggers that read: columns of History, by name, and signals, which are functions."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from growlib.data import not_test
from growlib.numbers import is_whole
from growlib.when._asked import UNITS, Trigger


def reading(trainer, signal: Callable, hidden) -> float:
    """What a signal says of a layer now: the mean of its units. It is recorded, and asked once a step.

    Args:
        trainer: In a run, after a step.
        signal: (probe, hidden) -> a number or (units,).
        hidden: The layer.
    """
    kept, name = trainer.history.readings, named(signal)
    for old in reversed(kept):
        if old["step"] != trainer.step:
            break
        if (old["layer"], old["signal"]) == (hidden.name, name):
            return old["value"]
    value = float(signal(trainer.probe(), hidden).float().mean())
    kept.append({"step": trainer.step, "layer": hidden.name, "signal": name, "value": value})
    return value


def named(what) -> str:
    """How a column or a signal is written."""
    if isinstance(what, partial):
        settings = [*what.args, *(f"{name}={named(value)}" for name, value in what.keywords.items())]
        return f"{named(what.func)}({', '.join(map(str, settings))})"
    return getattr(what, "__name__", what if isinstance(what, str) else repr(what))


@dataclass(frozen=True)
class Quantile:
    """A threshold that every layer finds by itself, see `quantile`."""

    share: float
    readings: int

    def __repr__(self) -> str:
        return f"quantile({self.share:g}, {self.readings})"


def quantile(share: float, readings: int = 20) -> Quantile:
    """A threshold for `below` and `above`: so large a share of the layer's first readings lies below it.

    Until there are that many, the trigger does not fire. So one setting serves tasks and layers whose signals have
    different scales.

    Args:
        share: From 0 to 1.
        readings: How many, from the start of the run.
    """
    if not 0 <= share <= 1 or readings < 2:
        raise ValueError(f"quantile({share}, {readings}): the share lies from 0 to 1, and two readings are the least")
    return Quantile(share, readings)


def below(what, value, patience: int = 1, rearm: float | None = None) -> Trigger:
    """Fires when the last readings are below a value; they are counted anew after every change of the layer.

    Args:
        what: A column of History, but nothing measured on test data; or a signal.
        value: The threshold: a number or a `quantile`.
        patience: How many readings in a row.
        rearm: After a change it fires only when it has been above this level again, which makes it slow to repeat
            itself (hysteresis).
    """
    return _beyond("below", "<", what, value, patience, rearm)


def above(what, value, patience: int = 1, rearm: float | None = None) -> Trigger:
    """Fires when the last readings are above a value; the arguments are those of `below`, with `rearm` below it."""
    return _beyond("above", ">", what, value, patience, rearm)


def drop_of(what, share: float, patience: int = 1) -> Trigger:
    """Fires when the last readings lie a share below the highest one since the last change of the layer.

    Args:
        what: A column of History or a signal, of positive values.
        share: Of the highest reading, between 0 and 1.
        patience: How many readings in a row.
    """
    _checked("drop_of", what, share, patience)
    if not 0 < share < 1:
        raise ValueError(f"drop_of({named(what)}, {share}): the share lies between 0 and 1")

    def ask(trainer, hidden):
        values = _values(trainer, what, hidden)
        if not values or len(values) <= patience or max(values[-patience:]) > (1 - share) * max(values):
            return None
        return f"{named(what)} {values[-1]:.4g}, {1 - values[-1] / max(values):.0%} below {max(values):.4g}"

    return Trigger(_written("drop_of", what, share, patience), ask, _moments(what))


def plateau(what, patience: int, unit: str = "epochs") -> Trigger:
    """Fires when nothing has been better than the best before for a while, counted anew after every change.

    Args:
        what: A column of History, but nothing measured on test data: a loss (smaller is better) or anything else
            (larger is better). Or a signal (larger is better).
        patience: The number of epochs, or readings, without a new best value.
        unit: "epochs" of a column, "readings" of a signal.
    """
    fits = unit == "readings" if callable(what) else UNITS.get(unit) == "epoch"
    if not fits or not is_whole(patience):
        raise ValueError(
            f"plateau({named(what)!r}, {patience!r}, {unit!r}): give a whole number of epochs, at least 1; "
            "of a signal, of 'readings'"
        )
    if isinstance(what, str):
        not_test(what)

    def ask(trainer, hidden):
        best = [improvement(named(what), value) for value in _values(trainer, what, hidden) or ()]
        if len(best) <= patience or max(best[-patience:]) > max(best[:-patience]):
            return None
        return f"{named(what)} no better than {abs(max(best)):.4g} for {patience} {unit}"

    unit = "readings" if callable(what) else "epochs"
    return Trigger(f"plateau({_quoted(what)}, {patience}, {unit!r})", ask, _moments(what))


def rested(number: int, unit: str) -> Trigger:
    """True of a layer whose last change is at least so many steps or epochs ago, or that has not changed (cool-down).

    Args:
        number: At least 1.
        unit: "steps" or "epochs".
    """
    if not is_whole(number) or unit not in UNITS:
        raise ValueError(f"rested({number!r}, {unit!r}): a whole number, at least 1, of {', '.join(UNITS)}")
    unit = UNITS[unit]

    def ask(trainer, hidden):
        changes = _changes(trainer.history, hidden)
        past = getattr(trainer, unit) - max((change[unit] for change in changes), default=-math.inf)
        if past < number:
            return None
        return f"rested {past} {unit}s" if changes else "never changed"

    return Trigger(f"rested({number}, {unit + 's'!r})", ask)


def worthwhile(column: str, share: float = 0.01) -> Trigger:
    """True while growing pays: since the model last changed, the best value has become better by a share.

    Before the first change it is true; right after one it waits for the next record.

    Args:
        column: Of History, but nothing measured on test data.
        share: Of the best value before the change.
    """
    not_test(column)
    if share < 0:
        raise ValueError(f"worthwhile({column!r}, {share}): the share is at least 0")

    def ask(trainer, hidden):
        steps = [change["step"] for change in trainer.history.changes if change["step"] < trainer.step]
        if not steps:
            return "nothing has grown yet"
        values = [improvement(column, value) for value in trainer.history.column(column)]
        after = [improvement(column, value) for value in trainer.history.column(column, since=steps[-1])]
        if not after or len(after) == len(values):
            return None
        old, new = max(values[: -len(after)]), max(after)
        gain = (new - old) / abs(old) if old else math.inf
        return f"{column} {gain:.1%} better since it grew" if gain >= share else None

    return Trigger(f"worthwhile({column!r}, {share:g})", ask)


def improvement(column: str, value: float) -> float:
    """The value with the sign that makes larger better."""
    return -value if column.endswith("loss") else value


def _beyond(name: str, sign: str, what, value, patience: int, rearm: float | None) -> Trigger:
    _checked(name, what, value, patience)
    turn = 1 if sign == "<" else -1
    own = isinstance(value, Quantile)
    if rearm is not None and (own or turn * rearm <= turn * value):
        raise ValueError(
            f"{name}({named(what)}, {value}, rearm={rearm}) could fire at once again: rearm must be a number "
            f"{'above' if turn > 0 else 'below'} a threshold that is a number"
        )

    def ask(trainer, hidden):
        values = _values(trainer, what, hidden)
        limit = _calibrated(trainer, what, hidden, value) if own and values else value
        if not values or limit is None or len(values) < patience:
            return None
        waiting = rearm is not None and _changes(trainer.history, hidden)
        if waiting and not any(turn * reading >= turn * rearm for reading in values):
            return None
        if not all(turn * reading < turn * limit for reading in values[-patience:]):
            return None
        unit = "epochs" if isinstance(what, str) else "readings"
        return f"{named(what)} {values[-1]:.4g} {sign} {limit:.4g}" + (
            f" for {patience} {unit}" if patience > 1 else ""
        )

    ranges = {} if own else {named(what): (-math.inf, value) if turn > 0 else (value, math.inf)}
    rest = "" if rearm is None else f", rearm={rearm:g}"
    return Trigger(_written(name, what, value, patience)[:-1] + rest + ")", ask, _moments(what), ranges)


def _checked(name: str, what, value, patience):
    if isinstance(what, str):
        not_test(what)
    elif not callable(what):
        raise ValueError(f"{name}({what!r}, ...): give a column of History, a text, or a signal, a function")
    if not is_whole(patience):
        raise ValueError(
            f"{name}({_quoted(what)}, {value!r}, {patience!r}): patience must be a whole number of "
            f"{'readings' if callable(what) else 'epochs'}, at least 1"
        )


def _values(trainer, what, hidden) -> list[float] | None:
    """The readings since the last change, and of the present task; None where there is nothing new."""
    begun = [change["step"] for change in _changes(trainer.history, hidden)] + trainer.history.starts[-1:]
    since = max(begun, default=-1)
    if isinstance(what, str):
        return trainer.history.column(what, since) if trainer.moment == "epoch" else None
    if trainer.moment not in ("step", "epoch"):
        return None
    if hidden is None:
        raise ValueError(f"{named(what)} is a signal of a layer, and this callback asks about none: use a column")
    reading(trainer, what, hidden)
    return trainer.history.read(named(what), hidden.name, since)


def _calibrated(trainer, what, hidden, limit: Quantile) -> float | None:
    name = None if hidden is None else hidden.name
    values = trainer.history.column(what) if isinstance(what, str) else trainer.history.read(named(what), name)
    return float(np.quantile(values[: limit.readings], limit.share)) if len(values) >= limit.readings else None


def _changes(history, hidden) -> list[dict]:
    """The changes of a layer, or of any layer; a new layer or task is a change of all."""
    return [
        c for c in history.changes if hidden is None or c["layer"] == hidden.name or c["kind"] in ("deepen", "task")
    ]


def _moments(what) -> set[str]:
    return {"epoch"} if isinstance(what, str) else {"step", "epoch"}


def _quoted(what) -> str:
    return repr(what) if isinstance(what, str) else named(what)


def _written(name: str, what, value, patience: int) -> str:
    return f"{name}({_quoted(what)}, {value!r}, {patience})"
