"""The dashboard of signals, and the causes that are read aloud."""

import base64
import io
from types import SimpleNamespace

import matplotlib
import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from growlib import (
    MLP,
    Diagnostics,
    Trainer,
    Widen,
    below,
    drop_of,
    effective_rank,
    every,
    gradmax_gain,
    load,
    plateau,
    plots,
    quantile,
    rested,
    within_budget,
)
from growlib.callbacks import EVERYTHING
from growlib.plots._causes import reading_of, sentence

matplotlib.use("Agg")
LAYERS = ("hidden1", "hidden2")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def a_history(signals=("effective_rank", "dead"), layers=LAYERS, changes=()):
    readings = [
        {"step": step, "layer": layer, "signal": signal, "value": number + step / 100}
        for step in range(10, 60, 10)
        for number, layer in enumerate(layers)
        for signal in signals
    ]
    records = [{"step": step, "epoch": step // 10, "val_loss": 10 / step} for step in range(10, 60, 10)]
    return SimpleNamespace(readings=readings, changes=list(changes), records=records)


def a_change(step=30, layer="hidden1", cause="step 30, effective_rank 0.3 < 0.45", before=4, after=8, kind="widen"):
    return {"kind": kind, "step": step, "layer": layer, "before": before, "after": after, "cause": cause}


def lines(ax, gid):
    return [line for line in ax.lines if line.get_gid() == gid]


# The dashboard


def test_a_panel_a_signal_holds_a_line_a_layer():
    ranks, dead = plots.diagnostics(a_history())
    assert [ax.get_title(loc="left") for ax in (ranks, dead)] == ["effective_rank", "dead"]
    for ax in (ranks, dead):
        for number, layer in enumerate(LAYERS):
            (line,) = lines(ax, layer)
            assert line.get_xdata().tolist() == [10, 20, 30, 40, 50]
            assert line.get_ydata() == pytest.approx(number + np.arange(1, 6) / 10)
    names = [text.get_text() for text in ranks.figure.legends[0].get_texts()]
    assert names == [*LAYERS]  # nothing changed: no mark to explain


def test_a_change_is_a_mark_in_the_colour_of_its_layer_and_in_its_own_lane():
    history = a_history(changes=[a_change(30), a_change(30, "hidden2"), a_change(40), a_change(50, "elsewhere")])
    for ax in plots.diagnostics(history):
        marks = lines(ax, "change")
        assert [mark.get_xdata()[0] for mark in marks] == [30, 30, 40]
        first, second = (lines(ax, layer)[0].get_color() for layer in LAYERS)
        assert [mark.get_color() for mark in marks] == [first, second, first]
        low, high = (set(mark.get_ydata()) for mark in marks[:2])
        assert low == {0, 0.5} and high == {0.5, 1}
    assert "it changed" in [text.get_text() for text in ax.figure.legends[0].get_texts()]


def test_a_reader_may_choose_by_name_or_by_signal():
    history = a_history(("effective_rank", "dead", "gradmax_gain"))
    chosen = plots.diagnostics(history, ["gradmax_gain", effective_rank])
    assert [ax.get_title(loc="left") for ax in chosen] == ["gradmax_gain", "effective_rank"]
    (alone,) = plots.diagnostics(history, ["dead"])
    assert len(alone.figure.axes) == 1
    with pytest.raises(ValueError, match="no reading of entropy: there are effective_rank, dead, gradmax_gain"):
        plots.diagnostics(history, ["dead", "entropy"])


def test_without_a_reading_it_says_how_to_get_one():
    with pytest.raises(ValueError, match="give the Trainer a Diagnostics callback"):
        plots.diagnostics(a_history(()))


@pytest.mark.parametrize("values", [[0.0] * 5, [np.nan] * 5, [1e-6, 1e-3, 1, np.inf, 2], [-1, 0, 1, 2, 3], [5.0]])
def test_strange_readings_are_drawn(values):
    history = a_history(("dead",), ("hidden1",))
    history.readings = [r | {"value": v} for r, v in zip(history.readings, values, strict=False)]
    (ax,) = plots.diagnostics(history)
    ax.figure.canvas.draw()
    assert ax.get_yscale() == ("log" if 1e-6 in values else "linear")


def test_seventeen_signals_fit_beside_one_another():
    torch.manual_seed(0)
    model = MLP(64, [6, 6], 10)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    trainer = Trainer(model, optimizer, [Diagnostics(EVERYTHING, every(4, "steps"))], device="cpu")
    panels = plots.diagnostics(trainer.fit(load("digits"), epochs=1))
    assert len(panels) == 17
    figure = panels[0].figure
    figure.canvas.draw()
    assert figure.get_figwidth() == 5.6
    boxes = [ax.get_tightbbox() for ax in panels]  # with titles and numbers
    assert min(box.x0 for box in boxes) >= 0 and max(box.x1 for box in boxes) <= figure.bbox.width
    for number, box in enumerate(boxes):
        for other in boxes[number + 1 :]:
            assert not box.overlaps(other)


# Causes read aloud

NAMES = ["effective_rank", "rank", "val_loss", "mutual_information(estimator=ksg, bins=8)"]


@pytest.mark.parametrize(
    "cause, name, value, level",
    [
        ("step 30, effective_rank 0.31 < 0.45 for 2 readings, width 4 < 9", "effective_rank", 0.31, 0.45),
        ("val_loss 1.2e-05 > 1e-06", "val_loss", 1.2e-5, 1e-6),
        ("val_loss no better than 0.25 for 3 epochs, never changed", "val_loss", None, 0.25),
        ("effective_rank 0.2, 60% below 0.5, rested 4 steps", "effective_rank", 0.2, 0.5),
        ("mutual_information(estimator=ksg, bins=8) 0.3 < 0.4", "mutual_information(estimator=ksg, bins=8)", 0.3, 0.4),
        ("rested 4 steps, rank 0.3 < 0.4, val_loss 2 > 1", "rank", 0.3, 0.4),
    ],
)
def test_the_reading_of_a_cause_is_found(cause, name, value, level):
    told = reading_of(cause, NAMES)
    assert (told["name"], told["value"], told["level"]) == (name, value, level)
    start, end = told["span"]
    assert cause[start:end].startswith(name) and cause[end : end + 2] in ("", ", ")


@pytest.mark.parametrize("cause", ["", "epoch 3, width 72 < 104", "val_loss 3.1% better since it grew", "my own words"])
def test_a_cause_without_a_reading_has_none(cause):
    assert reading_of(cause, NAMES) is None


def test_sentences_are_plain():
    change = a_change(cause="step 30, effective_rank 0.31 < 0.45 for 2 readings, rested 20 steps, width 4 < 9")
    assert sentence(change, NAMES) == (
        "After step 30 hidden1 grew from 4 to 8 units: effective_rank was 0.31, below its threshold, 0.45, for 2 "
        "readings in a row; it had rested for 20 steps; the width of 4 was under its limit, 9."
    )
    budget = "epoch 3, 1,234 <= 5,000 params, 23 <= 30 flops"
    assert sentence(a_change(cause=budget), NAMES).endswith(
        "units: the clock struck at epoch 3; 1,234 params are within the budget of 5,000; 23 flops are within the "
        "budget of 30."
    )
    assert "shrank from 8 to 1 unit: no cause" in sentence(a_change(before=8, after=1, kind="prune", cause=""), NAMES)
    deeper = a_change(before=0, kind="deepen", cause="val_loss no better than 0.25 for 3 epochs, my own words")
    assert sentence(deeper, NAMES).endswith(
        "was made: val_loss had not got better than 0.25 for 3 epochs; my own words."
    )


@pytest.mark.parametrize(
    "name, when",
    [
        ("effective_rank", every(5, "steps") & below(effective_rank, quantile(1, 3), 2) & rested(10, "steps")),
        ("gradmax_gain", every(5, "steps") & drop_of(gradmax_gain, 0.1) & within_budget(params=9000)),
        ("val_loss", plateau("val_loss", 1)),
        ("val_accuracy", below("val_accuracy", 0.99, 2)),
    ],
)
def test_every_trigger_that_reads_is_understood(name, when):
    torch.manual_seed(0)
    model = MLP(64, [4, 4], 10)
    trainer = Trainer(model, torch.optim.AdamW(model.parameters(), lr=0.2), [Widen(4, when)], device="cpu")
    history = trainer.fit(load("digits"), epochs=8)
    assert history.changes
    known = ["effective_rank", "gradmax_gain", "val_loss", "val_accuracy"]
    assert {reading_of(change["cause"], known)["name"] for change in history.changes} == {name}


# Why did it grow here?


def frames(history):
    """The figures before they become pictures."""
    kept = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("growlib.plots._diagnostics.scrubber", lambda figures, labels, alts: kept.extend(figures))
        plots.why(history)
    return kept


def test_a_frame_a_change_marks_the_moment_the_threshold_and_what_came_before():
    history = a_history(changes=[a_change(), a_change(50, "hidden2", "val_loss no better than 0.25 for 2 epochs")])
    first, second = frames(history)
    top, bottom = first.axes
    assert bottom.get_title(loc="left") == "effective_rank of hidden1"
    assert lines(bottom, "level")[0].get_ydata()[0] == 0.45
    (moment,) = lines(bottom, "moment")
    assert moment.get_xdata()[0] == 30 and moment.get_ydata()[0] == pytest.approx(0.3)
    assert lines(bottom, "felt")[0].get_xdata().tolist() == [10, 20, 30]  # what comes later is pale
    assert lines(top, "hidden1")[0].get_ydata()[-1] == 8 and lines(top, "hidden2")[0].get_ydata()[-1] == 4
    assert lines(bottom, "felt")[0].get_color() == lines(top, "hidden1")[0].get_color()
    assert second.axes[1].get_title(loc="left") == "val_loss"
    assert lines(second.axes[1], "level")[0].get_ydata()[0] == 0.25
    assert lines(second.axes[0], "hidden2")[0].get_ydata()[-1] == 8


def test_a_schedule_has_no_threshold_and_shows_the_loss():
    (figure,) = frames(a_history((), changes=[a_change(cause="epoch 3")]))
    assert figure.axes[1].get_title(loc="left") == "val_loss" and not lines(figure.axes[1], "level")


def test_the_slider_reads_the_causes_aloud_on_a_clear_ground():
    slider = plots.why(a_history(changes=[a_change(), a_change(40, before=8, after=12)]))
    arm = slider.arms[""]
    assert arm["labels"][0].startswith("After step 30 hidden1 grew from 4 to 8 units: effective_rank was 0.3, below")
    assert arm["alts"][1].startswith("Change 2 of 2. After step 40")
    picture = base64.b64decode(arm["frames"][0].partition("base64,")[2].rstrip('">'))
    pixels = matplotlib.image.imread(io.BytesIO(picture))
    assert pixels[0, 0, 3] == 0  # see-through, so that dark pages stay dark
    assert len(picture) < 80_000
    assert not plt.get_fignums()


def test_nothing_to_explain_is_said():
    with pytest.raises(ValueError, match="nothing to explain: no layer of this history has changed"):
        plots.why(a_history())


def test_the_colours_are_those_of_the_book():
    (ax,) = plots.diagnostics(a_history(("dead",)))
    assert {to_hex(lines(ax, layer)[0].get_color()) for layer in LAYERS} <= set(plots.PALETTE.values())
