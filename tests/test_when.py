"""Triggers: what they answer, how they combine, what they refuse."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from growlib.history import History
from growlib.models import MLP
from growlib.when import Trigger, above, below, every, narrower_than, plateau, shallower_than, within_budget


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
