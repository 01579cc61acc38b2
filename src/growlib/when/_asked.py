"""Trigger, and the triggers that ask about the moment, the model and its costs."""

from collections.abc import Callable
from contextlib import nullcontext

from growlib import costs
from growlib.layers import hidden_of, tasks_of
from growlib.numbers import is_whole

UNITS = {"step": "step", "steps": "step", "epoch": "epoch", "epochs": "epoch"}


EVERY_MOMENT = frozenset({"step", "epoch", "task"})


class Trigger:
    """A question to the trainer about a hidden layer.

    Args:
        text: How it is written.
        ask: (trainer, hidden) -> cause or None.
        moments: After what it can fire: "step", "epoch", "task".
        ranges: The readings with which it can fire, by signal or column.
    """

    def __init__(self, text: str, ask: Callable, moments=EVERY_MOMENT, ranges: dict | None = None):
        self.text, self.ask, self.moments, self.ranges = text, ask, frozenset(moments), ranges or {}

    def __call__(self, trainer, hidden=None) -> str | None:
        return self.ask(trainer, hidden)

    def __and__(self, other: "Trigger") -> "Trigger":
        def both(trainer, hidden):
            first = self(trainer, hidden)
            second = first and other(trainer, hidden)
            return f"{first}, {second}" if second else None

        return Trigger(f"({self} & {other})", both, *_common(self, other))

    def __or__(self, other: "Trigger") -> "Trigger":
        def either(trainer, hidden):
            return self(trainer, hidden) or other(trainer, hidden)

        return Trigger(f"({self} | {other})", either, self.moments | other.moments)

    def __invert__(self) -> "Trigger":
        return Trigger(f"~{self}", lambda trainer, hidden: None if self(trainer, hidden) else f"not {self}")

    def __repr__(self) -> str:
        return self.text


def _common(one: Trigger, other: Trigger) -> tuple[frozenset, dict]:
    """The moments and the readings at which both fire."""
    moments, ranges = one.moments & other.moments, {**one.ranges, **other.ranges}
    if not moments:
        first, second = (" or ".join(sorted(each.moments)) for each in (one, other))
        raise ValueError(
            f"{one} & {other} can never fire: the first fires at the end of: {first}; the second of: {second}. Columns "
            "of History are new at the end of an epoch, so put every(1, 'epoch') before them, or nothing"
        )
    for name in one.ranges.keys() & other.ranges.keys():
        (low, high), (bottom, top) = one.ranges[name], other.ranges[name]
        ranges[name] = max(low, bottom), min(high, top)
        if ranges[name][0] >= ranges[name][1]:
            raise ValueError(
                f"{one} & {other} can never fire: {name} cannot be above {ranges[name][0]:g} and below "
                f"{ranges[name][1]:g}. Did you mean | ?"
            )
    return moments, ranges


def every(number: int, unit: str) -> Trigger:
    """Fires every `number` steps or epochs, after the last one too."""
    if not is_whole(number):
        raise ValueError(f"every({number!r}, {unit!r}): the number must be a whole number of at least 1")
    if unit not in UNITS:
        raise ValueError(f"every({number!r}, {unit!r}): the unit must be one of {', '.join(UNITS)}")
    unit = UNITS[unit]

    def ask(trainer, hidden):
        now = getattr(trainer, unit)
        return f"{unit} {now}" if trainer.moment == unit and now % number == 0 else None

    return Trigger(f"every({number}, {unit!r})", ask, {unit})


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

    A polite question, where `Trainer(budget=)` is a wall. Pricing makes the change and undoes it: put it last.

    Args:
        params: Parameters, frozen ones too.
        flops: Floating-point operations of one forward pass of one example.
    """
    limits = {"params": (params, costs.parameters), "flops": (flops, costs.flops)}
    limits = {name: pair for name, pair in limits.items() if pair[0] is not None}
    if not limits:
        raise ValueError("within_budget() needs params=, flops= or both")

    def ask(trainer, hidden):
        with trainer.trial(*trainer.proposal()) if trainer.proposal else nullcontext(trainer.model) as model:
            prices = {name: cost(model) for name, (_, cost) in limits.items()}
        texts = [f"{prices[name]:,} <= {limit:,} {name}" for name, (limit, _) in limits.items()]
        return ", ".join(texts) if all(prices[name] <= limit for name, (limit, _) in limits.items()) else None

    return Trigger(f"within_budget({', '.join(f'{name}={limit}' for name, (limit, _) in limits.items())})", ask)


def new_task() -> Trigger:
    """Fires when a task begins that the model does not know."""

    def ask(trainer, hidden):
        if (tasks := tasks_of(trainer.model)) is None:
            raise ValueError(
                f"new_task() asks what tasks a model knows, and {type(trainer.model).__name__} has no `tasks`"
            )
        known = trainer.data.name in tasks
        return None if trainer.moment != "task" or known else f"new task {trainer.data.name!r}"

    return Trigger("new_task()", ask, {"task"})
