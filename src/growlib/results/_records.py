"""One JSON file a run: written whole or not at all, checked on the way in, read back in order."""

import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import torch

from growlib.data import refuse_namesakes
from growlib.data.files import whole
from growlib.data.store import embedded
from growlib.results._profiles import PROFILES

# A metric with one of these words in its name lies in [0, 1].
FRACTIONS = {"accuracy", "precision", "recall", "f1", "iou"}
# One with one of these is a difference of fractions.
DIFFERENCES = {"forgetting", "transfer"}


def record(
    chapter: str,
    run: str,
    *,
    profile: str,
    seed: int,
    parameters: Mapping,
    metrics: Mapping,
    history,
    wall_time_s: float,
    device="auto",
    data=(),
    folder: str | Path | None = None,
) -> Path:
    """Writes one run to CHAPTER/RUN-seedN.json, or to benchmarks/RUN.json.

    Args:
        chapter: The notebook's name, such as "02_growing_wider", or "benchmarks".
        run: The arm of the comparison, such as "growing" or "fixed-104".
        profile: "quick", "standard" or "full".
        seed: The run's seed.
        parameters: What the run was given, name to value.
        metrics: What it measured, name to number; accuracies as fractions.
        history: A History, or its records.
        wall_time_s: Seconds.
        device: Where it ran: "auto", "cpu" or "cuda"; the record names the processor.
        data: The Dataset, a list of them, or their checksums, name to sha256.
        folder: Where results lie; else `$GROWLIB_RESULTS`, else the checkout's data/results.

    Returns:
        The file written.

    Raises:
        ValueError: A name or a number cannot be recorded, or the record of a fuller profile is in the way.
        RuntimeError: There is no checkout, and no folder was named.
    """
    path = path_of(writable(folder), chapter, run, seed)
    previous(path, profile)
    content = {
        "chapter": chapter,
        "run": run,
        "profile": profile,
        "seed": seed,
        "parameters": plain(parameters, "parameters"),
        "metrics": _measured(metrics),
        "history": plain(getattr(history, "records", history), "history"),
        "wall_time_s": plain(wall_time_s, "wall_time_s"),
        "device": describe(device),
        "versions": _versions(),
        "data": checksums(data),
        "commit": _commit(),
    }
    _write(path, content)
    return path


def read(chapter: str, run: str | None = None, folder: str | Path | None = None) -> list[dict]:
    """Reads the records of a chapter, ordered by run and seed.

    Args:
        chapter: The notebook's name, or "benchmarks".
        run: One arm of it; None reads all.
        folder: Where results lie; else the chapter's runs in `$GROWLIB_RESULTS`, else those that growlib came with.

    Returns:
        One dict a record.

    Raises:
        LookupError: There is no such chapter or run; the message lists what there is.
    """
    homes = [root / chapter for root in _roots(folder)]
    home = next((home for home in homes if any(home.glob("*.json"))), None)
    if home is None:
        known = ", ".join(chapters(folder)) or "none of any chapter"
        raise LookupError(f"no recorded runs in {' or '.join(map(str, homes))}: there are {known}")
    records = sorted(map(_load, home.glob("*.json")), key=lambda record: (_natural(record["run"]), record["seed"]))
    runs = dict.fromkeys(record["run"] for record in records)
    if run is not None and run not in runs:
        raise LookupError(f"no recorded run {run!r} in {home}: there are {', '.join(runs)}")
    return [record for record in records if run in (None, record["run"])]


def chapters(folder: str | Path | None = None) -> list[str]:
    """Lists the chapters that have recorded runs."""
    return sorted({path.parent.name for root in _roots(folder) for path in root.glob("*/*.json")})


def value(record: Mapping, name: str) -> float:
    """Looks up one number of a record.

    Args:
        record: One record.
        name: A metric, or a path into the record: "wall_time_s", "parameters.epochs", "history[-1].val_accuracy".

    Returns:
        The number.

    Raises:
        LookupError: The record holds no number of that name.
    """
    found = record["metrics"] if name in record["metrics"] else record
    try:
        for part in re.findall(r"\w+|\[-?\d+\]", name):
            found = found[int(part[1:-1])] if part.startswith("[") else found[part]
    except (KeyError, IndexError, TypeError):
        found = None
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise LookupError(
            f"no number {name!r} in {record['chapter']}/{record['run']}, seed {record['seed']}: "
            f"name one of the metrics {', '.join(record['metrics'])}, or a path such as history[-1].val_accuracy"
        )
    return found


