"""NeuronGenesis: a stream of tasks, from the first to the last and from a checkpoint."""

from dataclasses import replace

import pytest
import torch
from tasks import Save
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import OneCycleLR

from growlib import (
    MLP,
    Budget,
    Callback,
    Certify,
    LRSchedule,
    NeuronGenesis,
    TaskNet,
    Trainer,
    below,
    load,
    new_task,
    retention_certificate,
    retention_snapshot,
    split_by_class,
    within_budget,
)


@pytest.fixture(scope="module")
def stream():
    return split_by_class(load("digits"), 5)[:3]


def make(stream, callbacks, optimizer=AdamW, width=6, **settings):
    torch.manual_seed(0)
    model = TaskNet(stream[0].shape, stream[0].name, 2, hidden=[width])
    return Trainer(model, optimizer(model.parameters(), lr=0.02), callbacks, device="cpu", batch_size=32, **settings)


def test_every_task_gets_units_and_nothing_old_moves(stream):
    certify = Certify(*stream)
    trainer = make(stream, [NeuronGenesis(hidden=4), certify])
    history = trainer.fit(*stream, epochs=[2, 1, 1])
    assert [(c["kind"], c["layer"], c["cause"]) for c in history.changes] == [
        ("task", "digits-2", "new task 'digits-2'"),
        ("task", "digits-3", "new task 'digits-3'"),
    ]
    assert trainer.model.closed == {"digits-1", "digits-2"} and trainer.model.hidden1.widths == {0: 6, 1: 4, 2: 4}
    assert [one["exact"] for one in certify.certificates] == [True, True]
    assert [one["tasks"] for one in certify.certificates] == [["digits-1"], ["digits-1", "digits-2"]]
    assert history.column("logits_changed") == [0, 0]
    for task in stream:
        assert trainer.evaluate(task, "test")["accuracy"] > 0.75
    assert [record["task"] for record in history.records] == [0, 0, 1, 2]


def test_a_task_that_is_learned_too_badly_grows_again_but_not_at_its_end(stream):
    when = new_task() | below("val_accuracy", 1.01, 2)
    trainer = make(stream, [NeuronGenesis(hidden=3, when=when)])
    history = trainer.fit(*stream[:2], epochs=4)
    assert trainer.model.hidden1.widths == {0: 9, 1: 6}  # after the second epoch; the fourth is the last
    first, task, second = history.changes
    assert (first["kind"], first["layer"], first["epoch"], task["epoch"], second["epoch"]) == (
        "widen",
        "hidden1",
        2,
        4,
        6,
    )
    assert "< 1.01 for 2 epochs" in first["cause"]


def test_growth_within_a_task_asks_the_budget_first(stream):
    price = 64 * 6 + 6 + 6 * 2 + 2
    when = new_task() | (below("val_accuracy", 1.01) & within_budget(params=price + 10))
    trainer = make(stream, [NeuronGenesis(hidden=3, when=when)])
    assert not trainer.fit(stream[0], epochs=3).changes
    refused = make(stream, [NeuronGenesis(hidden=3)], budget=Budget(parameters=price + 10))
    with pytest.raises(ValueError, match="the budget is"):
        refused.fit(*stream[:2], epochs=1)
    assert refused.model.tasks == ["digits-1"] and not refused.model.closed  # nothing was changed


def test_the_numbers_of_units_may_be_functions(stream):
    trainer = make(stream, [NeuronGenesis(hidden=lambda trainer: 2 + len(trainer.model.tasks))])
    trainer.fit(*stream, epochs=1)
    assert trainer.model.hidden1.widths == {0: 6, 1: 3, 2: 4}


def test_each_task_has_a_schedule_and_an_empty_state_of_its_own(stream):
    seen = []

    class Watch(Callback):
        def before_step(self, trainer):
            group = trainer.optimizer.param_groups[0]
            if trainer.done == 0:
                seen.append((group["lr"], len(trainer.optimizer.state)))

    schedule = LRSchedule(OneCycleLR, "step", max_lr=0.1)
    trainer = make(stream, [schedule, NeuronGenesis(hidden=4), Watch()])
    history = trainer.fit(*stream, epochs=[2, 3, 1])
    assert seen == [(pytest.approx(0.1 / 25), 0)] * 3
    ends = [r["learning_rate"] for r in history.records if r["epoch"] in (2, 5, 6)]
    assert max(ends) < 0.01


