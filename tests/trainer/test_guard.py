"""Numbers that are not finite never reach what is kept, and a step that failed leaves nothing behind."""

import copy
import math
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Optimizer

from growlib import MLP, Callback, Checkpoint, Joint, Replay, Trainer, load, split_by_class
from growlib.trainer import loop


@pytest.fixture(scope="module")
def data():
    return load("digits")


STEPS = 13  # of an epoch: 1,294 training examples in batches of 100


class Poison(Callback):
    """Puts nan into a gradient at one step, which no loss of this step shows."""

    def __init__(self, step):
        self.step = step

    def after_backward(self, trainer):
        if trainer.step + 1 == self.step:
            next(trainer.model.parameters()).grad[0, 0] = math.nan


class Fail(Callback):
    """Raises in the middle of a step, once."""

    def __init__(self, step, error=RuntimeError):
        self.step, self.error = step, error

    def after_backward(self, trainer):
        if trainer.step + 1 == self.step and self.error:
            error, self.error = self.error, None
            raise error("out of memory")


class Save(Callback):
    def __init__(self, path):
        self.path = path

    def after_step(self, trainer):
        trainer.save(self.path)


def trainer_of(data, *callbacks, **settings):
    torch.manual_seed(0)
    model = MLP(64, [8], 10)
    settings = {"batch_size": 100, "device": "cpu"} | settings
    return Trainer(model, SGD(model.parameters(), lr=0.1, momentum=0.9), callbacks, **settings)


def steps_of(data):
    return math.ceil(len(data.train) / 100)


@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_nan_gradients_never_reach_what_is_kept(data, tmp_path, place):
    last = steps_of(data)
    step = last + {"first": 1, "middle": 5, "last": last}[place]
    trainer = trainer_of(data, Poison(step), Checkpoint(tmp_path))
    with pytest.raises(FloatingPointError, match="back at step"):
        trainer.fit(data, epochs=3)
    assert trainer.step == last and len(trainer.history.records) == 1 and len(trainer.history.losses) == last
    kept = Trainer.load(tmp_path / "last.pt", callbacks=[Poison(step), Checkpoint(tmp_path)])
    for model in (trainer.model, kept.model):
        assert all(parameter.isfinite().all() for parameter in model.parameters())
    trainer.callbacks = trainer.callbacks[1:]
    trainer.fit(data, epochs=3)
    whole = trainer_of(data)
    whole.fit(data, epochs=3)
    assert trainer.history.losses == whole.history.losses


def test_a_save_right_after_the_step_is_refused_too(data, tmp_path):
    trainer = trainer_of(data, Poison(3), Save(tmp_path / "now.pt"))
    with pytest.raises(FloatingPointError, match="weights are not finite at step 3"):
        trainer.fit(data, epochs=1)
    assert all(
        p.isfinite().all() for p in Trainer.load(tmp_path / "now.pt", callbacks=trainer.callbacks).model.parameters()
    )


def test_weights_that_were_never_good_are_told_at_once(data):
    trainer = trainer_of(data)
    with torch.no_grad():
        trainer.model.output.bias[0] = math.inf
    with pytest.raises(FloatingPointError, match="before anything was trained"):
        trainer.fit(data, epochs=1)


def test_a_first_loss_of_nan_does_not_freeze_the_best_file(data, tmp_path):
    """A validation loss may be nan while the weights are fine: here it is told so for the first epoch."""

    class Nan(Callback):
        def after_epoch(self, trainer):
            if trainer.epoch == 1:
                trainer.history.log(trainer.step, val_loss=math.nan)

    trainer = trainer_of(data, Nan(), Checkpoint(tmp_path))
    trainer.fit(data, epochs=1)
    assert not (tmp_path / "best.pt").exists()
    trainer.fit(data, epochs=1)
    assert (tmp_path / "best.pt").exists()


