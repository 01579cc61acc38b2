"""Callbacks: their events, how they are written, what they remember, and a misspelt one."""

import pytest
import torch
from torch.optim import SGD

from growlib import MLP, Callback, Trainer, load
from growlib.trainer.events import EVENTS


def trainer_of(*callbacks, **settings):
    model = MLP(64, [4], 10)
    return Trainer(model, SGD(model.parameters(), lr=0.1), callbacks, device="cpu", **settings)


@pytest.mark.parametrize("name", ["after_stp", "before_epochs", "afterstep", "before_evaluate", "after_backwards"])
def test_a_misspelt_event_is_told_at_once(name):
    callback = type("Mine", (Callback,), {name: lambda self, trainer: None})()
    with pytest.raises(TypeError, match=rf"Mine\.{name} is no event of a Callback"):
        trainer_of(callback)


def test_other_methods_are_nobodys_business():
    class Mine(Callback):
        def report(self):
            """Of the user's own."""

        def step(self):
            """Looks like none of the events."""

    trainer_of(Mine())


def test_every_event_is_a_method_that_says_when_it_comes():
    assert all(getattr(Callback, event).__doc__ for event in EVENTS)


def test_events_come_in_their_order():
    class Log(Callback):
        def __init__(self):
            self.events = []
            for event in EVENTS:
                setattr(self, event, lambda trainer, event=event: self.events.append(event))

    log = Log()
    trainer_of(log, batch_size=1000, accumulate=2).fit(load("digits"), epochs=1)
    passes = ["before_forward", "after_loss"] * 2
    step = ["before_step", *passes, "after_backward", "after_step"]
    assert log.events == [
        *("before_fit", "before_task", "before_epoch"),
        *step,
        *("after_epoch", "after_task", "after_fit"),
    ]


def test_before_forward_changes_what_the_model_reads():
    class Black(Callback):
        def before_forward(self, trainer):
            trainer.inputs = trainer.inputs * 0

    trainer, plain = trainer_of(Black()), trainer_of()
    for one in (trainer, plain):
        before = one.model.hidden1.weight.detach().clone()
        one.fit(load("digits"), epochs=1)
        assert torch.equal(before, one.model.hidden1.weight) == (one is trainer)


class Settings(Callback):
    remembers = ("seen",)

    def __init__(self, model, *data, rate=0.1, how=max, **more):
        self.model, self.data, self.rate, self.how, self.more, self.seen = model, data, rate, how, more, 3


def test_a_callback_is_written_as_it_was_made_and_remembers_what_it_names():
    data = load("digits")
    made = Settings(MLP(4, [2], 2), data, rate=0.5, folder="x")
    assert repr(made) == "Settings(MLP, 'digits', rate=0.5, how=<built-in function max>, folder='x')"
    assert made.state_dict() == {"seen": 3}
    made.load_state_dict({"seen": 4})
    assert made.seen == 4


def test_before_the_first_fit_a_trainer_says_so():
    trainer = trainer_of()
    for name in ("done", "epochs", "steps"):
        with pytest.raises(RuntimeError, match=f"no `{name}` before the first fit"):
            getattr(trainer, name)
    with pytest.raises(RuntimeError, match="no batch to probe before the first step"):
        trainer.probe()


def test_a_bar_is_shown_where_a_person_watches_and_is_no_callback(monkeypatch, capsys):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    trainer = trainer_of()
    assert trainer.bar is not None and trainer.callbacks == []
    monkeypatch.setenv("CI", "1")
    assert trainer_of().bar is None and trainer_of(progress=False).bar is None
    monkeypatch.delenv("CI")
    shown = trainer_of(progress=True)
    shown.fit(load("digits"), epochs=1)
    assert "1/1 epochs" in capsys.readouterr().err
