"""Execute the notebooks into the book's cache, several at a time, after dropping what is out of date.

jupyter-book compares the code of a notebook with its cache, but not the library, the packages, the data or the
profile that the code runs with. This script keeps a hash of those beside the cache and starts afresh when it changes.
What the tests have run under the same hash (`pytest --book`, see conftest.py) is taken over, and not executed again.
"""

import argparse
import hashlib
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import single_nb_execution

ROOT = Path(__file__).parents[1]
CACHE = ROOT / "_build" / ".jupyter_cache"
TESTED = ROOT / "_build" / "tested"
INPUTS = ("src/growlib/**/*.py", "requirements.lock", "pyproject.toml", "data/**/*.json", "data/**/*.npz", "data/*.md")


def key(profile: str) -> str:
    """Return the hash of everything that a notebook's outputs depend on, apart from its own code."""
    digest = hashlib.sha256(f"{profile} {sys.version_info[:2]} {os.environ.get('GROWLIB_DATA', '')}".encode())
    for path in sorted({path for pattern in INPUTS for path in ROOT.glob(pattern)}):
        digest.update(f"\0{path.relative_to(ROOT)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def current_key() -> str:
    """Return the key of a run that starts now."""
    return key(os.environ.get("GROWLIB_PROFILE", "standard"))


def drop_stale(current: str) -> None:
    """Remove the cache if it was filled under another key, and what tests have executed under others."""
    for folder in TESTED.glob("*"):
        if folder.name != current:
            shutil.rmtree(folder)
    stamp = CACHE.with_name("cache_key")
    if not stamp.exists() or stamp.read_text() != current:
        shutil.rmtree(CACHE, ignore_errors=True)
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(current)


def keep(notebook: nbformat.NotebookNode, name: str, current: str) -> None:
    """Lay a notebook that a test has executed where the book will find it, beside others of the same key."""
    folder = TESTED / current
    folder.mkdir(parents=True, exist_ok=True)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # nbmake's clock, which would make it another notebook to the cache
    nbformat.write(notebook, folder / name)


def take_over(current: str) -> None:
    """Fill the cache with what tests have executed under this key; an output whose code has changed matches nothing."""
    for path in sorted((TESTED / current).glob("*.ipynb")):
        store(CacheBundleIn(nbformat.read(path, as_version=4), str(ROOT / "notebooks" / path.name)))


def store(bundle: CacheBundleIn) -> None:
    """Put an executed notebook into the cache."""
    get_cache(CACHE).cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def missing() -> list[Path]:
    """Return the notebooks that the cache holds no outputs for."""
    cache = get_cache(CACHE)
    found = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        try:
            cache.match_cache_file(path)
        except KeyError:
            found.append(path)
    return found


def execute(path: Path, timeout: int) -> CacheBundleIn | None:
    """Return the executed notebook, or None where a cell failed: the book's own run will report it."""
    notebook = nbformat.read(path, as_version=4)
    result = single_nb_execution(notebook, cwd=str(path.parent), allow_errors=False, timeout=timeout)
    if result.err is not None:
        print(f"{path.name} failed: {type(result.err).__name__}", file=sys.stderr)
        return None
    print(f"{path.name} executed in {result.time:.0f} s", flush=True)
    return CacheBundleIn(notebook, str(path), data={"execution_seconds": result.time})


def fill(workers: int, timeout: int) -> None:
    """Execute the notebooks that the cache lacks, several at a time."""
    with ThreadPoolExecutor(workers) as pool:
        for bundle in pool.map(lambda path: execute(path, timeout), missing()):
            if bundle is not None:
                store(bundle)


def main() -> None:
    """Bring the cache up to date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2, help="notebooks executed at the same time")
    parser.add_argument("--timeout", type=int, default=900, help="seconds that one cell may take")
    options = parser.parse_args()
    current = current_key()
    drop_stale(current)
    take_over(current)
    fill(options.workers, options.timeout)


if __name__ == "__main__":
    main()