def test_the_best_file_is_written_before_the_last_one(data, tmp_path, monkeypatch):
    """Whatever happens between the two, a run that goes on writes the best file again."""
    keep = Checkpoint(tmp_path)
    trainer = trainer_of(data, keep)
    trainer.fit(data, epochs=1)
    whole, written = Trainer.save, []

    def save(self, path):
        written.append(path.name)
        if len(written) == 2:
            raise OSError("disk full")
        whole(self, path)

    monkeypatch.setattr(Trainer, "save", save)
    with pytest.raises(OSError, match="disk full"):
        trainer.fit(data, epochs=1)
    assert written == ["best.pt", "last.pt"]
    monkeypatch.undo()
    again = Trainer.load(tmp_path / "last.pt", callbacks=[Checkpoint(tmp_path)])
    assert again.epoch == 1 and again.callbacks[0].value == -again.history.records[0]["val_loss"]


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_step_that_failed_leaves_no_gradient(data, error, accumulate):
    settings = {"accumulate": accumulate, "batch_size": 100 // accumulate}
    whole = trainer_of(data, **settings)
    whole.fit(data, epochs=1)
    trainer = trainer_of(data, Fail(4, error), **settings)
    with pytest.raises(error):
        trainer.fit(data, epochs=1)
    assert any(parameter.grad is not None for parameter in trainer.model.parameters()), "or the test shows nothing"
    trainer.fit(data, epochs=1)
    assert trainer.history.losses == whole.history.losses


def test_gradients_of_the_user_are_not_added(data):
    whole, trainer = trainer_of(data), trainer_of(data)
    whole.fit(data, epochs=1)
    images, labels = data.batch("train", torch.arange(8))
    cross_entropy(trainer.model(images), labels).backward()
    trainer.fit(data, epochs=1)
    assert trainer.history.losses == whole.history.losses


@pytest.mark.parametrize(
    "settings",
    [
        {"clip": -1},
        {"clip": 0},
        {"clip": math.nan},
        {"clip": True},
        {"batch_size": 0},
        {"batch_size": True},
        {"seed": None},
        {"seed": -1},
    ],
)
def test_settings_with_which_nothing_can_be_learned_are_refused(data, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        trainer_of(data, **settings)


def test_going_back_keeps_no_copy_of_the_history(data):
    """What the guard keeps of an epoch does not grow with the run."""
    trainer = trainer_of(data)
    trainer.fit(data, epochs=2)
    assert "history" not in trainer.guard.good
    before = copy.deepcopy(trainer.history.state_dict())
    trainer.callbacks = [Poison(trainer.step + 2)]
    with pytest.raises(FloatingPointError):
        trainer.fit(data, epochs=1)
    now = trainer.history.state_dict()
    assert {name: now[name] for name in ("records", "losses")} == {name: before[name] for name in ("records", "losses")}


class Noisy(nn.Sequential):
    """Its passes move statistics and draw numbers."""

    def __init__(self):
        layers = nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 10)
        super().__init__(*layers)


def fit_noisy(trainer, data):
    torch.manual_seed(1)
    trainer.fit(data, epochs=1)


def noisy(*callbacks):
    torch.manual_seed(0)
    model = Noisy()
    return Trainer(model, SGD(model.parameters(), lr=0.1), callbacks, batch_size=100, device="cpu")


@pytest.mark.parametrize("step", [1, 4])
def test_a_step_that_failed_leaves_no_statistics_and_no_drawn_numbers(data, step):
    whole, trainer = noisy(), noisy(Fail(step))
    fit_noisy(whole, data)
    with pytest.raises(RuntimeError, match="out of memory"):
        fit_noisy(trainer, data)
    trainer.fit(data, epochs=1)
    assert trainer.history.losses == whole.history.losses
    for one, other in zip(trainer.model.buffers(), whole.model.buffers(), strict=True):
        assert torch.equal(one, other)


def test_the_test_notices_what_a_failed_step_leaves(data, monkeypatch):
    monkeypatch.setattr(loop, "undone_if_it_fails", lambda model, device: nullcontext())
    whole, trainer = noisy(), noisy(Fail(4))
    fit_noisy(whole, data)
    with pytest.raises(RuntimeError, match="out of memory"):
        fit_noisy(trainer, data)
    trainer.fit(data, epochs=1)
    assert trainer.history.losses != whole.history.losses


@pytest.mark.parametrize("method", [lambda tasks: Replay(20), lambda tasks: Joint(*tasks)])
def test_what_a_failed_step_drew_is_drawn_again(data, method):
    tasks = split_by_class(data, 2)
    runs = []
    for step in (None, math.ceil(len(tasks[0].train) / 100) + 2):
        torch.manual_seed(0)
        model = MLP(64, [8], 5)
        trainer = Trainer(
            model, SGD(model.parameters(), lr=0.1), [method(tasks), Fail(step)], batch_size=100, device="cpu"
        )
        with pytest.raises(RuntimeError, match="out of memory") if step else nullcontext():
            trainer.fit(*tasks, epochs=1)
        if step:
            trainer.fit(*tasks, epochs=1)
        runs.append(trainer.history.losses)
    assert runs[0] == runs[1]


class Wrapper(Optimizer):
    """Steps with an optimizer inside, as SAM does."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.1})
        self.inner = torch.optim.Adam(self.param_groups, lr=0.1)
        self.param_groups = self.inner.param_groups

    def step(self, closure=None):
        self.inner.step()


def test_an_optimizer_inside_of_another_goes_back_too(data):
    runs = []
    for step in (None, STEPS + 3):
        torch.manual_seed(0)
        model = MLP(64, [8], 10)
        poison = Poison(step)
        trainer = Trainer(model, Wrapper(model.parameters()), [poison], batch_size=100, device="cpu")
        with pytest.raises(FloatingPointError) if step else nullcontext():
            trainer.fit(data, epochs=2)
        poison.step = None
        if step:
            assert all(
                value.isfinite().all() for state in trainer.optimizer.inner.state.values() for value in state.values()
            )
            trainer.fit(data, epochs=2)
        runs.append(trainer.history.losses)
    assert runs[0] == runs[1] and trainer.optimizer.inner.param_groups is trainer.optimizer.param_groups
