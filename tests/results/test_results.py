import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from growlib import results
from growlib.results import _code, _records, _runner

SHA, COMMIT = "ab12" * 16, "0123456789ab"
KEYS = {"chapter", "run", "profile", "seed", "parameters", "metrics", "history"}
KEYS |= {"wall_time_s", "device", "versions", "data", "commit"}


def write(folder, run="growing", seed=0, chapter="02_growing_wider", **changes):
    """Records a plausible run."""
    given = {
        "profile": "full",
        "parameters": {"width": 64},
        "metrics": {"test_accuracy": 0.97, "test_loss": 0.1},
        "history": [{"epoch": 1, "val_accuracy": 0.9, "widths": {"hidden1": 64}}, {"epoch": 2, "val_accuracy": 0.96}],
        "wall_time_s": 5.5,
        "device": "cpu",
        "data": {"mnist": SHA},
        "folder": folder,
    }
    return results.record(chapter, run, seed=seed, **given | changes)


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """Full runs are allowed, whatever a developer has changed."""
    monkeypatch.setattr(_runner, "code", lambda: COMMIT)
    monkeypatch.setenv("GROWLIB_COMMIT", COMMIT)


@pytest.fixture
def accuracies(tmp_path):
    """Five seeds of two arms, their test accuracies known."""
    arms = {"fixed-104": [0.97, 0.98, 0.975, 0.972, 0.971], "fixed-64": [0.96, 0.97, 0.96, 0.95, 0.96]}
    for run, values in arms.items():
        for seed, value in enumerate(values):
            write(tmp_path, run, seed, metrics={"test_accuracy": value, "parameters": 50890})
    return arms


# Writing and reading


def test_a_record_has_exactly_the_keys_of_the_contract_and_a_file_of_its_own(tmp_path):
    path = write(tmp_path, seed=3)
    assert path == tmp_path / "02_growing_wider" / "growing-seed3.json"
    content = json.loads(path.read_text())
    assert set(content) == KEYS
    assert set(content["versions"]) == {"python", "torch", "torchvision", "numpy", "growlib"}
    assert torch.__version__.startswith(content["versions"]["torch"].partition("+")[0])
    assert content["data"] == {"mnist": SHA}
    assert content["device"].startswith(f"cpu, {torch.get_num_threads()} threads, ")
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # no draft is left behind


def test_a_benchmark_is_one_file_of_its_name(tmp_path):
    assert write(tmp_path, "epoch", chapter="benchmarks") == tmp_path / "benchmarks" / "epoch.json"


numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(lambda name: not _records.is_fraction(name))
contents = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None)
@given(
    parameters=st.dictionaries(names, contents, max_size=4),
    metrics=st.dictionaries(names, numbers, max_size=4),
    history=st.lists(st.dictionaries(names, contents, max_size=3), max_size=3),
    seed=st.integers(0, 99),
)
def test_what_is_read_is_what_was_written(tmp_path_factory, parameters, metrics, history, seed):
    folder = tmp_path_factory.mktemp("results")
    write(folder, seed=seed, parameters=parameters, metrics=metrics, history=history)
    [found] = results.read("02_growing_wider", folder=folder)
    assert (found["parameters"], found["metrics"], found["history"]) == (parameters, metrics, history)
    assert found["seed"] == seed


def test_tensors_and_arrays_become_numbers(tmp_path):
    write(tmp_path, metrics={"test_loss": torch.tensor(0.5), "units": np.int64(3)}, parameters={"widths": np.arange(2)})
    [found] = results.read("02_growing_wider", folder=tmp_path)
    assert (found["metrics"], found["parameters"]) == ({"test_loss": 0.5, "units": 3}, {"widths": [0, 1]})


