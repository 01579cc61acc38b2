"""Which code makes a record: the commit, what has changed since, and the versions of packages."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

from growlib.data.store import embedded


def checkout() -> Path | None:
    """The folder of the checkout that growlib is imported from, if it is one."""
    root = embedded().parent
    return root if (root / "pyproject.toml").exists() else None


def code() -> str:
    """Says which code runs: the commit, with -dirty behind it where files have changed since; or growlib's version."""
    root = checkout()
    commit = _git(root, "rev-parse", "--short=12", "HEAD") if root and (root / ".git").exists() else None
    if not commit:
        return f"growlib {_version('growlib')}"
    # Only code makes numbers: a record written a moment ago does not make the next one dirty.
    return commit + "-dirty" * bool(_git(root, "status", "--porcelain", "--", "src", "notebooks", "benchmarks"))


def sources() -> str:
    """Says what the code of growlib is: the git tree of src and what has changed in it since; or growlib's version."""
    root = checkout()
    tree = _git(root, "rev-parse", "HEAD:src") if root and (root / ".git").exists() else None
    return tree + (_git(root, "diff", "HEAD", "--", "src") or "") if tree else f"growlib {_version('growlib')}"


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


def versions() -> dict[str, str]:
    """The versions that numbers depend on."""
    packages = ("torch", "torchvision", "numpy", "growlib")
    return {"python": platform.python_version()} | {package: _version(package) for package in packages}
