"""Trigger, and the triggers that ask about the moment, the model and its costs."""

from collections.abc import Callable

from growlib import costs
from growlib.growth import hidden_of

UNITS = {"step": "step", "steps": "step", "epoch": "epoch", "epochs": "epoch"}


class Trigger:
    """A question to the trainer about a hidden layer, how it is written, and the readings with which it can fire."""

    def __init__(self, text: str, ask: Callable, ranges: dict[str, tuple[float, float]] | None = None):
        self.text, self.ask, self.ranges = text, ask, ranges or {}

    def __call__(self, trainer, hidden=None) -> str | None:
        return self.ask(trainer, hidden)

    def __and__(self, other: "Trigger") -> "Trigger":
        def both(trainer, hidden):
            first = self(trainer, hidden)
            second = first and other(trainer, hidden)
            return f"{first}, {second}" if second else None

        return Trigger(f"({self} & {other})", both, _common(self, other))

    def __or__(self, other: "Trigger") -> "Trigger":
        return Trigger(f"({self} | {other})", lambda trainer, hidden: self(trainer, hidden) or other(trainer, hidden))

    def __invert__(self) -> "Trigger":
        return Trigger(f"~{self}", lambda trainer, hidden: None if self(trainer, hidden) else f"not {self}")

    def __repr__(self) -> str:
        return self.text


def _common(one: Trigger, other: Trigger) -> dict[str, tuple[float, float]]:
    """The readings with which both fire."""
    ranges = {**one.ranges, **other.ranges}
    for name in one.ranges.keys() & other.ranges.keys():
        (low, high), (bottom, top) = one.ranges[name], other.ranges[name]
        ranges[name] = max(low, bottom), min(high, top)
        if ranges[name][0] >= ranges[name][1]:
            raise ValueError(
                f"{one} & {other} can never fire: {name} cannot be above {ranges[name][0]:g} and below "
                f"{ranges[name][1]:g}. Did you mean | ?"
            )
    return ranges


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
        model = trainer.trial(*trainer.proposal()) if trainer.proposal else trainer.model
        prices = {name: cost(model) for name, (_, cost) in limits.items()}
        texts = [f"{prices[name]:,} <= {limit:,} {name}" for name, (limit, _) in limits.items()]
        return ", ".join(texts) if all(prices[name] <= limit for name, (limit, _) in limits.items()) else None

    return Trigger(f"within_budget({', '.join(f'{name}={limit}' for name, (limit, _) in limits.items())})", ask)


def new_task() -> Trigger:
    """Fires when a task begins that the model does not know."""

    def ask(trainer, hidden):
        known = trainer.data.name in trainer.model.tasks
        return None if trainer.moment != "task" or known else f"new task {trainer.data.name!r}"

    return Trigger("new_task()", ask)