def test_a_history_and_a_dataset_may_be_given_as_they_are(tmp_path):
    class Run:
        records = [{"epoch": 1}]
        name, provenance = "mnist", {"sha256": SHA}

    write(tmp_path, history=Run(), data=[Run()])
    [found] = results.read("02_growing_wider", folder=tmp_path)
    assert (found["history"], found["data"]) == ([{"epoch": 1}], {"mnist": SHA})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run": "a/b"}, "'a/b'"),
        ({"run": "rate-0.1"}, "'rate-0.1'"),
        ({"chapter": ""}, "''"),
        ({"seed": -1}, "seed -1"),
        ({"seed": True}, "seed True"),
        ({"profile": "fast"}, "'fast'.*quick, standard, full"),
        ({"metrics": {"test_accuracy": 97.7}}, "'test_accuracy' = 97.7.*fraction"),
        ({"metrics": {"test_accuracy_cifar10": -0.1}}, "'test_accuracy_cifar10' = -0.1"),
        ({"metrics": {"f1": 1.5}}, "'f1' = 1.5"),
        ({"metrics": {"test_iou": 58.0}}, "'test_iou' = 58.0"),
        ({"metrics": {"loss": math.nan}}, "metrics.loss = nan"),
        ({"metrics": {"loss": "low"}}, "'loss' = 'low'"),
        ({"metrics": {"test loss": 1.0}}, "'test loss'"),
        ({"history": [{"a": 1}, {"loss": math.inf}]}, r"history\[1\].loss = inf"),
        ({"wall_time_s": math.nan}, "wall_time_s = nan"),
        ({"parameters": {"init": print}}, "parameters.init"),
        ({"data": {"mnist": "unknown"}}, "'mnist'.*'unknown'"),
        ({"data": {}}, "a full run names its data"),
    ],
)
def test_what_cannot_be_recorded_is_named_with_its_value_and_writes_nothing(tmp_path, changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        write(tmp_path, **changes)
    assert not list(tmp_path.rglob("*"))


def test_a_failed_write_keeps_the_record_that_was_there(tmp_path, monkeypatch):
    path = write(tmp_path)
    before = path.read_text()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path, metrics={"test_accuracy": 0.1})
    assert [file.read_text() for file in path.parent.iterdir()] == [before]


def test_a_quick_run_does_not_replace_a_full_one_but_a_full_one_replaces_a_quick_one(tmp_path):
    write(tmp_path, profile="quick")
    path = write(tmp_path, profile="full")
    with pytest.raises(ValueError, match="a full run, which a quick run must not replace: set GROWLIB_RESULTS"):
        write(tmp_path, profile="quick")
    assert json.loads(path.read_text())["profile"] == "full"


def test_an_installed_package_is_never_written_to(tmp_path, monkeypatch):
    monkeypatch.delenv("GROWLIB_RESULTS", raising=False)
    monkeypatch.setattr(_code, "embedded", lambda: tmp_path / "site-packages" / "growlib" / "embedded")
    with pytest.raises(RuntimeError, match="installed package, not a checkout: set GROWLIB_RESULTS"):
        write(None)
    monkeypatch.setenv("GROWLIB_RESULTS", str(tmp_path / "mine"))
    assert write(None) == tmp_path / "mine" / "02_growing_wider" / "growing-seed0.json"


def test_own_runs_come_before_those_that_growlib_came_with(tmp_path, monkeypatch):
    shipped, own = tmp_path / "data" / "results", tmp_path / "own"
    for module in (_code, _records):
        monkeypatch.setattr(module, "embedded", lambda: tmp_path / "data")
    monkeypatch.setenv("GROWLIB_RESULTS", str(own))
    write(shipped, seed=1)
    write(shipped, seed=1, chapter="03_keeping_the_function")
    write(own, seed=2)
    assert [record["seed"] for record in results.read("02_growing_wider")] == [2]
    assert [record["seed"] for record in results.read("03_keeping_the_function")] == [1]
    assert results.chapters() == ["02_growing_wider", "03_keeping_the_function"]
    monkeypatch.delenv("GROWLIB_RESULTS")
    assert [record["seed"] for record in results.read("02_growing_wider")] == [1]


