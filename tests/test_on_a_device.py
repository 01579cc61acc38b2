"""Everything that the tests in on_a_device ask of a GPU, asked of a pretended one.

A device can be registered with torch only once in a process, and stays there: generators, storages and autocast answer
otherwise from then on. So these tests have a process of their own, whichever worker of pytest starts it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_what_needs_a_gpu_runs_on_a_pretended_one():
    folder = str(Path(__file__).parent / "on_a_device")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", folder]
    here = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    run = subprocess.run(command, env={**here, "GROWLIB_PRETEND_DEVICE": "1"}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "skipped" not in run.stdout.splitlines()[-1], run.stdout