def describe(device="auto") -> str:
    """Names the processor behind a device: the GPU, or the CPU and the threads that torch uses."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return str(device)
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        model = dict(re.findall(r"^(model name)\s*: (.+)$", information.read_text(), re.M)).get("model name", model)
    return f"cpu, {torch.get_num_threads()} threads, {model.strip()}"


def writable(folder: str | Path | None) -> Path:
    """Returns the folder that runs are recorded in, which is never that of an installed package."""
    chosen = folder or os.environ.get("GROWLIB_RESULTS")
    if chosen:
        return Path(chosen).resolve()
    if _checkout() is None:
        raise RuntimeError(
            "this growlib is an installed package, not a checkout: "
            "set GROWLIB_RESULTS (or pass folder=) to the folder that runs shall be recorded in"
        )
    return embedded() / "results"


def path_of(root: Path, chapter: str, run: str, seed: int) -> Path:
    """Returns the file of a run, once its names are found fit for a file and for a claim."""
    for name in (chapter, run):
        if not re.fullmatch(r"[A-Za-z0-9][\w-]*", name, re.ASCII):
            raise ValueError(f"cannot record under the name {name!r}: use letters, digits, - and _")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"cannot record seed {seed!r}: a seed is an integer from 0 on")
    return root / chapter / (f"{run}.json" if chapter == "benchmarks" else f"{run}-seed{seed}.json")


def previous(path: Path, profile: str) -> dict | None:
    """Returns the record that a run of this profile would replace, None if there is none."""
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}: choose one of {', '.join(PROFILES)}")
    if not path.exists():
        return None
    record = _load(path)
    if PROFILES.index(profile) < PROFILES.index(record["profile"]):
        raise ValueError(
            f"{path} records a {record['profile']} run, which a {profile} run must not replace: "
            "set GROWLIB_RESULTS (or pass folder=) to another folder"
        )
    return record


def plain(content, where: str):
    """Turns content into what JSON can hold, tensors and arrays into numbers; `where` names it in errors."""
    if hasattr(content, "tolist"):
        content = content.tolist()
    if isinstance(content, Mapping):
        return {str(name): plain(part, f"{where}.{name}") for name, part in content.items()}
    if isinstance(content, list | tuple):
        return [plain(part, f"{where}[{index}]") for index, part in enumerate(content)]
    if isinstance(content, float) and not math.isfinite(content):
        raise ValueError(f"cannot record {where} = {content}: numbers have to be finite")
    if content is None or isinstance(content, bool | int | float | str):
        return content
    raise TypeError(f"cannot record {where}: JSON has no form for {type(content).__name__}")


def checksums(data) -> dict[str, str]:
    """Returns name to sha256 of a Dataset or several; a dict that already says so is checked."""
    if not isinstance(data, Mapping):
        several = data if isinstance(data, list | tuple) else [data]
        refuse_namesakes(*several)
        data = {dataset.name: dataset.provenance["sha256"] for dataset in several}
    for name, sha in data.items():
        if not re.fullmatch("[0-9a-f]{64}", str(sha)):
            raise ValueError(f"cannot record data {name!r} with checksum {sha!r}: a sha256 has 64 hexadecimal digits")
    return dict(data)


def _measured(metrics: Mapping) -> dict:
    metrics = plain(metrics, "metrics")
    for name, number in metrics.items():
        if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
            raise ValueError(f"cannot record metric {name!r}: use letters, digits and _")
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise TypeError(f"cannot record metric {name!r} = {number!r}: a metric is one number")
        if is_fraction(name) and not 0 <= number <= 1:
            raise ValueError(f"cannot record metric {name!r} = {number}: it has to be a fraction between 0 and 1")
    return metrics


def is_fraction(name: str, words: set[str] = FRACTIONS) -> bool:
    """Whether one of these words is in the name of a metric."""
    return not words.isdisjoint(re.split(r"[\W_]+", name))


def _write(path: Path, content: Mapping) -> None:
    # One line a key and one an epoch: short files whose changes are readable.
    parts = [f" {json.dumps(key)}: {json.dumps(part)}" for key, part in content.items() if key != "history"]
    epochs = ",".join(f"\n  {json.dumps(epoch)}" for epoch in content["history"])
    text = "{\n" + ",\n".join([*parts, f' "history": [{epochs}]']) + "\n}\n"
    with whole(path) as file:
        file.write(text.encode())


def _load(path: Path) -> dict:
    try:
        content = json.loads(path.read_text())
        return content if content["run"] and content["profile"] in PROFILES else content["no profile"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a record ({error!r}): restore it, or delete it and run it again") from error


def _roots(folder: str | Path | None) -> list[Path]:
    if folder:
        return [Path(folder)]
    own = os.environ.get("GROWLIB_RESULTS")
    return [*([Path(own)] if own else []), embedded() / "results"]


def _checkout() -> Path | None:
    root = embedded().parent
    return root if (root / "pyproject.toml").exists() else None


def _commit() -> str:
    root = _checkout()
    commit = _git(root, "rev-parse", "--short=12", "HEAD") if root and (root / ".git").exists() else None
    if not commit:
        return f"growlib {_version('growlib')}"
    # Only code makes numbers: a record written a moment ago does not make the next one dirty.
    return commit + "-dirty" * bool(_git(root, "status", "--porcelain", "--", "src", "notebooks", "benchmarks"))


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _versions() -> dict[str, str]:
    packages = ("torch", "torchvision", "numpy", "growlib")
    return {"python": platform.python_version()} | {package: _version(package) for package in packages}


def _natural(name: str) -> list:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