def test_one_run_is_read_without_a_look_at_the_others(tmp_path):
    write(tmp_path, "fixed-64")
    write(tmp_path, "fixed-64-seed1")
    (tmp_path / "02_growing_wider" / "fixed-640-seed0.json").write_text("damaged")
    [found] = results.read("02_growing_wider", "fixed-64", tmp_path)
    assert (found["run"], found["seed"]) == ("fixed-64", 0)
    with pytest.raises(ValueError, match="fixed-640-seed0.json is not a record"):  # the negative control
        results.read("02_growing_wider", folder=tmp_path)
    with pytest.raises(LookupError, match="'fixed-6'.*there are fixed-64, fixed-64-seed1, fixed-640"):
        results.read("02_growing_wider", "fixed-6", tmp_path)
    write(tmp_path, "epoch", chapter="benchmarks")
    assert results.read("benchmarks", "epoch", tmp_path)[0]["run"] == "epoch"


def test_what_a_run_makes_for_itself_is_named_with_its_maker(tmp_path):
    write(tmp_path, data={"pole": "generated by gymnasium 1.2"})
    [found] = results.read("02_growing_wider", folder=tmp_path)
    assert "pole generated by gymnasium 1.2, commit" in results.stamp([found])
    write(tmp_path, "quick", profile="quick", data={})  # only what the book states has to be traced


def test_reading_what_is_not_there_lists_what_there_is(tmp_path):
    with pytest.raises(LookupError, match="there are none"):
        results.read("02_growing_wider", folder=tmp_path)
    write(tmp_path)
    with pytest.raises(LookupError, match="09_unknown: there are 02_growing_wider"):
        results.read("09_unknown", folder=tmp_path)
    with pytest.raises(LookupError, match="'shrinking'.*there are growing"):
        results.read("02_growing_wider", "shrinking", folder=tmp_path)


@pytest.mark.parametrize("text", ["", '{"run": "growing"', "{}", "[]", '{"run": "growing", "profile": "fast"}'])
def test_a_damaged_record_is_named(tmp_path, text):
    path = write(tmp_path)
    path.write_text(text)
    with pytest.raises(ValueError, match="growing-seed0.json is not a record"):
        results.read("02_growing_wider", folder=tmp_path)


def test_records_come_in_the_order_that_people_count_in(tmp_path):
    for run in ("fixed-104", "fixed-64"):
        for seed in (10, 2):
            write(tmp_path, run, seed)
    found = [(record["run"], record["seed"]) for record in results.read("02_growing_wider", folder=tmp_path)]
    assert found == [("fixed-64", 2), ("fixed-64", 10), ("fixed-104", 2), ("fixed-104", 10)]


def test_the_commit_says_when_code_was_changed_but_not_when_a_record_was_added(tmp_path, monkeypatch):
    def git(*arguments):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True)

    def commit():
        return json.loads(write(None).read_text())["commit"]

    monkeypatch.delenv("GROWLIB_RESULTS", raising=False)
    monkeypatch.delenv("GROWLIB_COMMIT")
    for module in (_code, _records):
        monkeypatch.setattr(module, "embedded", lambda: tmp_path / "data")
    (tmp_path / "pyproject.toml").touch()
    assert commit().startswith("growlib ")
    git("init", "-q")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "code.py").write_text("one = 1")
    git("add", ".")
    git("commit", "-q", "-m", "Start")
    clean = commit()
    assert len(clean) == 12 and commit() == clean
    (tmp_path / "src" / "code.py").write_text("one = 2")
    assert commit() == f"{clean}-dirty"


# Numbers, tables, stamps


