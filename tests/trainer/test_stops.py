"""A task and a run end early in two ways: the one ends, the other goes on later."""

import math
import os
import signal
from functools import partial

import pytest
import torch
from torch.optim import SGD

from growlib import MLP, Callback, Checkpoint, EarlyStopping, Trainer, load, split_by_class


class Log(Callback):
    """Writes down every event of tasks and epochs."""

    def __init__(self):
        self.events = []

    def before_task(self, trainer):
        self.events.append(("before", trainer.data.name))

    def after_epoch(self, trainer):
        self.events.append(trainer.epoch)

    def after_task(self, trainer):
        self.events.append(("after", trainer.data.name))


class Stop(Callback):
    """Calls one of the two methods at a step, or after an epoch."""

    def __init__(self, how, step=None, epoch=None):
        self.how, self.step, self.epoch = how, step, epoch

    def after_step(self, trainer):
        if trainer.step == self.step:
            getattr(trainer, self.how)("as told")

    def after_epoch(self, trainer):
        if trainer.epoch == self.epoch:
            getattr(trainer, self.how)("as told")


@pytest.fixture(scope="module")
def tasks():
    return split_by_class(load("digits"), 5)[:3]


def trainer_of(*callbacks, **settings):
    torch.manual_seed(0)
    model = MLP(64, [8], 2)
    return Trainer(model, SGD(model.parameters(), lr=0.1, momentum=0.9), callbacks, device="cpu", **settings)


def test_a_task_that_is_stopped_ends_and_the_next_one_begins(tasks):
    a, b, c = (task.name for task in tasks)
    log = Log()
    trainer = trainer_of(Stop("stop_task", epoch=1), log)
    trainer.fit(*tasks, epochs=2)
    assert log.events == [
        ("before", a),
        1,
        ("after", a),
        ("before", b),
        2,
        3,
        ("after", b),
        ("before", c),
        4,
        5,
        ("after", c),
    ]
    assert [record["task"] for record in trainer.history.records] == [0, 1, 1, 2, 2]


def test_separate_fits_are_separate_tasks_after_a_stop(tasks):
    log = Log()
    trainer = trainer_of(Stop("stop_task", epoch=1), log)
    for task in tasks[:2]:
        trainer.fit(task, epochs=2)
    a, b = (task.name for task in tasks[:2])
    assert log.events == [("before", a), 1, ("after", a), ("before", b), 2, 3, ("after", b)]


