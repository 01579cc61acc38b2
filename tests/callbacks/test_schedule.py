"""LRSchedule: schedules that look at the loss, that end, and that belong to a task."""

import warnings

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from growlib import MLP, Callback, LRSchedule, Trainer, load


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def make(callbacks, rate=0.01, **settings):
    torch.manual_seed(0)
    model = MLP(64, [8], 10)
    return Trainer(model, torch.optim.Adam(model.parameters(), lr=rate), callbacks, device="cpu", **settings)


class Rates(Callback):
    """The rate of every step, and of after every epoch."""

    def __init__(self):
        self.steps, self.epochs = [], []

    def before_step(self, trainer):
        self.steps.append(trainer.optimizer.param_groups[0]["lr"])

    def after_epoch(self, trainer):
        self.epochs.append(trainer.optimizer.param_groups[0]["lr"])


class Stop(Callback):
    """Ends the first task after its first epoch, or the run after some epochs."""

    def __init__(self, run=0):
        self.run = run

    def after_epoch(self, trainer):
        if trainer.epoch == self.run:
            trainer.stop_run("for the test")
        elif trainer.epoch == 1 and not self.run:
            trainer.stop_task("for the test")


def test_reduce_on_plateau_gets_the_validation_loss(digits):
    rates = Rates()
    schedule = LRSchedule(ReduceLROnPlateau, factor=0.5, patience=0, threshold=0.0)
    history = make([schedule, rates], rate=0.3).fit(digits, epochs=8)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    by_hand, wanted = ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.0), []
    for loss in history.column("val_loss"):
        by_hand.step(loss)
        wanted.append(optimizer.param_groups[0]["lr"])
    assert rates.epochs == wanted and min(wanted) < 0.3
    assert wanted != [0.3 * 0.5**epoch for epoch in range(1, 9)]  # it does not fall whatever the loss
    with pytest.raises(ValueError, match="comes once an epoch: per='epoch'"):
        LRSchedule(ReduceLROnPlateau, per="step")


@pytest.mark.parametrize("together", [True, False])
def test_the_plateau_of_one_task_is_none_of_the_next(digits, together):
    rates = Rates()
    schedule = LRSchedule(ReduceLROnPlateau, factor=0.5, patience=1, eps=0)
    trainer = make([schedule, rates], rate=1e-15)  # a loss that never falls
    for stream in [(digits, digits)] if together else [(digits,), (digits,)]:
        trainer.fit(*stream, epochs=5)
    assert rates.epochs[:5] == rates.epochs[5:] and rates.epochs[4] < rates.epochs[0] == 1e-15


def test_a_rate_that_was_set_by_hand_between_tasks_stays(digits):
    rates = Rates()
    trainer = make([LRSchedule(ReduceLROnPlateau, patience=5), rates])
    trainer.fit(digits, epochs=1)
    trainer.optimizer.param_groups[0]["lr"] = 0.002
    trainer.fit(digits, epochs=1)
    assert rates.epochs == [0.01, 0.002]


def test_a_plateau_goes_on_after_a_resume(digits, tmp_path):
    def schedule():
        return LRSchedule(ReduceLROnPlateau, factor=0.5, patience=0, threshold=0.0)

    whole = make([schedule()], rate=0.3).fit(digits, epochs=9)
    first = make([schedule(), Stop(run=6)], rate=0.3)
    first.fit(digits, epochs=9)
    first.callbacks.pop()
    first.save(tmp_path / "run.pt")
    again = Trainer.load(tmp_path / "run.pt", callbacks=[schedule()], device="cpu").fit(digits, epochs=9)
    rates = whole.column("learning_rate")
    assert again.losses == whole.losses and again.column("learning_rate") == rates and min(rates) < 0.3


@pytest.mark.parametrize("anneal", ["cos", "linear"])
def test_one_cycle_past_its_end_stays_at_its_last_rate_and_says_so(digits, anneal):
    rates, steps = Rates(), 11
    schedule = LRSchedule(OneCycleLR, "step", max_lr=0.05, total_steps=steps, anneal_strategy=anneal)
    trainer = make([rates, schedule])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.fit(digits, epochs=1)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01, momentum=0.9)
    by_hand, wanted = OneCycleLR(optimizer, max_lr=0.05, total_steps=steps, anneal_strategy=anneal), []
    for _ in range(steps - 1):
        wanted.append(optimizer.param_groups[0]["lr"])
        optimizer.step(), by_hand.step()
    wanted.append(optimizer.param_groups[0]["lr"])
    assert rates.steps == pytest.approx(wanted) and min(wanted) == wanted[-1] > 0
    with pytest.warns(UserWarning, match="OneCycleLR was made for 11 steps, and training goes on: the rate stays"):
        trainer.fit(digits, epochs=2)
    assert rates.steps[steps:] == pytest.approx([wanted[-1]] * 2 * steps)
    with pytest.raises(ValueError, match="Tried to step 12 times"):  # the negative control
        by_hand.step(), by_hand.step()


@pytest.mark.parametrize("together", [True, False])
def test_a_task_that_ends_early_leaves_a_whole_cycle_to_the_next(digits, together):
    rates = Rates()
    trainer = make([rates, LRSchedule(OneCycleLR, "step", max_lr=0.05), Stop()])
    for stream in [(digits, digits)] if together else [(digits,), (digits,)]:
        trainer.fit(*stream, epochs=3)
    first, second = rates.steps[:11], rates.steps[11:]
    assert len(second) == 33 and second[:11] == first
    assert max(second) == pytest.approx(0.05, rel=0.01) and second[-1] < 1e-5 < first[-1]