def test_a_value_is_a_metric_or_a_path_into_the_record(tmp_path):
    write(tmp_path)
    [record] = results.read("02_growing_wider", folder=tmp_path)
    wanted = {"test_accuracy": 0.97, "wall_time_s": 5.5, "parameters.width": 64, "history[-1].val_accuracy": 0.96}
    assert {name: results.value(record, name) for name in wanted} == wanted
    assert results.value(record, "history[0].widths.hidden1") == 64
    for name in ("test_acuracy", "history[2].val_accuracy", "history", "device", "device.x", "metrics"):
        with pytest.raises(LookupError, match="growing, seed 0.*test_accuracy, test_loss"):
            results.value(record, name)


def test_the_interval_equals_one_worked_by_hand():
    # Mean 3, s = sqrt(2.5), n = 5, t(0.975, 4) = 2.776445: 2.776445 * sqrt(2.5 / 5).
    mean, half = results.interval([1, 2, 3, 4, 5])
    assert mean == 3 and half == pytest.approx(1.963243, abs=1e-6)
    assert half != pytest.approx(1.959964 * math.sqrt(2.5 / 5), rel=0.1)  # a normal interval is too narrow
    assert results.interval([7.0])[0] == 7 and math.isnan(results.interval([7.0])[1])


def test_a_95_percent_interval_holds_the_mean_95_times_in_a_hundred():
    samples = np.random.default_rng(0).normal(10, 3, size=(4000, 5))
    held = np.mean([abs(mean - 10) <= half for mean, half in map(results.interval, samples)])
    assert held == pytest.approx(0.95, abs=0.015)


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.floats(-100, 100), min_size=2, max_size=8), shift=st.floats(-50, 50), scale=st.floats(0.1, 10)
)
def test_an_interval_moves_and_stretches_with_its_sample(values, shift, scale):
    mean, half = results.interval(values)
    moved = results.interval([scale * value + shift for value in values])
    assert moved == pytest.approx((scale * mean + shift, scale * half), abs=1e-9)


def test_a_missing_scipy_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    with pytest.raises(ImportError, match=r"pip install 'growlib\[analysis\]'"):
        results.interval([1, 2])


def test_the_table_gives_means_and_intervals_for_people(tmp_path, accuracies):
    table = results.table("02_growing_wider", folder=tmp_path)
    assert list(table.index) == ["fixed-64", "fixed-104"]
    assert table.loc["fixed-104"].to_dict() == {"seeds": "5", "test accuracy": "97.36 ± 0.50 %", "parameters": "50,890"}
    chosen = results.table("02_growing_wider", ["wall_time_s", "history[-1].val_accuracy"], ["fixed-104"], tmp_path)
    assert chosen.loc["fixed-104"].to_dict() == {
        "seeds": "5",
        "wall time s": "5.5",
        "history[-1].val accuracy": "96.00 ± 0.00 %",
    }


def test_differences_of_accuracies_are_percentages_and_may_be_negative(tmp_path):
    for seed, number in enumerate([0.01, 0.02, -0.03]):
        write(tmp_path, seed=seed, metrics={"forgetting": number, "backward_transfer": -number})
    row = results.table("02_growing_wider", folder=tmp_path).iloc[0]
    assert row["forgetting"] == "0.00 ± 6.57 %" and row["backward transfer"].endswith(" ± 6.57 %")


def test_other_numbers_show_two_digits_of_their_interval(tmp_path):
    for seed, seconds in enumerate([1234.5, 1250.25, 1260.0]):
        write(tmp_path, seed=seed, metrics={"seconds": seconds, "loss": seconds / 1e6})
    row = results.table("02_growing_wider", folder=tmp_path).loc["growing"]
    assert (row["seconds"], row["loss"]) == ("1,248 ± 32", "0.001248 ± 0.000032")


def test_equal_numbers_have_no_interval_to_show(tmp_path):
    for seed in range(3):  # the mean of three times 0.1 is not 0.1: their deviation is rounding alone
        write(tmp_path, seed=seed, metrics={"loss": 0.1, "parameters": 50890})
    row = results.table("02_growing_wider", folder=tmp_path).loc["growing"]
    assert (row["loss"], row["parameters"]) == ("0.1", "50,890")