def test_a_task_stopped_in_mid_epoch_drops_the_rest_of_it(tasks):
    log = Log()
    trainer = trainer_of(Stop("stop_task", step=1), log, batch_size=32)
    trainer.fit(*tasks[:2], epochs=1)
    a, b = (task.name for task in tasks[:2])
    assert log.events == [("before", a), ("after", a), ("before", b), 1, ("after", b)]
    assert len(trainer.history.records) == 1 and trainer.history.records[0]["epoch"] == 1
    steps = -(-len(tasks[1].train) // 32)
    assert trainer.step == 1 + steps and len(trainer.history.losses) == trainer.step


def test_a_run_that_is_stopped_goes_on_as_if_it_had_not_been(tasks):
    whole = trainer_of(batch_size=32)
    whole.fit(*tasks, epochs=2)
    for stop in (Stop("stop_run", step=3), Stop("stop_run", epoch=3)):
        log = Log()
        parts = trainer_of(stop, log, batch_size=32)
        parts.fit(*tasks, epochs=2)
        assert parts.stopped == "as told" and ("after", tasks[2].name) not in log.events
        parts.fit(*tasks, epochs=2)
        assert parts.stopped is None and parts.history.losses == whole.history.losses
        assert sum(event[0] == "before" for event in log.events if isinstance(event, tuple)) == 3


@pytest.mark.parametrize("order", ["before", "behind"])
def test_a_pending_stop_survives_a_checkpoint(tasks, tmp_path, order):
    """Also where EarlyStopping stands before Checkpoint."""
    stop, keep = Stop("stop_task", epoch=1), Checkpoint(tmp_path)
    trainer = trainer_of(*([stop, keep] if order == "before" else [keep, stop]))
    halt = Stop("stop_run", epoch=1)
    trainer.callbacks.append(halt)
    trainer.fit(*tasks[:2], epochs=3)
    fresh = [Stop("stop_task", epoch=1), Checkpoint(tmp_path)]
    again = Trainer.load(
        tmp_path / "last.pt", callbacks=[*(fresh if order == "before" else fresh[::-1]), Stop("stop_run", epoch=1)]
    )
    again.callbacks.pop()  # or it would stop the run once more
    again.fit(*tasks[:2], epochs=3)
    assert [record["task"] for record in again.history.records] == [0, 1, 1, 1]


def test_every_task_has_a_patience_and_a_best_of_its_own(tasks):
    """The first task is left with a loss that the second one does not reach at once."""
    trainer = trainer_of(EarlyStopping(patience=1), batch_size=8)
    trainer.fit(*tasks[:2], epochs=12)
    per_task = [[r["val_loss"] for r in trainer.history.records if r["task"] == task] for task in (0, 1)]
    for losses in per_task:
        stopped = next((n for n in range(1, len(losses)) if losses[n] >= min(losses[:n])), None)
        assert len(losses) == (12 if stopped is None else stopped + 1)
    assert min(per_task[0]) < per_task[1][0], "the second task never beats the best of the first one at its start"
    assert len(per_task[1]) > 1


def test_stopping_asks_for_a_fit():
    for how in ("stop_task", "stop_run"):
        with pytest.raises(RuntimeError, match="before the first fit"):
            getattr(trainer_of(), how)("too early")


def test_a_stop_when_a_task_has_ended_ends_nothing_more(tasks):
    class Late(Callback):
        def after_task(self, trainer):
            trainer.stop_task("too late")

    log = Log()
    trainer = trainer_of(Late(), log)
    trainer.fit(*tasks[:2], epochs=2)
    assert trainer.epoch == 4


class Raise(Callback):
    """Fails once, at an event."""

    def __init__(self, event):
        setattr(self, event, partial(self.fail, event))

    def fail(self, event, trainer):
        delattr(self, event)
        raise RuntimeError("once")


@pytest.mark.parametrize("event", ["before_epoch", "before_step", "after_loss", "after_backward"])
def test_a_task_that_began_does_not_begin_again(tasks, event):
    clean, log = Log(), Log()
    whole, trainer = trainer_of(clean), trainer_of(log, Raise(event))
    whole.fit(*tasks, epochs=1)
    with pytest.raises(RuntimeError, match="once"):
        trainer.fit(*tasks, epochs=1)
    trainer.fit(*tasks, epochs=1)
    assert log.events == clean.events and trainer.history.starts == whole.history.starts


def test_a_task_that_failed_to_begin_begins_again(tasks):
    log = Log()
    trainer = trainer_of(Raise("before_task"), log)
    with pytest.raises(RuntimeError, match="once"):
        trainer.fit(tasks[0], epochs=1)
    assert log.events == [] and trainer.history.starts == []
    trainer.fit(tasks[0], epochs=1)
    assert log.events == [("before", tasks[0].name), 1, ("after", tasks[0].name)] and trainer.history.starts == [0]


@pytest.mark.parametrize("event", ["before_task", "before_epoch"])
def test_a_run_that_stops_where_something_begins_goes_on_there(tasks, tmp_path, event):
    class StopFirst(Callback):
        def __repr__(self):
            return "StopFirst()"

    stop, log = StopFirst(), Log()
    setattr(stop, event, lambda trainer: (delattr(stop, event), trainer.stop_run("as told")))
    trainer = trainer_of(stop, log)
    trainer.fit(tasks[0], epochs=1)
    assert trainer.step == 0
    trainer.save(tmp_path / "run.pt")
    again = Log()
    other = Trainer.load(tmp_path / "run.pt", callbacks=[StopFirst(), again], device="cpu")
    for one in (trainer, other):
        one.fit(tasks[0], epochs=1)
    assert log.events == [("before", tasks[0].name), 1, ("after", tasks[0].name)] and again.events == log.events[1:]
    assert trainer.history.losses == other.history.losses


def test_a_second_ctrl_c_cuts_no_optimizer_step_in_two(tasks):
    class Twice(SGD):
        def step(self, closure=None):
            if pressed:
                for _ in range(2):
                    os.kill(os.getpid(), pressed.pop())
            return super().step(closure)

    torch.manual_seed(0)
    model, pressed = MLP(64, [8], 2), []
    trainer = Trainer(model, Twice(model.parameters(), lr=0.1, momentum=0.9), device="cpu")
    pressed += [signal.SIGINT] * 2
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(tasks[0], epochs=1)
    assert trainer.step == 1 == len(trainer.history.losses)
    trainer.fit(tasks[0], epochs=1)
    whole = trainer_of()
    whole.fit(tasks[0], epochs=1)
    assert trainer.history.losses == whole.history.losses


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_fit_trains_in_modes_that_forbid_gradients(tasks, mode):
    whole, trainer = trainer_of(), trainer_of()
    whole.fit(tasks[0], epochs=1)
    with mode():
        trainer.fit(tasks[0], epochs=1)
    assert trainer.history.losses == whole.history.losses


def test_an_epoch_whose_steps_are_done_ends_after_a_resume_too(tasks, tmp_path):
    """A task is stopped at the last step of an epoch, and the checkpoint is written right behind."""

    class Save(Callback):
        def after_step(self, trainer):
            if trainer.step == last and "wanted" in vars(self):
                trainer.save(tmp_path / "run.pt")

    last, save = math.ceil(len(tasks[0].train) / 128), Save()
    save.wanted = True
    whole = trainer_of(Stop("stop_task", step=last), save)
    whole.fit(*tasks, epochs=2)
    resumed = Trainer.load(tmp_path / "run.pt", callbacks=[Stop("stop_task", step=last), Save()], device="cpu")
    resumed.fit(*tasks, epochs=2)
    assert resumed.history.losses == whole.history.losses
    assert [record["step"] for record in resumed.history.records] == [
        record["step"] for record in whole.history.records
    ]
    assert whole.history.records[0]["step"] == last


def test_a_run_that_stops_when_its_last_task_has_ended_is_through(tasks):
    class Last(Callback):
        def after_task(self, trainer):
            if trainer.data.name == tasks[1].name:
                trainer.stop_run("as told")

    trainer, log = trainer_of(Last(), Log()), Log()
    trainer.fit(*tasks[:2], epochs=1)
    steps = trainer.step
    trainer.callbacks = [log]
    trainer.fit(*tasks[:2], epochs=1)
    a, b = tasks[0].name, tasks[1].name
    assert log.events == [("before", a), 3, ("after", a), ("before", b), 4, ("after", b)] and trainer.step == 2 * steps
