"""Recorded runs: one JSON file a run, tables with intervals from them, and the grid runner that makes them."""

from growlib.results._parameters import check_parameters
from growlib.results._profiles import PROFILES, by_profile
from growlib.results._records import chapters, describe, read, record, value
from growlib.results._runner import grid
from growlib.results._tables import interval, seeds, stamp, table

__all__ = [
    "PROFILES",
    "by_profile",
    "chapters",
    "check_parameters",
    "describe",
    "grid",
    "interval",
    "read",
    "record",
    "seeds",
    "stamp",
    "table",
    "value",
]
