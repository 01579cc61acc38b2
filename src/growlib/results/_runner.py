"""The grid runner: arms x seeds, in this process, in several or through papermill; what is recorded is skipped."""

import multiprocessing
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from growlib.results._code import code
from growlib.results._records import named, path_of, plain, previous, record, writable
from growlib.results._unfinished import attempt, identity, wants_folder


def grid(
    function: Callable | str | Path,
    arms: Mapping[str, Mapping],
    seeds: Iterable[int],
    *,
    chapter: str,
    profile: str,
    device="auto",
    data=(),
    processes: int = 1,
    folder: str | Path | None = None,
) -> list[dict]:
    """Runs every arm with every seed and records each run as it ends; runs already recorded so are skipped.

    Every record names the commit that the code had when the grid began, whatever happens to the files meanwhile.

    Args:
        function: `function(seed=seed, **settings)` returns metrics and history; it is timed and recorded. If it has a
            parameter `folder`, it gets one that is the run's own and outlives a process that is killed: with
            `Checkpoint(folder)` and `trainer.resume(folder / "last.pt")` the next call goes on from the last epoch. Or
            the path of a notebook, which gets `run`, `seed`, `profile` and the settings as parameters and records
            itself.
        arms: The settings of each run, by the run's name.
        seeds: The seeds of each arm.
        chapter: The notebook's name, or "benchmarks".
        profile: "quick", "standard" or "full".
        device: As in `record`.
        data: As in `record`.
        processes: 1 runs a function in this process, whatever it closes over; more need one that can be imported, and
            share torch's threads among them.
        folder: As in `record`.

    Returns:
        The records, arm by arm and seed by seed.

    Raises:
        RuntimeError: A full run would start from changed code, which no commit holds. Or runs failed; the others are
            recorded, and the next call runs only those that failed.
        ValueError: The function cannot be sent to another process, or a name is not fit for a file.
    """
    root, seeds = writable(folder), list(seeds)
    fixed = {"chapter": chapter, "profile": profile, "device": device, "data": named(data, chapter, profile)}
    fixed |= {"folder": root, "commit": code()}
    cells = [
        fixed | {"run": run, "seed": seed, "parameters": plain(settings, f"arms.{run}")}
        for run, settings in arms.items()
        for seed in seeds
    ]
    todo = [cell for cell in cells if _recorded(cell) is None]
    if todo and profile == "full" and fixed["commit"].endswith("-dirty"):
        raise RuntimeError(
            f"a full run needs code that a commit holds, and this is {fixed['commit']}: commit it, or run in a tree "
            "of its own, `git worktree add ../runs main`, with GROWLIB_RESULTS set to the folder for the records"
        )
    threads = max(1, torch.get_num_threads() // processes)
    work, pool = _worker(function, processes, threads)
    failures = []
    for cell, error in tqdm(_outcomes(work, todo, pool), desc=chapter, total=len(todo), disable=not todo):
        if error is not None:
            failures.append((cell, error))
    if failures:
        lines = [f"\n  {cell['run']}, seed {cell['seed']}: {type(e).__name__}: {e}" for cell, e in failures]
        raise RuntimeError(
            f"{len(failures)} of {len(cells)} runs failed; the others are recorded, and calling again runs only these:"
            + "".join(sorted(lines))
        ) from failures[0][1]
    return [_recorded(cell) for cell in cells]


def _recorded(cell: Mapping) -> dict | None:
    found = previous(path_of(cell["folder"], cell["chapter"], cell["run"], cell["seed"]), cell["profile"])
    same = found and all(found[key] == cell[key] for key in ("profile", "seed", "parameters"))
    return found if same else None


def _worker(function, processes: int, threads: int) -> tuple[Callable, Executor | None]:
    """Returns what runs one cell, and the pool that it runs in; None is this process."""
    if isinstance(function, str | Path):
        notebook = Path(function).resolve(strict=True)
        return partial(_execute, notebook, threads), ThreadPoolExecutor(processes)
    work = partial(_call, function, identity(function) if wants_folder(function) else None)
    if processes == 1:
        return work, None
    try:
        pickle.dumps(function)
        local = getattr(function, "__module__", "") == "__main__" and not hasattr(sys.modules["__main__"], "__file__")
    except (pickle.PicklingError, AttributeError, TypeError):
        local = True
    if local:
        name = getattr(function, "__qualname__", repr(function))
        raise ValueError(
            f"cannot send {name} to {processes} processes, as they could not import it: "
            "use processes=1, define it in a module, or give the notebook's path"
        )
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=torch.set_num_threads, initargs=(threads,))
    return work, pool


def _outcomes(work: Callable, cells: list[dict], pool: Executor | None) -> Iterator[tuple[dict, BaseException | None]]:
    """Runs the cells, yielding each with its error or None as it ends."""
    if pool is None:
        for cell in cells:
            try:
                work(cell)
                yield cell, None
            except Exception as error:
                yield cell, error
        return
    with pool:
        futures = {pool.submit(work, cell): cell for cell in cells}
        try:
            for future in as_completed(futures):
                yield futures[future], future.exception()
        finally:
            pool.shutdown(cancel_futures=True)


def _call(function: Callable, made_by: str | None, cell: dict) -> None:
    start = time.perf_counter()
    if made_by is None:
        metrics, history = function(seed=cell["seed"], **cell["parameters"])
        record(**cell, metrics=metrics, history=history, wall_time_s=time.perf_counter() - start)
        return
    own = attempt(cell, made_by)
    metrics, history = function(seed=cell["seed"], **cell["parameters"], folder=own.folder)
    spent = own.seconds + time.perf_counter() - start
    record(**cell | {"commit": own.commit}, metrics=metrics, history=history, wall_time_s=spent)
    own.forget()


def _execute(notebook: Path, threads: int, cell: dict) -> None:
    import yaml  # papermill's

    given = {key: cell[key] for key in ("run", "seed", "profile")} | cell["parameters"]
    environment = os.environ | {"GROWLIB_RESULTS": str(cell["folder"]), "GROWLIB_COMMIT": cell["commit"]}
    environment |= {"OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "papermill", str(notebook), str(Path(scratch) / notebook.name)]
        command += ["--cwd", str(notebook.parent), "--no-progress-bar", "--parameters_yaml", yaml.safe_dump(given)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{notebook.name} failed:\n{done.stderr[-2000:]}")
    if _recorded(cell) is None:
        path = path_of(cell["folder"], cell["chapter"], cell["run"], cell["seed"])
        raise RuntimeError(f"{notebook.name} ran but did not record {path} with the parameters {cell['parameters']}")
