"""Two processes train one growing network: tests/ranks.py under torchrun, and what both of its ranks wrote."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ranks import callbacks, few, model_and_optimizer

from growlib import Trainer, parallel
from growlib.models import MLP

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What the two ranks saw."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CI": "1"}
    run = subprocess.run([*command, "ranks.py", folder], cwd=HERE, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def alone(settings=None, with_callbacks=None, size=201, epochs=3):
    model, optimizer = model_and_optimizer(seed=0)
    trainer = Trainer(model, optimizer, with_callbacks or (), device="cpu", **(settings or {"batch_size": 64}))
    trainer.fit(few(size), epochs=epochs)
    return trainer


def close(mine, theirs):
    torch.testing.assert_close(torch.tensor(mine), torch.tensor(theirs), rtol=1e-3, atol=1e-4)


# --------------------------------------------------------------------------------------------- one run, two ranks


@pytest.mark.slow
@pytest.mark.parametrize("run", ["a_growing_run", "the_same_run_resumed", "a_convnet", "a_fast_run"])
def test_the_ranks_are_equal_to_the_bit_after_every_change(ranks, run):
    first, second = [rank[run] for rank in ranks]
    assert len(set(first["seen"])) >= 3
    assert first == second  # hashes, losses, changes with their causes, and the records with their times


@pytest.mark.slow
@pytest.mark.parametrize("run", ["a_rewired_run", "a_rewired_csr_run"])
def test_ranks_rewire_alike_and_their_budget_stays(ranks, run):
    first, second = [rank[run] for rank in ranks]
    assert first == second and len(set(first["seen"])) == len(first["seen"]) - 2  # the end of an epoch is its last step
    assert first["before"] == first["after"]


@pytest.mark.slow
def test_rank_0_decides_and_the_other_is_not_asked(ranks):
    changes = ranks[1]["a_growing_run"]["changes"]
    causes = [change["cause"] for change in changes]
    assert causes.count("rank 0 wants it") == 2 + 3 and "step 4, width 8 < 20" in causes
    assert {change["kind"] for change in changes} == {"widen", "prune", "deepen"}


@pytest.mark.slow
def test_resuming_equals_not_having_stopped(ranks):
    whole, resumed = ranks[0]["a_growing_run"], ranks[0]["the_same_run_resumed"]
    assert resumed["losses"] == whole["losses"] and resumed["changes"] == whole["changes"]
    assert resumed["final"] == whole["final"]


@pytest.mark.slow
def test_two_ranks_train_as_one_process_does(ranks, tmp_path):
    """Uneven last batches (of 9 examples; of one), gradients in two parts; and growth with the units of rank 0."""
    runs = ranks[0]["a_run_without_growth"]
    close(runs["plain"]["losses"], alone(size=193, epochs=2).history.losses)
    settings = {"batch_size": 32, "accumulate": 2}
    close(runs["accumulated"]["losses"], alone(settings, size=193, epochs=2).history.losses)
    for mine, theirs in zip(runs["plain"]["records"], alone(size=193, epochs=2).history.records, strict=True):
        assert mine["train_accuracy"] == pytest.approx(theirs["train_accuracy"], abs=0.02)
        assert mine["training_flops"] == theirs["training_flops"]
    grown = ranks[0]["a_growing_run"]
    same = alone({"batch_size": 64, "clip": 1.0}, callbacks(tmp_path))
    assert [change["layer"] for change in grown["changes"]] == [change["layer"] for change in same.history.changes]
    close(grown["losses"][:4], same.history.losses[:4])


@pytest.mark.slow
def test_a_failure_on_rank_0_ends_all_ranks(ranks):
    assert ranks[0]["a_failure_on_rank_0"] == "ValueError: no such unit"
    assert ranks[1]["a_failure_on_rank_0"] == "RuntimeError: rank 0 failed: ValueError: no such unit"


@pytest.mark.slow
def test_ranks_with_different_models_are_refused(ranks):
    for rank in ranks:
        assert "hidden1.bias, hidden1.weight, output.weight" in rank["other_architectures"]


# ------------------------------------------------------------------------------------------ without a trainer


@pytest.mark.slow
def test_a_plain_loop_changes_together(ranks):
    first, second = [rank["a_plain_loop"] for rank in ranks]
    assert first == second and first["widths"] == [12, 5] and len(set(first["seen"])) == 9


@pytest.mark.slow
def test_without_the_broadcast_the_ranks_part(ranks):
    first, second = [rank["no_broadcast"]["seen"] for rank in ranks]
    assert [one == other for one, other in zip(first, second, strict=True)][:4] == [True, True, False, False]


@pytest.mark.slow
def test_the_old_wrapper_does_not_reduce_the_new_gradients_and_then_fails(ranks):
    first, second = [rank["the_old_wrapper"] for rank in ranks]
    assert first["seen"][:3] == second["seen"][:3]  # two steps, and the change
    assert first["seen"][3] != second["seen"][3]  # the first step after it: everyone has followed its own gradients
    assert first["step"] == 3 and "Expected to have finished reduction" in first["error"]


@pytest.mark.slow
def test_what_ranks_tell_each_other(ranks):
    for number, rank in enumerate(ranks):
        answers = rank["a_function_of_each"]
        assert answers["agreed"] == [None, {"rank": 0}, [0] * 1000] and answers["total"] == [2, 1]
        assert answers["portions"] == [[[0, 2, 4], [1, 3]][number], [0.1, 0.0][number]]


# ------------------------------------------------------------------------------------------------ in one process


def test_alone_nothing_is_wrapped_or_sent():
    model = MLP(4, [3], 2)
    assert parallel.wrap(model) is model and (parallel.world(), parallel.rank()) == (1, 0)
    assert parallel.agreed("x") == "x" and parallel.gathered(3) == [3]
    index, share = parallel.portion(torch.arange(5), 10)
    assert index.tolist() == [0, 1, 2, 3, 4] and share == 0.5


def test_processes_that_do_not_know_of_each_other_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    model = MLP(4, [3], 2)
    with pytest.raises(RuntimeError, match="torchrun started 2 .* torch.distributed.init_process_group"):
        Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1))


def test_a_fingerprint_sees_a_single_bit_and_the_optimizer():
    model, optimizer = model_and_optimizer(seed=0)
    before = parallel.fingerprint(model, optimizer)
    assert parallel.fingerprint(*model_and_optimizer(seed=0)) == before
    with torch.no_grad():
        model.output.bias[3] = torch.nextafter(model.output.bias[3], torch.tensor(1.0))
    assert (changed := parallel.fingerprint(model, optimizer)) != before
    model(few().normalize(few().train.images[:3])).sum().backward()
    optimizer.step()
    stepped = parallel.fingerprint(model, optimizer)
    optimizer.state[model.output.bias]["exp_avg"][0] *= 2
    assert len({before, changed, stepped, parallel.fingerprint(model, optimizer)}) == 4
