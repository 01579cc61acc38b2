"""What a run that was cut short left behind: a folder of its own, in which the next attempt finds its checkpoint."""

import hashlib
import inspect
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from growlib.results._code import sources

PLACE = ".unfinished"  # in the folder of the records; git ignores it


@dataclass(frozen=True)
class Attempt:
    """One attempt to make a run.

    Args:
        folder: The run's own, with what earlier attempts left there.
        commit: Of the code when the first of them began.
        seconds: That they took, up to the last thing they left.
    """

    folder: Path
    commit: str
    seconds: float

    def forget(self):
        """Removes the folder: the run is recorded."""
        shutil.rmtree(self.folder)
        _note(self.folder).unlink()


def wants_folder(function) -> bool:
    """Whether a function takes a `folder` to go on in."""
    return callable(function) and "folder" in inspect.signature(function).parameters


def identity(function: Callable) -> str:
    """A hash of what makes the numbers of a run beside its settings: growlib's code, and the function's own."""
    try:
        own = inspect.getsource(getattr(function, "func", function))
    except (OSError, TypeError):
        own = ""  # typed in by hand
    return hashlib.sha256(f"{sources()}\n{own}".encode()).hexdigest()[:16]


def attempt(cell: Mapping, made_by: str) -> Attempt:
    """Begins to make a run, anew or where an earlier attempt was cut short.

    An attempt goes on only if it was of the same settings and of the same code.

    Args:
        cell: Of the grid: chapter, run, seed, profile, parameters, data, folder and commit.
        made_by: The identity of the function.
    """
    folder = cell["folder"] / PLACE / cell["chapter"] / f"{cell['run']}-seed{cell['seed']}"
    known = {name: cell[name] for name in ("profile", "parameters", "data")} | {"made_by": made_by}
    note, commit, seconds = _note(folder), cell["commit"], 0.0
    before = json.loads(note.read_text()) if note.exists() else {}
    if before and all(before[name] == value for name, value in known.items()):
        commit = before["commit"]
        left = [path.stat().st_mtime for path in folder.rglob("*") if path.is_file()]
        seconds = before["seconds"] + max(0.0, max(left, default=0.0) - note.stat().st_mtime)
    elif folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(known | {"commit": commit, "seconds": seconds}))
    return Attempt(folder, commit, seconds)


def _note(folder: Path) -> Path:
    return folder.with_suffix(".json")