def test_one_seed_has_no_interval(tmp_path):
    write(tmp_path)
    assert results.table("02_growing_wider", folder=tmp_path).loc["growing", "test accuracy"] == "97.00 %"


def test_an_arm_without_the_metric_stays_empty_but_a_seed_without_it_is_an_error(tmp_path, accuracies):
    write(tmp_path, "untested", metrics={"loss": 1.0})
    table = results.table("02_growing_wider", ["test_accuracy"], folder=tmp_path)
    assert table.loc["untested", "test accuracy"] == "" and table.loc["fixed-64", "test accuracy"] != ""
    with pytest.raises(LookupError, match="'test_acuracy' in any of the recorded runs fixed-64, fixed-104, untested"):
        results.table("02_growing_wider", ["test_acuracy"], folder=tmp_path)
    write(tmp_path, "fixed-64", 5, metrics={"loss": 1.0})
    with pytest.raises(LookupError, match="'test_accuracy' in 02_growing_wider/fixed-64, seed 5"):
        results.table("02_growing_wider", ["test_accuracy"], folder=tmp_path)


def test_the_seed_table_holds_the_plain_numbers(tmp_path, accuracies):
    seeds = results.seeds("02_growing_wider", "test_accuracy", folder=tmp_path)
    assert seeds.to_dict("list") == accuracies and list(seeds.columns) == ["fixed-64", "fixed-104"]
    assert list(seeds.index) == [0, 1, 2, 3, 4]
    write(tmp_path, "fixed-64", 7)
    assert math.isnan(results.seeds("02_growing_wider", folder=tmp_path).loc[7, "fixed-104"])


def test_the_stamp_says_seeds_profile_device_data_and_commit(tmp_path, accuracies):
    records = results.read("02_growing_wider", folder=tmp_path)
    for record in records:
        record |= {"device": "cpu, 2 threads, Model X", "commit": "0123456789ab-dirty"}
    expected = "5 seeds, full profile, cpu, 2 threads, Model X, mnist sha256 ab12ab12, commit 0123456-dirty"
    assert results.stamp(records) == expected
    records[0] |= {"profile": "quick", "commit": "growlib 0.1.0"}
    assert "quick and full profile" in results.stamp(records)
    assert results.stamp(records[:1]).startswith("1 seed, quick") and "commit growlib 0.1.0" in results.stamp(records)


# The grid runner

MODULE = """
import os, pathlib, torch

def train(seed, width, log):
    with open(pathlib.Path(log) / f"{width}-{seed}-{os.getpid()}", "a") as file:
        file.write(str(torch.get_num_threads()))
    if width == 13:
        raise ValueError("thirteen units are unlucky")
    return {"test_accuracy": 1 - 1 / (width + seed)}, [{"epoch": 1, "threads": torch.get_num_threads()}]
"""


def train(seed, width):
    if width == 13:
        raise ValueError("thirteen units are unlucky")
    return {"test_accuracy": 1 - 1 / (width + seed)}, [{"epoch": 1}]


def run_grid(function, arms, seeds, folder, **changes):
    given = {"chapter": "02_growing_wider", "profile": "full", "device": "cpu", "data": {"mnist": SHA}}
    return results.grid(function, arms, seeds, folder=folder, **given | changes)


def essence(records):
    return [{key: record[key] for key in ("run", "seed", "parameters", "metrics", "history")} for record in records]


ARMS = {"wide": {"width": 100}, "narrow": {"width": 10}}


