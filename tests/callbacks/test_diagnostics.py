"""Diagnostics, and growth by signals, in runs."""

import pytest
import torch
from tasks import Save

from growlib import (
    MLP,
    Diagnostics,
    ResNet,
    Trainer,
    Widen,
    above,
    below,
    by_shortfall,
    drop_of,
    each,
    effective_rank,
    every,
    gradient_norm,
    load,
    loudest,
    natural_gain,
    quantile,
    quietest,
    rested,
    within_budget,
)
from growlib.callbacks import EVERYTHING
from growlib.callbacks.diagnostics import DEAR


def run(callbacks, epochs=2, widths=(12, 10), seed=0):
    torch.manual_seed(seed)
    model = MLP(64, list(widths), 10)
    trainer = Trainer(model, torch.optim.AdamW(model.parameters(), lr=3e-3), callbacks, device="cpu")
    trainer.fit(load("digits"), epochs=epochs)
    return trainer


def test_looking_changes_nothing_and_is_on_record():
    watched = run([Diagnostics(when=every(5, "steps"))])
    assert watched.history.losses == run([]).history.losses
    names = {signal.__name__ for signal in watched.callbacks[0].signals}
    for layer in ("hidden1", "hidden2"):
        for name in names:
            steps = [r["step"] for r in watched.history.readings if (r["layer"], r["signal"]) == (layer, name)]
            assert steps == list(range(5, watched.step + 1, 5))
    assert (
        watched.history.read("effective_rank", "hidden1", since=10)
        == watched.history.read("effective_rank", "hidden1")[2:]
    )


def test_what_is_dear_is_read_when_it_is_asked_for():
    usual, everything = (run([Diagnostics(*signals, when=every(10, "steps"))]) for signals in ((), (EVERYTHING,)))
    missing = {r["signal"] for r in everything.history.readings} - {r["signal"] for r in usual.history.readings}
    assert missing == {signal.__name__ for signal in DEAR}


def test_readings_are_those_of_the_signals():
    trainer = run([Diagnostics([effective_rank], every(1, "epoch"))])
    for hidden in trainer.model.hidden:
        last = trainer.history.read("effective_rank", hidden.name)[-1]
        assert last == pytest.approx(effective_rank(trainer.probe(), hidden).item())


def test_a_model_without_hidden_layers_is_refused_and_one_that_a_signal_refuses_is_not():
    with pytest.raises(ValueError, match="MLP has no hidden layer to look at"):
        run([Diagnostics()], widths=())
    data = load("shapes", n=120)
    model = ResNet(data.shape, [2, 2], [1, 1], 10)
    looking = Diagnostics([natural_gain, effective_rank], every(1, "epoch"))
    trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.01), [looking], device="cpu")
    history = trainer.fit(data, epochs=1)
    assert {signal for _, signal in looking.refused} == {natural_gain}
    assert {r["signal"] for r in history.readings} >= {"effective_rank"}


def test_triggers_without_hidden_layers_have_nobody_to_ask():
    trainer = run([Widen(4, every(5, "steps") & below(effective_rank, 0.9), loudest(gradient_norm))], widths=())
    assert not trainer.history.changes and not trainer.history.readings


def test_growth_by_a_signal_tells_its_cause():
    stiff = every(10, "steps") & below(effective_rank, 0.7) & rested(20, "steps")
    history = run([Widen(4, stiff)]).history
    assert history.changes
    for change in history.changes:
        [value] = [r["value"] for r in history.readings if (r["step"], r["layer"]) == (change["step"], change["layer"])]
        assert f"effective_rank {value:.4g} < 0.7" in change["cause"]


def test_of_the_layers_that_ask_the_loudest_grows():
    both = run([Widen(2, every(10, "steps"), each)]).history
    assert {change["layer"] for change in both.changes} == {"hidden1", "hidden2"}
    for choice, best in ((loudest, max), (quietest, min)):
        history = run([Widen(2, every(10, "steps"), choice(gradient_norm))]).history
        assert len(history.changes) == history.records[-1]["step"] // 10
        for change in history.changes:
            values = {r["layer"]: r["value"] for r in history.readings if r["step"] == change["step"]}
            assert change["layer"] == best(values, key=values.get)
    assert choice(gradient_norm)(None, []) == []


def test_how_much_follows_the_shortfall():
    by = by_shortfall(effective_rank, 0.9, most=5)
    history = run([Widen(by, every(10, "steps") & below(effective_rank, 0.9))]).history
    sizes = set()
    for change in history.changes:
        [value] = [r["value"] for r in history.readings if (r["step"], r["layer"]) == (change["step"], change["layer"])]
        wanted = -(-min(5, change["before"] * (0.9 - value) / 0.9) // 1)
        assert change["after"] - change["before"] == wanted
        sizes.add(wanted)
    assert len(sizes) > 1
    assert repr(Widen(by, every(1, "epoch"))).startswith(
        "Widen(by_shortfall(effective_rank, 0.9, 5), every(1, 'epoch')"
    )
    with pytest.raises(ValueError, match="most at least 1"):
        by_shortfall(effective_rank, 0.9, most=0)


def test_a_budget_is_asked_with_the_units_that_the_shortfall_wants():
    by = by_shortfall(effective_rank, 0.9, most=8)
    limit = 1500
    trainer = run([Widen(by, every(10, "steps") & below(effective_rank, 0.9) & within_budget(params=limit))])
    assert trainer.history.changes and trainer.history.records[-1]["parameters"] <= limit
    free = run([Widen(by, every(10, "steps") & below(effective_rank, 0.9))])
    assert free.history.records[-1]["parameters"] > limit


@pytest.mark.parametrize("step", [10, 14, 23])
def test_resuming_equals_not_having_stopped(step, tmp_path):
    def callbacks(*more):
        grow = every(5, "steps") & (drop_of(gradient_norm, 0.3, 2) | above(effective_rank, quantile(0.2, 2)))
        return [Diagnostics([effective_rank], every(4, "steps")), Widen(3, grow, loudest(effective_rank)), *more]

    whole = run(callbacks(Save(tmp_path / "at.pt", step)), epochs=3)
    assert whole.history.changes
    resumed = Trainer.load(tmp_path / "at.pt", callbacks=callbacks(Save(tmp_path / "again.pt", step)), device="cpu")
    resumed.fit(load("digits"), epochs=3)
    assert resumed.history.losses == whole.history.losses
    assert resumed.history.readings == whole.history.readings
    assert resumed.history.changes == whole.history.changes


def test_a_batch_of_one_fires_nothing_strange():
    torch.manual_seed(0)
    model = MLP(2, [4], 2)
    looking = Diagnostics(when=every(1, "epoch"))
    trainer = Trainer(model, torch.optim.SGD(model.parameters(), 0.01), [looking], batch_size=1)
    history = trainer.fit(load("spirals", n=24), epochs=1)
    assert history.read("effective_rank", "hidden1") == [1.0]
    assert history.read("mutual_information", "hidden1") == [0.0]
