"""Files that are written whole or not at all, and folders that go even when their process is killed."""

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import psutil

_HOST = platform.node() or "host"
# Waits until nobody is left who could close its input, which killing a process does too.
_SWEEP = "import shutil, sys; sys.stdin.read(); shutil.rmtree(sys.argv[1], ignore_errors=True)"


@contextmanager
def whole(path: str | Path, scratch: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write to, which takes its place when it is complete and on the disk; until then the old one stays.

    It is readable by all whom the umask allows. What a killed process has left is removed by the next who writes there.

    Args:
        path: Its folder is made.
        scratch: Where it is written, on the same disk; None is beside its place.

    Raises:
        OSError: For a disk that is full or can't be written; nothing half-written is left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    unfinished = (scratch or path.parent) / f".{path.name}.{_HOST}-{os.getpid()}.unfinished"
    try:
        with open(unfinished, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        with suppress(OSError):  # it is in its place, or its disk takes no orders
            unfinished.unlink()


def _remove_abandoned(path: Path):
    """Removes what processes of this machine that are no more have left beside a file."""
    start, end = f".{path.name}.{_HOST}-", ".unfinished"
    for one in path.parent.iterdir():
        owner = one.name.removeprefix(start).removesuffix(end)
        if one.name == f"{start}{owner}{end}" and owner.isdigit() and not psutil.pid_exists(int(owner)):
            with suppress(OSError):
                one.unlink()


@contextmanager
def passing_folder(parent: Path) -> Iterator[Path]:
    """A folder that is deleted in the end, by a second process if this one is killed.

    Args:
        parent: Where it lies; it is made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".download-", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-I", "-S", "-c", _SWEEP, folder]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, **quiet):
            yield Path(folder)
