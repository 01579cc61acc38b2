"""What recorded runs add up to: means with intervals, and the stamp that says where they come from."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

from growlib.results._records import DIFFERENCES, FRACTIONS, is_fraction, read, value

if TYPE_CHECKING:
    import pandas as pd


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean of a sample and the half-width of its 95 % Student t interval.

    Args:
        values: One number a seed.

    Returns:
        Mean and half-width, which is nan for a single value.

    Raises:
        ImportError: scipy is not installed.
    """
    try:
        from scipy.special import stdtrit  # the quantile of scipy.stats.t, which takes a second more to import
    except ImportError as error:
        raise ImportError("an interval needs scipy: pip install 'growlib[analysis]'") from error
    sample = np.asarray(values, dtype=float)
    if len(sample) < 2:
        return float(sample.mean()), math.nan
    half = stdtrit(len(sample) - 1, 0.975) * sample.std(ddof=1) / math.sqrt(len(sample))
    return float(sample.mean()), float(half)


def seeds(chapter: str, metric: str = "test_accuracy", runs: Iterable[str] | None = None, folder=None) -> pd.DataFrame:
    """Lays one metric out as plain numbers, a row a seed and a column an arm.

    Args:
        chapter: The notebook's name.
        metric: A metric or a path, as in `value`.
        runs: The arms, in this order; None takes all.
        folder: As in `read`.

    Returns:
        The numbers; nan where an arm lacks a seed or the metric.

    Raises:
        LookupError: No arm has the metric, or some seeds of an arm lack it.
    """
    import pandas as pd

    return pd.DataFrame(_columns(_arms(chapter, runs, folder), metric)).sort_index().rename_axis("seed")


def table(
    chapter: str, metrics: Iterable[str] | None = None, runs: Iterable[str] | None = None, folder=None
) -> pd.DataFrame:
    """Summarises a chapter for people: a row an arm, its seeds, mean and 95 % interval of every metric.

    Args:
        chapter: The notebook's name.
        metrics: Metrics or paths, as in `value`; None takes every metric recorded.
        runs: The arms, in this order; None takes all.
        folder: As in `read`.

    Returns:
        Texts such as "97.71 ± 0.08 %", empty where an arm lacks a metric.

    Raises:
        LookupError: No arm has the metric, or some seeds of an arm lack it.
    """
    import pandas as pd

    arms = _arms(chapter, runs, folder)
    if metrics is None:
        metrics = dict.fromkeys(name for records in arms.values() for record in records for name in record["metrics"])
    texts = {"seeds": {run: str(len(records)) for run, records in arms.items()}}
    for name in metrics:
        columns = _columns(arms, name)
        texts[name.replace("_", " ")] = {run: _text(name, list(numbers.values())) for run, numbers in columns.items()}
    # Named after the columns, "run" stands in the corner; as the index's name it would take a row of its own.
    return pd.DataFrame(texts, index=list(arms)).rename_axis(columns="run")


def stamp(records: Iterable[Mapping]) -> str:
    """Says in one line where numbers come from: seeds, profile, device, data and commit."""
    records = list(records)
    count = len({record["seed"] for record in records})
    data = {_origin(*pair): None for record in records for pair in record["data"].items()}
    commits = [re.sub(r"^([0-9a-f]{7})[0-9a-f]*", r"\1", record["commit"]) for record in records]
    parts = [
        f"{count} seed{'s' * (count != 1)}",
        _every(record["profile"] for record in records) + " profile",
        _every(record["device"] for record in records),
        *data,
        "commit " + _every(commits),
    ]
    return ", ".join(parts)


def _origin(name: str, sha: str) -> str:
    return f"{name} {sha}" if sha.startswith("generated") else f"{name} sha256 {sha[:8]}"


def _every(texts: Iterable[str]) -> str:
    return " and ".join(dict.fromkeys(texts))


def _arms(chapter: str, runs: Iterable[str] | None, folder) -> dict[str, list[dict]]:
    if runs is not None:
        return {run: read(chapter, run, folder) for run in runs}
    return {run: list(records) for run, records in groupby(read(chapter, folder=folder), itemgetter("run"))}


def _columns(arms: Mapping[str, list[dict]], metric: str) -> dict[str, dict[int, float]]:
    columns = {run: _numbers(records, metric) for run, records in arms.items()}
    if not any(columns.values()):
        raise LookupError(f"no number {metric!r} in any of the recorded runs {', '.join(arms)}")
    return columns


def _numbers(records: Iterable[Mapping], name: str) -> dict[int, float]:
    """Returns a run's numbers by seed, none where the run does not have them."""
    numbers, lacking = {}, None
    for record in records:
        try:
            numbers[record["seed"]] = value(record, name)
        except LookupError as error:
            lacking = error
    if numbers and lacking:
        raise lacking
    return numbers


def _text(name: str, numbers: Sequence[float]) -> str:
    if not numbers:
        return ""
    mean, half = interval(numbers)
    if is_fraction(name, FRACTIONS | DIFFERENCES):
        return f"{100 * mean:.2f} %" if math.isnan(half) else f"{100 * mean:.2f} ± {100 * half:.2f} %"
    if not half > 1e-12 * abs(mean):  # one value, or equal ones up to rounding
        return f"{mean:,.0f}" if mean == round(mean) else f"{mean:.4g}"
    decimals = max(0, 1 - math.floor(math.log10(half)))  # two digits of the half-width
    return f"{mean:,.{decimals}f} ± {half:,.{decimals}f}"
