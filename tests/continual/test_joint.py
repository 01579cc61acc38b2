"""Joint: the loss of all tasks, drawn anew every step."""

from dataclasses import replace

import pytest
import torch
from tasks import cut_in_two, halves, make, same
from torch.nn.functional import cross_entropy

from growlib import load
from growlib.continual import Joint


@pytest.fixture(scope="module")
def tasks():
    return halves(load("digits"), 100)


def test_the_loss_is_the_mean_over_tasks(tasks):
    joint = Joint(*tasks)
    trainer = make([joint], tasks)
    trainer.fit(tasks[0], epochs=1)
    trainer.inputs, trainer.data = tasks[0].batch("train", torch.arange(100))[0], tasks[0]  # as many as there are
    first = trainer.batch_loss = cross_entropy(trainer.model(trainer.inputs, tasks[0].name), tasks[0].train.labels)
    inputs, labels = tasks[1].batch("train", torch.arange(100))
    second = [
        cross_entropy(trainer.model(x[None], tasks[1].name), y[None]) for x, y in zip(inputs, labels, strict=True)
    ]
    joint.after_loss(trainer)
    torch.testing.assert_close(trainer.batch_loss, (first + sum(second) / 100) / 2)


def test_every_step_draws_other_examples_and_the_seed_repeats_them(tasks):
    joint, again = Joint(*tasks), Joint(*tasks)
    trainer = make([], tasks)
    trainer.inputs = torch.zeros(10, 1)
    drawn = [joint.drawn(trainer, tasks[1])[0] for _ in range(4)]
    assert all(torch.equal(one, again.drawn(trainer, tasks[1])[0]) for one in drawn)
    assert not any(torch.equal(one, other) for one, other in zip(drawn, drawn[1:], strict=False))


def test_tasks_that_the_model_does_not_know_yet_are_left_out(tasks):
    strange = replace(tasks[1], name="another")
    whole, alone = make([Joint(tasks[0], strange)], tasks), make([], tasks)
    assert whole.fit(tasks[0], epochs=2).losses == alone.fit(tasks[0], epochs=2).losses
    other = make([Joint(*tasks)], tasks)
    assert other.fit(tasks[0], epochs=2).losses != alone.history.losses


def test_one_fit_learns_all_tasks(tasks):
    found = {}
    for name, callbacks in {"joint": [Joint(*tasks)], "alone": []}.items():
        trainer = make(callbacks, tasks)
        trainer.fit(tasks[0], epochs=10)
        logits = trainer.model(*[tasks[1].batch("val", torch.arange(len(tasks[1].val)))[0], tasks[1].name])
        found[name] = (logits.argmax(1) == tasks[1].val.labels).float().mean()
    assert found["joint"] > 0.8 and found["alone"] < 0.5


def test_a_resumed_run_is_the_run(tasks, tmp_path):
    whole, parted = cut_in_two(tmp_path / "file.pt", lambda: [Joint(*tasks)], tasks, 6)
    assert same(whole, parted)
    forgetful = type("Joint", (Joint,), {"state_dict": lambda self: {"draws": 0}})
    whole, parted = cut_in_two(tmp_path / "other.pt", lambda: [forgetful(*tasks)], tasks, 6)
    assert not same(whole, parted)


def test_nothing_to_join_is_refused():
    with pytest.raises(ValueError, match="pass the data sets of all tasks"):
        Joint()
