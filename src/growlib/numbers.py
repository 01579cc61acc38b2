"""What counts as a whole number: those of numpy do, True and False do not."""

from numbers import Integral


def is_whole(value, least: int = 1) -> bool:
    """Whether something is a whole number of at least so much."""
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= least
