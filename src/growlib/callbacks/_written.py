"""How a callback is written: what a checkpoint compares when callbacks are passed again."""

import inspect

from growlib.trainer import Callback


def written(callback: Callback, *values, **named) -> str:
    """How a callback would be written, the same in every process: functions by their names."""

    def text(value):
        return value.__name__ if inspect.isfunction(value) or inspect.isclass(value) else repr(value)

    parts = [*map(text, values), *(f"{name}={text(value)}" for name, value in named.items())]
    return f"{type(callback).__name__}({', '.join(parts)})"