@pytest.mark.parametrize("optimizer", [AdamW, lambda p, lr: SGD(p, lr, momentum=0.9, weight_decay=0.01)])
@pytest.mark.parametrize("step", [2, 18, 25])
def test_resuming_a_stream_equals_not_having_stopped(stream, tmp_path, step, optimizer):
    def callbacks(at):
        when = new_task() | below("val_accuracy", 1.01)
        schedule = LRSchedule(OneCycleLR, "step", max_lr=0.1)
        return [schedule, NeuronGenesis(hidden=3, when=when), Certify(*stream), Save(tmp_path / "cut.pt", at)]

    whole = make(stream, callbacks(step), optimizer)
    whole.fit(*stream, epochs=2)
    assert (tmp_path / "cut.pt").exists() and whole.step > step
    parted = Trainer.load(tmp_path / "cut.pt", callbacks=callbacks(-1), device="cpu")
    parted.fit(*stream, epochs=2)
    assert parted.history.losses == whole.history.losses
    for mine, theirs in zip(parted.model.state_dict().values(), whole.model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    assert parted.history.changes == whole.history.changes


def test_a_stream_goes_on_with_all_its_tasks_only(stream, tmp_path):
    trainer = make(stream, [NeuronGenesis(hidden=3), Save(tmp_path / "cut.pt", 20)])
    trainer.fit(*stream, epochs=2)
    parted = Trainer.load(tmp_path / "cut.pt", callbacks=[NeuronGenesis(hidden=3), Save("", -1)], device="cpu")
    assert parted.model.tasks == ["digits-1", "digits-2"]
    with pytest.raises(ValueError, match=r"has finished 1 tasks of its stream \(digits-1\): pass the whole stream"):
        parted.fit(stream[1], epochs=2)
    with pytest.raises(ValueError, match="pass the whole stream, not digits-3, digits-2"):
        parted.fit(stream[2], stream[1], epochs=2)
    with pytest.raises(ValueError, match="only the file has"):
        Trainer.load(tmp_path / "cut.pt", TaskNet((1, 8, 8), "digits-1", 2, hidden=[6]), [NeuronGenesis(hidden=3)])


def test_what_cannot_be_learned_is_refused(stream):
    trainer = make(stream, [NeuronGenesis(hidden=3)])
    trainer.fit(*stream[:2], epochs=1)
    with pytest.raises(ValueError, match="task 'digits-1' is closed"):
        trainer.fit(stream[0], epochs=1)
    with pytest.raises(ValueError, match="does not take small, of shape"):
        trainer.fit(replace(load("shapes", n=60), name="small"), epochs=1)
    more = replace(stream[1], labels=None) if hasattr(stream[1], "labels") else load("digits")
    with pytest.raises(ValueError, match="reach from 0 to 9, and the model has 2 outputs"):
        trainer.fit(replace(more, name="digits-2"), epochs=1)
    with pytest.raises(ValueError, match="unknown task 'digits-3'"):
        make(stream, []).fit(stream[2], epochs=1)
    with pytest.raises(ValueError, match="did not fire for the new task"):
        make(stream, [NeuronGenesis(hidden=3, when=below("val_accuracy", 0.5))]).fit(*stream[:2], epochs=1)
    plain = MLP(64, [4], 10)
    with pytest.raises(TypeError, match="grows a TaskNet, and the model is a MLP"):
        Trainer(plain, AdamW(plain.parameters()), [NeuronGenesis()], device="cpu").fit(load("digits"), epochs=1)


def test_a_certificate_is_about_the_same_surroundings(stream):
    model = make(stream, []).model
    model.grow("digits-2", hidden=3, classes=2)
    before = retention_snapshot(model, stream[0])
    assert retention_certificate(before, retention_snapshot(model, *stream[:2]))["exact"]
    with pytest.raises(ValueError, match="the later snapshot lacks 'digits-1'"):
        retention_certificate(before, retention_snapshot(model, stream[1]))
    with pytest.raises(ValueError, match="not comparable: threads was"):
        retention_certificate(before, before | {"threads": 99})
    with torch.no_grad():
        weight = model.hidden1.block(0).weight
        weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(9.0))
    found = retention_certificate(before, retention_snapshot(model, *stream[:2]))
    assert not found["exact"] and found["tensors_changed"] == 1
