"""Files that are whole or not there, whatever happens to the disk and to the process."""

import os
import signal
import subprocess
import sys
import time

import pytest

from growlib.data.files import passing_folder, whole


def test_a_file_takes_its_place_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "file"
    with whole(path) as file:
        file.write(b"first")
        assert not path.exists()
    assert path.read_bytes() == b"first" and os.listdir(path.parent) == ["file"]
    with whole(path) as file:
        file.write(b"second")
        assert path.read_bytes() == b"first"
    assert path.read_bytes() == b"second" and os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(type(error)), whole(tmp_path / "file") as file:
        file.write(b"half")
        raise error
    assert (tmp_path / "file").read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_all_may_read_it_whom_the_umask_allows(tmp_path, mask):
    before = os.umask(mask)
    try:
        with whole(tmp_path / "file") as file:
            file.write(b"content")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask


def killed(script, when, how=signal.SIGKILL):
    """Starts a script in a process, and kills it when something is the case."""
    process = subprocess.Popen([sys.executable, "-c", script])
    wait_for(when)
    process.send_signal(how)
    process.wait()


def wait_for(what, seconds=20):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path):
    script = f"""
import time
from growlib.data.files import whole
with whole({str(tmp_path / "file")!r}) as file:
    file.write(b"half")
    file.flush()
    time.sleep(60)
"""
    killed(script, lambda: os.listdir(tmp_path))
    assert len(os.listdir(tmp_path)) == 1 and not (tmp_path / "file").exists()
    with whole(tmp_path / "file") as file:
        here = [name for name in os.listdir(tmp_path) if str(os.getpid()) in name]
        assert os.listdir(tmp_path) == here
        with whole(tmp_path / "other"):  # of a process that is alive, nothing is removed
            assert here[0] in os.listdir(tmp_path)
        file.write(b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_passing_folder_goes_with_its_process_even_when_that_is_killed(tmp_path, how):
    script = f"""
import time
from pathlib import Path
from growlib.data.files import passing_folder
with passing_folder(Path({str(tmp_path)!r})) as folder:
    (folder / "half").write_bytes(b"half")
    time.sleep(60)
"""
    killed(script, lambda: list(tmp_path.rglob("half")), how)
    wait_for(lambda: not os.listdir(tmp_path))


def test_a_passing_folder_is_gone_at_the_end(tmp_path):
    with pytest.raises(ValueError), passing_folder(tmp_path / "new") as folder:
        (folder / "half").touch()
        raise ValueError
    assert os.listdir(tmp_path / "new") == []
