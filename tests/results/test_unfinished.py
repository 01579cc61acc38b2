"""A run that is killed goes on from its last epoch, and its record is that of a run that was not."""

import os
import subprocess
import sys
import textwrap
import time

import pytest
from torch.optim import SGD

from growlib import MLP, Checkpoint, LRSchedule, Trainer, Widen, every, load, results, triangle
from growlib.results import _runner, _unfinished

KILLED = textwrap.dedent("""
    import os, signal
    import torch
    from growlib import MLP, Callback, Checkpoint, LRSchedule, Trainer, Widen, every, load, results, triangle

    class Die(Callback):
        def __init__(self, at):
            self.at = at

        def after_step(self, trainer):
            if trainer.step == self.at:
                os.kill(os.getpid(), signal.SIGKILL)

    def train(seed, width, die, folder):
        torch.manual_seed(seed)
        model = MLP(64, [width], 10)
        with open(folder / "begun", "a") as note:
            note.write("x")
        again = len((folder / "begun").read_text()) > 1
        callbacks = [LRSchedule(triangle, per="step"), Widen(2, when=every(1, "epoch")), Checkpoint(folder)]
        callbacks += [Die(None if again else die)]
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        trainer = Trainer(model, optimizer, callbacks, device="cpu", seed=seed).resume(folder / "last.pt")
        history = trainer.fit(load("digits").augmented(shift=1, flip="alternating"), epochs=4)
        return trainer.evaluate(load("digits"), "test"), history

    if __name__ == "__main__":
        about = dict(chapter="07_killed", profile="quick", device="cpu")
        results.grid(train, {"a": {"width": 4, "die": DIE}}, [0], **about)
""")


def run(path, die: int, folder):
    path.write_text(KILLED.replace("DIE", str(die)))
    return subprocess.run([sys.executable, path], env=os.environ | {"GROWLIB_RESULTS": str(folder)}).returncode


def timeless(record):
    plain = [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in record["history"]]
    return {key: record[key] for key in ("metrics", "seed", "profile", "data")} | {"history": plain}


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_last_epoch_and_its_record_is_that_of_one_that_was_not(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    assert run(tmp_path / "grid.py", 26, killed) == -9  # in the middle of the third epoch
    left = killed / ".unfinished" / "07_killed" / "a-seed0"
    assert (left / "last.pt").exists() and results.chapters(killed) == []
    assert run(tmp_path / "grid.py", 26, killed) == 0
    assert run(tmp_path / "grid.py", -1, whole) == 0
    ((mine,), (theirs,)) = (results.read("07_killed", folder=folder) for folder in (killed, whole))
    assert timeless(mine) == timeless(theirs) and len(mine["history"]) == 4
    assert mine["wall_time_s"] > 0 and not left.exists() and not left.with_suffix(".json").exists()


# In this process, with a function that fails instead of dying


def train(seed, width, folder):
    with open(folder / "begun", "a") as note:
        note.write("x")
    attempts = len((folder / "begun").read_text())
    if attempts < width:
        raise RuntimeError("cut short")
    return {"attempts": attempts}, []


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.setattr(_runner, "code", lambda: "0" * 12)


def grid(folder, width=3, **changes):
    return results.grid(
        train, {"a": {"width": width}}, [0], **{"profile": "quick", **changes}, folder=folder, chapter="x"
    )


def fail(folder, **changes):
    with pytest.raises(RuntimeError, match="cut short"):
        grid(folder, **changes)


def test_the_next_attempt_finds_what_the_one_before_left(tmp_path):
    fail(tmp_path), fail(tmp_path)
    (record,) = grid(tmp_path)
    assert record["metrics"] == {"attempts": 3}
    assert [path.name for path in (tmp_path / ".unfinished" / "x").iterdir()] == []


def test_an_attempt_of_other_settings_or_other_code_begins_anew(tmp_path, monkeypatch):
    fail(tmp_path), fail(tmp_path)
    fail(tmp_path, width=2)  # else it would be through
    (record,) = grid(tmp_path, width=2)
    assert record["metrics"] == {"attempts": 2}
    fail(tmp_path, profile="standard", width=2)
    monkeypatch.setattr(_unfinished, "sources", lambda: "other code")
    fail(tmp_path, profile="standard", width=2)
    (record,) = grid(tmp_path, profile="standard", width=2)
    assert record["metrics"] == {"attempts": 2}


def test_the_record_names_the_commit_and_counts_the_seconds_of_the_first_attempt(tmp_path, monkeypatch):
    fail(tmp_path, width=2)
    note = tmp_path / ".unfinished" / "x" / "a-seed0.json"
    hour_ago = time.time() - 3600
    os.utime(note, (hour_ago, hour_ago))  # as if the first attempt had begun then
    monkeypatch.setattr(_runner, "code", lambda: "1" * 12)  # another record was committed meanwhile
    (record,) = grid(tmp_path, width=2)
    assert record["commit"] == "0" * 12 and 3590 < record["wall_time_s"] < 3700


def test_a_function_without_a_folder_leaves_none(tmp_path):
    results.grid(lambda seed: ({}, []), {"a": {}}, [0], folder=tmp_path, chapter="x", profile="quick")
    assert not (tmp_path / ".unfinished").exists()


def test_a_trainer_resumes_from_a_file_of_its_own_seed_only(tmp_path):
    def make(seed):
        model = MLP(64, [4], 10)
        callbacks = [LRSchedule(triangle, per="step"), Widen(2, when=every(1, "epoch")), Checkpoint(tmp_path)]
        return Trainer(model, SGD(model.parameters(), lr=0.1), callbacks, device="cpu", seed=seed)

    trainer = make(0)
    assert trainer.resume(tmp_path / "last.pt") is trainer and trainer.step == 0
    trainer.fit(load("digits"), epochs=2)
    again = make(0).resume(tmp_path / "last.pt")
    assert again.step == trainer.step and again.model.config() == trainer.model.config()
    with pytest.raises(ValueError, match="is of a run with seed 0, and this trainer has seed 1"):
        make(1).resume(tmp_path / "last.pt")