def test_a_grid_returns_its_records_arm_by_arm_in_the_order_given(tmp_path):
    records = run_grid(train, ARMS, [3, 1], tmp_path)
    assert [(record["run"], record["seed"]) for record in records] == [
        ("wide", 3),
        ("wide", 1),
        ("narrow", 3),
        ("narrow", 1),
    ]
    assert records[0]["metrics"] == {"test_accuracy": 1 - 1 / 103} and records[0]["parameters"] == {"width": 100}
    assert records[0]["data"] == {"mnist": SHA} and 0 <= records[0]["wall_time_s"] < 5


@settings(max_examples=20, deadline=None)
@given(stop=st.integers(0, 6), seeds=st.permutations([0, 1, 2]))
def test_an_interrupted_grid_resumed_equals_one_never_interrupted(tmp_path_factory, stop, seeds):
    whole, parts = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("parts")
    calls = []

    def interrupted(seed, width):
        if len(calls) == stop:
            raise KeyboardInterrupt
        return counted(seed, width)

    def counted(seed, width):
        calls.append((width, seed))
        return train(seed, width)

    if stop < 6:
        with pytest.raises(KeyboardInterrupt):
            run_grid(interrupted, ARMS, seeds, parts)
    resumed = run_grid(counted, ARMS, seeds, parts)
    assert essence(resumed) == essence(run_grid(train, ARMS, seeds, whole))
    assert len(calls) == len(set(calls)) == 6  # nothing was run twice


def test_every_record_of_a_grid_names_the_commit_that_it_began_with(tmp_path, monkeypatch):
    commits = iter(["a" * 12, "b" * 12])
    monkeypatch.setattr(_runner, "code", lambda: next(commits))
    assert {record["commit"] for record in run_grid(train, ARMS, [0, 1], tmp_path)} == {"a" * 12}


def test_a_full_grid_from_changed_code_is_refused_unless_there_is_nothing_to_run(tmp_path, monkeypatch):
    monkeypatch.setattr(_runner, "code", lambda: "a" * 12 + "-dirty")
    with pytest.raises(RuntimeError, match="a full run needs code.*aaa-dirty: commit it.*git worktree add"):
        run_grid(train, ARMS, [0], tmp_path)
    assert not list(tmp_path.iterdir())
    quick = run_grid(train, ARMS, [0], tmp_path, profile="quick")
    assert quick[0]["commit"].endswith("-dirty")
    monkeypatch.setattr(_runner, "code", lambda: COMMIT)
    before = run_grid(train, ARMS, [0], tmp_path)
    monkeypatch.setattr(_runner, "code", lambda: "a" * 12 + "-dirty")
    assert run_grid(train, ARMS, [0], tmp_path) == before


def test_changed_settings_and_a_fuller_profile_run_again(tmp_path):
    calls = []

    def counted(seed, width):
        calls.append(width)
        return train(seed, width)

    run_grid(counted, {"growing": {"width": 10}}, [0], tmp_path, profile="quick")
    run_grid(counted, {"growing": {"width": 10}}, [0], tmp_path, profile="quick")
    assert calls == [10]
    [changed] = run_grid(counted, {"growing": {"width": 20}}, [0], tmp_path, profile="quick")
    assert calls == [10, 20] and changed["parameters"] == {"width": 20}
    run_grid(counted, {"growing": {"width": 20}}, [0], tmp_path, profile="full")
    assert calls == [10, 20, 20]
    with pytest.raises(ValueError, match="must not replace"):
        run_grid(counted, {"growing": {"width": 20}}, [0], tmp_path, profile="quick")
    assert calls == [10, 20, 20]  # refused before any run


def test_a_failed_run_is_reported_at_the_end_and_the_others_are_kept(tmp_path):
    arms = {"a": {"width": 10}, "unlucky": {"width": 13}, "z": {"width": 20}}
    with pytest.raises(RuntimeError, match="2 of 6 runs failed") as failure:
        run_grid(train, arms, [0, 1], tmp_path)
    assert "unlucky, seed 1: ValueError: thirteen units are unlucky" in str(failure.value)
    assert isinstance(failure.value.__cause__, ValueError)
    assert [(r["run"], r["seed"]) for r in results.read("02_growing_wider", folder=tmp_path)] == [
        ("a", 0),
        ("a", 1),
        ("z", 0),
        ("z", 1),
    ]


