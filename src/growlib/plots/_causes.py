"""Causes read aloud: the clauses of a trigger's text, with their values, as plain sentences."""

import re

_NUMBER = r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?|-?inf|nan"
_CROSSED = re.compile(rf" ({_NUMBER}) ([<>]) ({_NUMBER})(?: for (\d+) (\w+))?")
_STALLED = re.compile(rf" no better than ({_NUMBER}) for (\d+) (\w+)")
_FALLEN = re.compile(rf" ({_NUMBER}), (\d+%) below ({_NUMBER})")
_OTHERS = (  # clauses that are not about a reading
    (rf"(width|depth) ({_NUMBER}) < ({_NUMBER})", r"the \1 of \2 was under its limit, \3"),
    (r"(step|epoch) (\d+)", r"the clock struck at \1 \2"),
    (r"rested (\d+) (\w+)", r"it had rested for \1 \2"),
    (r"never changed", "it had never changed"),
    (r"nothing has grown yet", "nothing had grown before"),
    (rf"({_NUMBER}) <= ({_NUMBER}) (\w+)", r"\1 \3 are within the budget of \2"),
    (r"(\w+) (\S+%) better since it grew", r"\1 had become \2 better since the last change"),
)


def reading_of(cause: str, names) -> dict | None:
    """Find the first reading that a cause tells of.

    Args:
        cause: The text of a Change.
        names: Of the columns and signals that there are.

    Returns:
        "name", "value" (that fired; None where only a best one is told), "level" (the threshold, or the best value
        before), "text" (a clause of a sentence) and "span" (where in the cause); or None.
    """
    found = []
    for name in names:
        for start in re.finditer(rf"(?:^|, ){re.escape(name)}(?= )", cause):
            if told := _told(name, cause, start.end()):
                found.append(told | {"name": name, "span": (start.end() - len(name), told["end"])})
    return min(found, key=lambda one: one["span"][0], default=None)


def sentence(change: dict, names) -> str:
    """Say why a layer changed, in plain words."""
    verb = {"widen": "grew", "prune": "shrank"}.get(change["kind"])
    units = f"{change['after']} unit{'s' * (change['after'] != 1)}"
    what = f"{change['layer']} {verb} from {change['before']} to {units}" if verb else f"{change['layer']} was made"
    return f"After step {change['step']} {what}: {'; '.join(_clauses(change['cause'], names)) or 'no cause is told'}."


def _clauses(cause: str, names) -> list[str]:
    told = reading_of(cause, names)
    if told is None:
        return [_plain(part) for part in cause.split(", ") if part]
    before, after = cause[: told["span"][0]].rstrip(", "), cause[told["span"][1] :].removeprefix(", ")
    # The step is told already, and when it was time to look is no reason.
    asides = [_plain(part) for part in before.split(", ") if part and not re.fullmatch(r"(step|epoch) \d+", part)]
    return [told["text"], *asides, *_clauses(after, names)]


def _plain(clause: str) -> str:
    for pattern, words in _OTHERS:
        if re.fullmatch(pattern, clause):
            return re.sub(pattern, words, clause)
    return clause


def _told(name: str, cause: str, at: int) -> dict | None:
    if match := _CROSSED.match(cause, at):
        value, sign, limit, times, unit = match.groups()
        text = f"{name} was {value}, {'below' if sign == '<' else 'above'} its threshold, {limit}"
        text += f", for {times} {unit} in a row" if times else ""
    elif match := _STALLED.match(cause, at):
        limit, times, unit = match.groups()
        value, text = None, f"{name} had not got better than {limit} for {times} {unit}"
    elif match := _FALLEN.match(cause, at):
        value, share, limit = match.groups()
        text = f"{name} was {value}, {share} below its highest reading, {limit}"
    else:
        return None
    return {"value": value and _number(value), "level": _number(limit), "text": text, "end": match.end()}


def _number(text: str) -> float:
    return float(text.replace(",", ""))
