"""Triggers: when a callback acts. They combine with & | ~, and hold no state beyond the trainer's History.

A trigger is asked as `trigger(trainer, hidden)` and answers with its cause, a text with the values that fired it, or
None. Periods fire at the end of their unit; those that read History fire once per new record, at the end of an epoch.
"""

from collections.abc import Callable

from growlib import costs
from growlib.data import not_test
from growlib.growth import hidden_of

UNITS = {"step": "step", "steps": "step", "epoch": "epoch", "epochs": "epoch"}


class Trigger:
    """A question to the trainer about a hidden layer, and how it is written."""

    def __init__(self, text: str, ask: Callable):
        self.text, self.ask = text, ask

    def __call__(self, trainer, hidden=None) -> str | None:
        return self.ask(trainer, hidden)

    def __and__(self, other: "Trigger") -> "Trigger":
        def both(trainer, hidden):
            first = self(trainer, hidden)
            second = first and other(trainer, hidden)
            return f"{first}, {second}" if second else None

        return Trigger(f"({self} & {other})", both)

    def __or__(self, other: "Trigger") -> "Trigger":
        return Trigger(f"({self} | {other})", lambda trainer, hidden: self(trainer, hidden) or other(trainer, hidden))

    def __invert__(self) -> "Trigger":
        return Trigger(f"~{self}", lambda trainer, hidden: None if self(trainer, hidden) else f"not {self}")

    def __repr__(self) -> str:
        return self.text


def every(number: int, unit: str) -> Trigger:
    """Fires every `number` steps or epochs, after the last one too."""
    if not isinstance(number, int) or number < 1:
        raise ValueError(f"every({number!r}, {unit!r}): the number must be a whole number of at least 1")
    if unit not in UNITS:
        raise ValueError(f"every({number!r}, {unit!r}): the unit must be one of {', '.join(UNITS)}")
    unit = UNITS[unit]

    def ask(trainer, hidden):
        now = getattr(trainer, unit)
        return f"{unit} {now}" if trainer.moment == unit and now % number == 0 else None

    return Trigger(f"every({number}, {unit!r})", ask)


def narrower_than(width: int) -> Trigger:
    """True of a hidden layer that has fewer units than `width`."""

    def ask(trainer, hidden):
        return f"width {hidden.width} < {width}" if hidden.width < width else None

    return Trigger(f"narrower_than({width})", ask)


def shallower_than(depth: int) -> Trigger:
    """True of a model that has fewer hidden layers than `depth`."""

    def ask(trainer, hidden):
        now = len(hidden_of(trainer.model))
        return f"depth {now} < {depth}" if now < depth else None

    return Trigger(f"shallower_than({depth})", ask)


def within_budget(params: int | None = None, flops: int | None = None) -> Trigger:
    """True if the model, after the change that is asked about, costs no more than this.

    A polite question, where `Trainer(budget=)` is a wall. Pricing tries the change on a copy: put cheap clauses first.

    Args:
        params: Parameters, frozen ones too.
        flops: Floating-point operations of one forward pass of one example.
    """
    limits = {"params": (params, costs.parameters), "flops": (flops, costs.flops)}
    limits = {name: pair for name, pair in limits.items() if pair[0] is not None}
    if not limits:
        raise ValueError("within_budget() needs params=, flops= or both")

    def ask(trainer, hidden):
        model = trainer.trial(*trainer.proposal) if trainer.proposal else trainer.model
        prices = {name: cost(model) for name, (_, cost) in limits.items()}
        texts = [f"{prices[name]:,} <= {limit:,} {name}" for name, (limit, _) in limits.items()]
        return ", ".join(texts) if all(prices[name] <= limit for name, (limit, _) in limits.items()) else None

    return Trigger(f"within_budget({', '.join(f'{name}={limit}' for name, (limit, _) in limits.items())})", ask)


def plateau(column: str, patience: int, unit: str = "epochs") -> Trigger:
    """Fires when a column of History has not improved for `patience` epochs, counted anew after every change.

    Args:
        column: A loss (smaller is better) or anything else (larger is better), but nothing measured on test data.
        patience: The number of epochs without a new best value.
        unit: "epochs", the only unit that History records.
    """
    not_test(column)
    if UNITS.get(unit) != "epoch" or not isinstance(patience, int) or patience < 1:
        raise ValueError(f"plateau({column!r}, {patience!r}, {unit!r}): give a whole number of epochs, at least 1")

    def ask(trainer, hidden):
        if trainer.moment != "epoch":
            return None
        values = trainer.history.column(column, since=_last_change(trainer.history, hidden))
        best = [improvement(column, value) for value in values]
        if len(best) <= patience or max(best[-patience:]) > max(best[:-patience]):
            return None
        return f"{column} no better than {abs(max(best)):.4g} for {patience} epochs"

    return Trigger(f"plateau({column!r}, {patience}, 'epochs')", ask)


def new_task() -> Trigger:
    """Fires when a task begins that the model does not know."""

    def ask(trainer, hidden):
        known = trainer.data.name in trainer.model.tasks
        return None if trainer.moment != "task" or known else f"new task {trainer.data.name!r}"

    return Trigger("new_task()", ask)


def below(column: str, value: float, patience: int = 1) -> Trigger:
    """Fires when a column of History has been below a value for some epochs, counted anew after every change.

    Args:
        column: Anything but what is measured on test data.
        value: The threshold.
        patience: In epochs.
    """
    return _beyond("below", "<", column, value, patience)


def above(column: str, value: float, patience: int = 1) -> Trigger:
    """Fires when a column of History has been above a value for some epochs; the arguments are those of `below`."""
    return _beyond("above", ">", column, value, patience)


def _beyond(name: str, sign: str, column: str, value: float, patience: int) -> Trigger:
    not_test(column)
    if not isinstance(patience, int) or patience < 1:
        raise ValueError(f"{name}({column!r}, {value!r}, {patience!r}): patience must be a whole number of epochs")

    def ask(trainer, hidden):
        if trainer.moment != "epoch":
            return None
        last = trainer.history.column(column, since=_last_change(trainer.history, hidden))[-patience:]
        beyond = [reading < value if sign == "<" else reading > value for reading in last]
        if len(last) < patience or not all(beyond):
            return None
        return f"{column} {last[-1]:.4g} {sign} {value:g}" + (f" for {patience} epochs" if patience > 1 else "")

    return Trigger(f"{name}({column!r}, {value!r}, {patience})", ask)


def improvement(column: str, value: float) -> float:
    """The value with the sign that makes larger better."""
    return -value if column.endswith("loss") else value


def _last_change(history, hidden) -> int:
    """The step of the last change of a layer, or of any layer; a new layer or task is a change of all."""
    changes = [
        c for c in history.changes if hidden is None or c["layer"] == hidden.name or c["kind"] in ("deepen", "task")
    ]
    return max((change["step"] for change in changes), default=-1)
