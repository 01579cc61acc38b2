"""When the book's notebook cache is used, and when it is dropped."""

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

SCRIPT = Path(__file__).parents[1] / "book/cache.py"


@pytest.fixture
def cache(tmp_path):
    """The script's functions, in a project of its own."""
    for folder in ("book", "notebooks", "src/growlib", "data/results/a"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(SCRIPT, tmp_path / "book")
    (tmp_path / "src/growlib/trainer.py").write_text("one = 1\n")
    (tmp_path / "data/results/a/run-seed0.json").write_text("{}")
    (tmp_path / "requirements.lock").write_text("numpy==2.0\n")
    return runpy.run_path(str(tmp_path / "book/cache.py")) | {"root": tmp_path}


@pytest.mark.parametrize("changed", ["src/growlib/trainer.py", "data/results/a/run-seed0.json", "requirements.lock"])
def test_the_key_follows_everything_that_outputs_depend_on(cache, changed):
    before = cache["key"]("quick")
    assert cache["key"]("quick") == before != cache["key"]("standard")
    with (cache["root"] / changed).open("a") as file:
        file.write(" ")
    assert cache["key"]("quick") != before


def test_the_key_ignores_what_outputs_do_not_depend_on(cache):
    before = cache["key"]("quick")
    (cache["root"] / "README.md").write_text("new")
    assert cache["key"]("quick") == before


def test_the_cache_is_dropped_only_when_the_key_changes(cache):
    cache["drop_stale"]("first")
    kept = cache["CACHE"] / "outputs"
    kept.mkdir(parents=True)
    cache["drop_stale"]("first")
    assert kept.exists()
    cache["drop_stale"]("second")
    assert not kept.exists()


@pytest.mark.slow
def test_a_notebook_is_executed_once_and_a_failing_one_is_left_to_the_book(cache, capsys):
    for name, code in (("good", "print(1 + 1)"), ("bad", "raise OSError('no such disk')")):
        notebook = new_notebook(cells=[new_code_cell(code)])
        nbformat.write(notebook, cache["root"] / f"notebooks/{name}.ipynb")
    assert [path.stem for path in cache["missing"]()] == ["bad", "good"]
    cache["fill"](workers=2, timeout=60)
    assert [path.stem for path in cache["missing"]()] == ["bad"]
    assert "bad.ipynb failed" in capsys.readouterr().err


@pytest.mark.slow
def test_what_a_test_has_executed_is_what_the_book_shows_and_a_failing_notebook_fails_the_test(cache):
    root = cache["root"]
    shutil.copy(SCRIPT.parents[1] / "conftest.py", root)
    (root / "pytest.ini").write_text("[pytest]\npythonpath = book\n")
    for name, code in (("good", "print(6 * 7)"), ("bad", "print(6 / 0)")):
        nbformat.write(new_notebook(cells=[new_code_cell(code)]), root / f"notebooks/{name}.ipynb")
    before = (root / "notebooks/good.ipynb").read_text()
    command = [sys.executable, "-m", "pytest", "--nbmake", "--book", "notebooks"]
    answer = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert answer.returncode == 1 and "1 failed, 1 passed" in answer.stdout
    assert (root / "notebooks/good.ipynb").read_text() == before
    cache["take_over"](cache["current_key"]())
    assert [path.stem for path in cache["missing"]()] == ["bad"]
    nbformat.write(new_notebook(cells=[new_code_cell("print(7)")]), root / "notebooks/good.ipynb")
    assert [path.stem for path in cache["missing"]()] == ["bad", "good"]  # its code is no longer what was executed