@pytest.mark.slow
def test_processes_give_the_records_of_one_process_and_share_the_threads(tmp_path, monkeypatch):
    (tmp_path / "experiment.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    import experiment

    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        arms = {run: given | {"log": str(tmp_path)} for run, given in (ARMS | {"unlucky": {"width": 13}}).items()}
        with pytest.raises(RuntimeError, match="2 of 6 runs failed.*\n  unlucky, seed 0.*\n  unlucky, seed 1"):
            run_grid(experiment.train, arms, [0, 1], tmp_path / "many", processes=2)
        del arms["unlucky"]
        found = run_grid(experiment.train, arms, [0, 1], tmp_path / "many", processes=2)
        alone = run_grid(experiment.train, arms, [0, 1], tmp_path / "one")
    finally:
        torch.set_num_threads(threads)
    assert [record["metrics"] for record in found] == [record["metrics"] for record in alone]
    assert {record["history"][0]["threads"] for record in found} == {2}
    assert all("2 threads" in record["device"] for record in found)


def test_a_function_that_other_processes_cannot_import_is_refused_before_any_run(tmp_path):
    with pytest.raises(ValueError, match="cannot send .*lambda.* to 2 processes.*processes=1"):
        run_grid(lambda seed, width: ({}, []), ARMS, [0], tmp_path, processes=2)


NOTEBOOK = """
assert (rate, rates) == (1e-05, [1e22]), (rate, rates)
if width == 13:
    raise ValueError("thirteen units are unlucky")
if run != "silent":
    from growlib import results

    given, found = {"width": width, "rate": rate, "rates": rates}, {"test_accuracy": 1 - 1 / (width + seed)}
    told = {"parameters": given, "metrics": found, "history": [], "wall_time_s": 1, "data": {"mnist": "ab12" * 16}}
    results.record("02_growing_wider", run, profile=profile, seed=seed, **told)
"""


def notebook(path: Path, code: str) -> Path:
    given = "run, seed, profile, width, rate, rates = 'a', 0, 'quick', 1, 0.1, []"
    cells = [
        {"cell_type": "code", "metadata": {"tags": tags}, "source": source, "outputs": [], "execution_count": None}
        for tags, source in [
            (["parameters"], given),
            ([], code),
        ]
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    content = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 4}
    path.write_text(json.dumps(content))
    return path


@pytest.mark.slow
def test_a_notebook_records_its_own_runs_and_is_reported_if_it_fails_or_records_nothing(tmp_path):
    path, rates = notebook(tmp_path / "02_growing_wider.ipynb", NOTEBOOK), {"rate": 1e-05, "rates": [1e22]}
    arms = {run: rates | {"width": width} for run, width in {"wide": 100, "unlucky": 13, "silent": 10}.items()}
    with pytest.raises(RuntimeError, match="2 of 3 runs failed") as failure:
        run_grid(path, arms, [4], tmp_path / "results", processes=2)
    assert "ValueError: thirteen units are unlucky" in str(failure.value)
    assert re.search(r"did not record .*silent-seed4.json with the parameters {.*'width': 10}", str(failure.value))
    [found] = run_grid(path, {"wide": arms["wide"]}, [4], tmp_path / "results")
    settings = {"parameters": arms["wide"], "metrics": {"test_accuracy": 1 - 1 / 104}, "history": []}
    assert essence([found]) == [{"run": "wide", "seed": 4} | settings] and found["commit"] == COMMIT
    assert sorted(file.name for file in tmp_path.iterdir()) == ["02_growing_wider.ipynb", "results"]


def test_a_notebook_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing.ipynb"):
        run_grid(tmp_path / "missing.ipynb", ARMS, [0], tmp_path)
