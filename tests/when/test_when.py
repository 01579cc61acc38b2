"""Triggers: what they answer, how they combine, what they refuse."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from growlib.models import MLP
from growlib.trainer import History
from growlib.when import (
    Trigger,
    above,
    below,
    drop_of,
    every,
    narrower_than,
    new_task,
    plateau,
    quantile,
    rested,
    shallower_than,
    within_budget,
    worthwhile,
)


def trainer_at(moment="epoch", step=0, epoch=0, losses=(), changes=()):
    records = [{"step": 10 * (n + 1), "val_loss": loss, "val_accuracy": 1 - loss} for n, loss in enumerate(losses)]
    return SimpleNamespace(
        moment=moment, step=step, epoch=epoch, history=History(records, changes), model=MLP(4, [3], 2), proposal=None
    )


@given(number=st.integers(1, 9), unit=st.sampled_from(["step", "epoch"]), now=st.integers(1, 60))
def test_every_fires_at_the_multiples_and_only_at_the_end_of_its_unit(number, unit, now):
    for moment in ("step", "epoch"):
        trainer = trainer_at(moment, **{unit: now})
        assert bool(every(number, unit)(trainer)) == (moment == unit and now % number == 0)
        assert repr(every(number, unit + "s")) == repr(every(number, unit))


def test_causes_carry_the_values():
    hidden = SimpleNamespace(name="hidden1", width=72)
    trigger = every(1, "epoch") & narrower_than(104)
    assert trigger(trainer_at(epoch=3), hidden) == "epoch 3, width 72 < 104"
    assert trigger(trainer_at(epoch=3), SimpleNamespace(name="hidden1", width=104)) is None
    assert repr(trigger) == "(every(1, 'epoch') & narrower_than(104))"


@given(first=st.booleans(), second=st.booleans())
def test_combinations_are_those_of_logic(first, second):
    asked = []

    def say(name, answer):
        return Trigger(name, lambda trainer, hidden: asked.append(name) or (name if answer else None))

    a, b = say("a", first), say("b", second)
    assert bool((a & b)(None)) == (first and second)
    assert asked == ["a", "b"] if first else ["a"]  # cheap clauses come first
    assert bool((a | b)(None)) == (first or second)
    assert bool((~a)(None)) == (not first)
    assert bool((~(a & b))(None)) == bool((~a | ~b)(None))


def test_plateau_waits_for_patience_and_starts_anew_after_a_change():
    hidden = SimpleNamespace(name="hidden1", width=3)
    trigger = plateau("val_loss", 2, "epochs")
    assert not trigger(trainer_at(losses=[0.5, 0.4]), hidden)
    assert not trigger(trainer_at(losses=[0.5, 0.4, 0.6]), hidden)
    stalled = [0.5, 0.4, 0.6, 0.4]
    assert trigger(trainer_at(losses=stalled), hidden) == "val_loss no better than 0.4 for 2 epochs"
    assert not trigger(trainer_at("step", losses=stalled), hidden)
    assert not trigger(trainer_at(losses=stalled, changes=[{"kind": "widen", "layer": "hidden1", "step": 20}]), hidden)
    assert trigger(trainer_at(losses=stalled, changes=[{"kind": "widen", "layer": "hidden2", "step": 20}]), hidden)
    deeper = [{"kind": "deepen", "layer": "hidden3", "step": 20}]
    assert not trigger(trainer_at(losses=stalled, changes=deeper), hidden)  # every layer has new neighbours
    assert plateau("val_accuracy", 2)(trainer_at(losses=stalled), hidden).startswith("val_accuracy no better than 0.6")


def test_within_budget_asks():
    trainer = trainer_at()  # 4 x 3 + 3 + 3 x 2 + 2 = 23 parameters
    assert within_budget(params=23)(trainer) == "23 <= 23 params"
    assert within_budget(params=22)(trainer) is None
    assert within_budget(params=23, flops=35)(trainer) is None
    assert within_budget(params=23, flops=36)(trainer) == "23 <= 23 params, 36 <= 36 flops"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: every(0, "steps"), "at least 1"),
        (lambda: every(1.5, "steps"), "at least 1"),
        (lambda: every(1, "fortnight"), "one of step, steps, epoch, epochs"),
        (lambda: plateau("test_loss", 3), "test"),
        (lambda: plateau("val_loss", 0), "at least 1"),
        (lambda: plateau("val_loss", 3, "steps"), "epochs"),
        (lambda: within_budget(), "needs params="),
    ],
)
def test_bad_triggers_are_refused_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_unknown_column_says_which_there_are():
    with pytest.raises(ValueError, match="no column 'val_f1' in History: there are step, val_accuracy, val_loss"):
        plateau("val_f1", 1)(trainer_at(losses=[0.5, 0.5]))


def test_shallower_than_counts_hidden_layers():
    trainer = trainer_at()
    assert shallower_than(2)(trainer) == "depth 1 < 2" and shallower_than(1)(trainer) is None


class Run:
    """As much of a trainer as a trigger on History asks for."""

    def __init__(self, values, changes=()):
        self.history, self.moment = History(changes=changes), "epoch"
        for step, value in enumerate(values, 1):
            self.history.log(step, val_accuracy=value)


@pytest.mark.parametrize(
    "values, fires",
    [([0.5], False), ([0.5, 0.6], True), ([0.9, 0.6], False), ([0.9, 0.6, 0.7], True), ([0.5, 0.8], False)],
)
def test_below_waits_for_its_patience(values, fires):
    cause = below("val_accuracy", 0.8, 2)(Run(values))
    assert bool(cause) is fires
    if fires:
        assert cause == f"val_accuracy {values[-1]:.4g} < 0.8 for 2 epochs"


def test_above_is_the_mirror_of_below_and_both_count_anew_after_a_change():
    assert above("val_accuracy", 0.4)(Run([0.5])) == "val_accuracy 0.5 > 0.4" and not above("val_accuracy", 0.5)(
        Run([0.5])
    )
    changes = [{"kind": "task", "layer": "b", "step": 2}]
    assert below("val_accuracy", 0.8, 2)(Run([0.5, 0.5, 0.5], changes)) is None
    assert below("val_accuracy", 0.8, 2)(Run([0.5, 0.5, 0.5, 0.5], changes))


def test_triggers_on_test_data_or_without_patience_are_refused():
    with pytest.raises(ValueError, match="use 'val_accuracy'"):
        below("test_accuracy", 0.5)
    with pytest.raises(ValueError, match="whole number of epochs"):
        above("val_accuracy", 0.5, 0)


def loudness(probe, hidden):
    """A signal: what the test says it is."""
    return torch.as_tensor(probe)


def asked(trigger, values, step=10, changes=()):
    """The answers of a trigger that is asked every `step` steps while a signal takes these values."""
    hidden = SimpleNamespace(name="hidden1", width=3)
    trainer = trainer_at("step", changes=changes)
    answers = []
    for now, value in enumerate(values, 1):
        trainer.step, trainer.epoch, trainer.probe = step * now, now, lambda value=value: value
        answers.append(trigger(trainer, hidden))
        if answers[-1]:
            trainer.history.changes.append({"kind": "widen", "layer": "hidden1", "step": trainer.step, "epoch": now})
    return answers


def fired(trigger, values, **given):
    return [number for number, answer in enumerate(asked(trigger, values, **given)) if answer]


def test_a_function_is_a_signal_and_its_readings_are_kept():
    trainer, hidden = trainer_at("step", step=7), SimpleNamespace(name="hidden1", width=3)
    trainer.probe = lambda: [0.25, 0.75]  # of units: the mean counts
    trigger = below(loudness, 0.6)
    assert trigger(trainer, hidden) == "loudness 0.5 < 0.6" and repr(trigger) == "below(loudness, 0.6, 1)"
    assert trainer.history.readings == [{"step": 7, "layer": "hidden1", "signal": "loudness", "value": 0.5}]
    trainer.probe = lambda: pytest.fail("a signal is read once a step")
    assert above(loudness, 0.4)(trainer, hidden) == "loudness 0.5 > 0.4"
    assert len(trainer.history.readings) == 1
    trainer.moment, trainer.step = "task", 8
    assert below(loudness, 0.6)(trainer, hidden) is None


def test_a_partial_is_written_with_its_settings():
    assert repr(below(partial(loudness, bins=4), 1.0)) == "below(loudness(bins=4), 1.0, 1)"


def test_signals_wait_for_patience_and_start_anew_after_a_change():
    assert fired(below(loudness, 0.5, patience=2), [0.4, 0.6, 0.4, 0.4, 0.4, 0.4]) == [3, 5]
    assert fired(above(loudness, 0.5, patience=3), [0.6] * 7) == [2, 5]


def test_rearm_makes_it_slow_to_repeat_itself():
    falling = [0.9, 0.4, 0.4, 0.55, 0.4, 0.8, 0.4]
    assert fired(below(loudness, 0.5, rearm=0.7), falling) == [1, 6]
    assert fired(below(loudness, 0.5), falling) == [1, 2, 4, 6]  # without it
    assert fired(above(loudness, -0.5, rearm=-0.7), [-value for value in falling]) == [1, 6]
    assert repr(below(loudness, 0.5, rearm=0.7)) == "below(loudness, 0.5, 1, rearm=0.7)"


@given(scale=st.floats(0.01, 100), shift=st.floats(-5, 5))
def test_quantiles_do_not_mind_the_scale(scale, shift):
    values = [3, 1, 4, 1.5, 9, 2.6, 0.5, 3.5, 0.9]
    trigger = below(loudness, quantile(0.25, readings=4))
    assert fired(trigger, values) == [6, 8]
    assert fired(trigger, [scale * value + shift for value in values]) == [6, 8]
    assert fired(below(loudness, 1.375), [10 * value for value in values]) == []  # a number minds


def test_quantiles_of_columns_and_their_writing():
    trigger = above("val_loss", quantile(1.0, 2))
    assert trigger(trainer_at(losses=[0.5, 0.4, 0.6])) == "val_loss 0.6 > 0.5"
    assert not trigger(trainer_at(losses=[0.5]))
    assert repr(trigger) == "above('val_loss', quantile(1, 2), 1)"


def test_drop_of_compares_with_the_highest_since_the_last_change():
    answers = asked(drop_of(loudness, 0.5), [8, 10, 6, 4, 4, 1, 1])
    assert [bool(answer) for answer in answers] == [False, False, False, True, False, True, False]
    assert answers[3] == "loudness 4, 60% below 10"


def test_plateau_of_a_signal_counts_readings():
    assert fired(plateau(loudness, 2, "readings"), [1, 3, 2, 3, 4, 4, 4]) == [3, 6]
    with pytest.raises(ValueError, match="of a signal, of 'readings'"):
        plateau(loudness, 2)


def test_rested_is_a_cool_down():
    assert fired(every(10, "steps") & rested(30, "steps"), [0] * 8) == [0, 3, 6]
    assert fired(every(10, "steps") & rested(2, "epochs"), [0] * 5) == [0, 2, 4]
    hidden = SimpleNamespace(name="hidden1", width=3)
    assert rested(5, "steps")(trainer_at(step=1), hidden) == "never changed"
    elsewhere = [{"kind": "widen", "layer": "hidden2", "step": 1, "epoch": 0}]
    assert rested(5, "steps")(trainer_at(step=1, changes=elsewhere), hidden) == "never changed"


def test_growing_is_worthwhile_while_the_best_value_gets_better():
    grown = [{"kind": "widen", "layer": "hidden1", "step": 20, "epoch": 2}]
    trigger, hidden = worthwhile("val_loss", 0.1), SimpleNamespace(name="hidden1", width=3)
    assert trigger(trainer_at(step=20, losses=[0.5, 0.4]), hidden) == "nothing has grown yet"
    assert trigger(trainer_at(step=20, losses=[0.5, 0.4], changes=grown), hidden)  # another layer, at this very step
    assert not trigger(trainer_at(step=25, losses=[0.5, 0.4], changes=grown), hidden)
    better = trigger(trainer_at(step=30, losses=[0.5, 0.4, 0.3], changes=grown), hidden)
    assert better == "val_loss 25.0% better since it grew"
    assert not trigger(trainer_at(step=30, losses=[0.5, 0.4, 0.39], changes=grown), hidden)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: below(loudness, 0.3) & above(loudness, 0.5), "can never fire: loudness cannot be above 0.5 and below"),
        (lambda: below("val_loss", 0.3) & every(1, "epoch") & above("val_loss", 0.3), "can never fire"),
        (lambda: every(5, "steps") & plateau("val_loss", 2), "end of: step; the second of: epoch"),
        (lambda: new_task() & below(loudness, 0.5), "the second of: epoch or step"),
        (lambda: below(loudness, 0.5, rearm=0.4), "rearm must be a number above"),
        (lambda: below(loudness, quantile(0.5), rearm=0.4), "a threshold that is a number"),
        (lambda: below(0.5, loudness), "a column of History, a text, or a signal"),
        (lambda: above(loudness, 0.5, patience=0), "patience must be a whole number of readings"),
        (lambda: quantile(1.5), "the share lies from 0 to 1"),
        (lambda: drop_of(loudness, 1.5), "between 0 and 1"),
        (lambda: rested(0, "steps"), "at least 1"),
        (lambda: worthwhile("test_loss"), "test"),
        (lambda: below(loudness, 0.5)(trainer_at("step"), None), "asks about none: use a column"),
    ],
)
def test_triggers_that_make_no_sense_say_why(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_what_only_looks_like_a_contradiction_is_allowed():
    assert below(loudness, 0.5) & above(loudness, 0.3) & below(loudness, 0.4)
    assert below(loudness, 0.3) | above(loudness, 0.5)
    assert every(5, "steps") & (plateau("val_loss", 2) | below(loudness, 0.5)) & narrower_than(5)
    assert every(5, "steps") & ~every(10, "steps") & ~plateau("val_loss", 2)
    assert new_task() | below("val_loss", 0.5)
    assert (below(loudness, 0.5) & above(loudness, 0.3)).ranges == {"loudness": (0.3, 0.5)}
