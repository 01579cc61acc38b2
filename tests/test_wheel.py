"""The wheel alone, away from the checkout and without a network: what a reader on Colab has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
# 00_start_here and the last notebook of every part (the tens digit).
CHOSEN = sorted({"00_start_here", *{name[0]: name for name in NOTEBOOKS}.values()} & set(NOTEBOOKS))

READS = """
import growlib
from growlib import load, results
from growlib.data.store import embedded
print(growlib.__file__)
print(len(load("digits").train), len(load("fashion_mini").train))
chapters = results.chapters()
assert chapters, "no recorded results"
for chapter in chapters:
    assert results.read(chapter)
"""


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """An empty folder and the environment of someone who has the wheel and no checkout."""
    home = tmp_path_factory.mktemp("reader")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(home / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (home / "dist").glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([*install, str(home / "site"), str(wheel)], check=True, capture_output=True)
    dropped = ("GROWLIB_DATA", "GROWLIB_PROFILE", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    # PYTHONPATH comes before the checkout that the test's own environment has installed.
    environment |= {"PYTHONPATH": str(home / "site"), "GROWLIB_PROFILE": "quick", "HOME": str(home)}
    environment |= {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "MPLBACKEND": "agg"}
    (home / "work").mkdir()
    return home, environment


def run(reader, *command):
    home, environment = reader
    answer = subprocess.run(
        [sys.executable, *command], cwd=home / "work", env=environment, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    return answer.stdout


@pytest.mark.slow
def test_embedded_data_and_records_are_read_from_the_wheel(reader):
    place, sizes = run(reader, "-c", READS).splitlines()[:2]
    assert Path(place).is_relative_to(reader[0] / "site")
    assert all(int(size) > 1000 for size in sizes.split())


@pytest.mark.slow
def test_the_wheel_carries_no_data_set_that_a_checkout_has_cached(reader):
    files = {path.name for path in (reader[0] / "site/growlib/embedded").glob("*.npz")}
    assert files == {"digits.npz", "fashion_mini.npz"}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHOSEN)
def test_a_notebook_runs_without_the_checkout(reader, name):
    run(reader, "-m", "papermill", "--no-progress-bar", str(NOTEBOOKS[name]), "out.ipynb")
