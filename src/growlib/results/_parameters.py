"""The parameters of a chapter: what each takes, checked in one line before anything is computed."""

import difflib
import math
import re
from collections.abc import Callable
from numbers import Integral, Real

import torch

from growlib.results._profiles import PROFILES


def _number(kind: type, fits: Callable[[float], bool]) -> Callable[[object], bool]:
    """Whether something is a number of a kind that fits; True and False are none."""
    return lambda value: isinstance(value, kind) and not isinstance(value, bool) and fits(value)


def _known_device(value) -> bool:
    return isinstance(value, str) and re.fullmatch(r"auto|cpu|cuda(:\d+)?", value) is not None


SEED = ("a whole number from 0 on", _number(Integral, lambda n: n >= 0))
COUNT = ("a whole number from 1 on", _number(Integral, lambda n: n >= 1))
ABOVE_0 = ("a finite number above 0", _number(Real, lambda x: 0 < x < math.inf))
STRENGTH = ("a finite number from 0 on", _number(Real, lambda x: 0 <= x < math.inf))
SHARE = ("a number above 0, and at most 1", _number(Real, lambda x: 0 < x <= 1))
TAKES = {  # by the name of a parameter: in words, and whether a value fits
    "profile": (f"one of {', '.join(PROFILES)}", lambda value: value in PROFILES),
    "device": ("auto, cpu, cuda or cuda:N", _known_device),
    "seed": SEED,
    "rate": ABOVE_0,
    "strength": STRENGTH,
    **dict.fromkeys(("density", "keep", "share", "target"), SHARE),
    **dict.fromkeys(("epochs", "rounds", "period", "batch", "memory", "processes"), COUNT),
    **dict.fromkeys(("growth", "width", "block", "by", "start", "limit"), COUNT),  # units
}


def check_parameters(**given):
    """Refuses values that a chapter can't be run with, before anything is computed.

    Args:
        given: The value of each parameter, by its name; or a tuple of it and what this chapter takes besides, such as
            `epochs=(epochs, 0)` where 0 leaves it to the profile, and `size=(size, "small", "large")`.

    Raises:
        ValueError: The first value that does not fit, with the parameter's name and what it takes.
        TypeError: A name that is not known here, without a list of what it takes.
    """
    for name, value in given.items():
        value, *besides = value if isinstance(value, tuple) else (value,)
        words, fits = TAKES.get(name, ("", lambda value: False))
        if not words and not besides:
            raise TypeError(f"what does {name!r} take? Known are {', '.join(TAKES)}; else {name}=({name}, 'a', 'b')")
        if fits(value) or any(type(value) is type(one) and value == one for one in besides):
            _refuse_absent(name, value)
            continue
        takes = " or ".join([words] * bool(words) + [", ".join(map(str, besides))] * bool(besides))
        raise ValueError(f"the parameter {name} takes {takes}, and got {value!r}{_meant(name, value, besides)}")


def _refuse_absent(name: str, value):
    if name == "device" and value.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"the parameter device is {value!r}, and torch finds no such device here: take 'auto' or 'cpu'"
        )


def _meant(name: str, value, besides: list) -> str:
    """A hint, where one is at hand."""
    if name == "profile":
        return " (GROWLIB_PROFILE in the environment decides where nothing is given)"
    close = difflib.get_close_matches(str(value), map(str, besides), 1)
    return f": did you mean {close[0]!r}?" if close else ""
