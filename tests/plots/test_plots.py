import json
import os
import re
import shutil
import subprocess
from itertools import combinations
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from torch import nn

from growlib import plots
from growlib.models import ResNet
from growlib.plots._style import generations, shades, spread
from growlib.trainer import History

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def a_history(epochs=4, steps=10, start=8, by=4, layers=("hidden1",), seed=0, grow=True):
    """A run that widens every layer after every epoch, as plain values."""
    noise = np.random.default_rng(seed)
    widths, records, changes = dict.fromkeys(layers, start), [], []
    for epoch in range(1, epochs + 1):
        record = {"step": epoch * steps, "epoch": epoch, "train_loss": 1 / epoch, "val_loss": 1.1 / epoch}
        record |= {"val_accuracy": 1 - 0.5 / epoch + 0.01 * noise.random(), "seconds": 2.0 * epoch}
        records.append(record | {"widths": dict(widths)})
        for layer in layers if grow else ():
            change = {"kind": "widen", "step": epoch * steps, "layer": layer, "before": widths[layer], "epoch": epoch}
            widths[layer] += by
            changes.append(change | {"after": widths[layer], "cause": f"every 1 epoch: epoch {epoch}"})
    return SimpleNamespace(records=records, changes=changes, losses=list(1 / np.arange(1, epochs * steps + 1)))


def places(ax, gid):
    return [line.get_xdata()[0] for line in ax.lines if line.get_gid() == gid]


def line_of(ax, color):
    return next(line for line in ax.lines if line.get_color() == color and len(line.get_xdata()) > 1)


# Curves and comparisons


def test_curves_hold_the_columns_and_the_changes():
    history = a_history()
    ax = plots.curves(history)
    assert line_of(ax, plots.PALETTE["blue"]).get_ydata().tolist() == [
        record["train_loss"] for record in history.records
    ]
    assert line_of(ax, plots.PALETTE["orange"]).get_ydata().tolist() == [
        record["val_loss"] for record in history.records
    ]
    assert places(ax, "change") == [1, 2, 3, 4]
    assert places(plots.curves(history, x="step"), "change") == [10, 20, 30, 40]


def test_a_change_inside_an_epoch_lies_between_the_epochs():
    history = a_history(epochs=2, grow=False)
    history.changes = [{"step": 15}]
    assert places(plots.curves(history), "change") == [1.5]


def test_epochs_that_start_anew_with_a_task_are_drawn_over_steps():
    history = a_history(grow=False)
    history.records = [record | {"epoch": 1 + number % 2} for number, record in enumerate(history.records)]
    assert plots.curves(history).get_xlabel() == "step"


@pytest.mark.parametrize("as_frame", [False, True])
def test_the_band_is_the_range_of_the_seeds(as_frame):
    runs = [a_history(seed=seed).records for seed in range(5)]
    band = pd.concat([pd.DataFrame(run).assign(seed=seed) for seed, run in enumerate(runs)]) if as_frame else runs
    ax = plots.curves(a_history(), "val_accuracy", band=band)
    (area,) = [part for part in ax.collections if part.get_gid() == "band"]
    heights = area.get_paths()[0].vertices
    last = [run[-1]["val_accuracy"] for run in runs]
    drawn = heights[heights[:, 0] == 4][:, 1]
    assert drawn.min() == pytest.approx(min(last)) and drawn.max() == pytest.approx(max(last))
    assert "5 recorded" in [text.get_text() for text in ax.texts]


def test_compare_draws_means_and_95_percent_intervals():
    runs = [a_history(seed=seed).records for seed in range(5)]
    ax = plots.compare({"growing": runs, "one seed": runs[:1]}, "val_accuracy")
    last = np.array([run[-1]["val_accuracy"] for run in runs])
    assert line_of(ax, plots.PALETTE["blue"]).get_ydata()[-1] == pytest.approx(last.mean())
    heights = ax.collections[0].get_paths()[0].vertices
    half = np.ptp(heights[heights[:, 0] == 4][:, 1]) / 2
    assert half == pytest.approx(2.776 * last.std(ddof=1) / 5**0.5)
    assert {text.get_text() for text in ax.texts} == {"growing", "one seed"}


def test_tradeoff_draws_means_and_rings_the_front():
    rows = [
        ("a", 1, 10, 0.5),
        ("a", 1, 10, 0.6),
        ("a", 2, 30, 0.8),
        ("a", 2, 30, 0.8),
        ("b", 1, 20, 0.4),
        ("b", 2, 40, 0.9),
    ]
    frame = pd.DataFrame(rows, columns=["plan", "width", "parameters", "val_accuracy"])
    ax = plots.tradeoff(frame, "parameters", "val_accuracy", "plan", "width")
    assert line_of(ax, plots.PALETTE["blue"]).get_xydata().tolist() == [[10, 0.55], [30, 0.8]]
    front = next(line for line in ax.lines if line.get_gid() == "front")
    assert front.get_xydata().tolist() == [[10, 0.55], [30, 0.8], [40, 0.9]]  # 20 costs more than 10, and buys less
    assert {text.get_text() for text in ax.texts} == {"a", "b"} and ax.get_xscale() == "log"


def test_resources_show_seconds_per_epoch_and_recorded_memory():
    history = a_history()
    (time,) = plots.resources(history)
    assert line_of(time, plots.PALETTE["blue"]).get_ydata().tolist() == [2.0] * 4
    history.records = [record | {"memory_mb": 100 + record["epoch"]} for record in history.records]
    _, memory = plots.resources(history)
    assert line_of(memory, plots.PALETTE["blue"]).get_ydata().tolist() == [101, 102, 103, 104]


# Growth rings


def test_growth_stacks_one_ribbon_a_generation():
    rings, loss = plots.growth(a_history())
    ribbons = [area for area in rings.collections if str(area.get_gid()).startswith("generation")]
    assert len(ribbons) == 5
    start, first_birth = (ribbon.get_paths()[0].vertices for ribbon in ribbons[:2])
    assert start[:, 1].min() == 0 and 7.5 < start[:, 1].max() <= 8 and start[:, 0].min() == 0
    assert first_birth[:, 0].min() == 10 and first_birth[:, 1].min() == 8 and 11.5 < first_birth[:, 1].max() <= 12
    assert places(rings, "pin") == [10, 20, 30, 40]
    assert rings.get_title(loc="left") == "hidden1: 8 to 24 units"
    key = rings.figure.legends[0].get_texts()
    assert [text.get_text() for text in key] == ["widen: every 1 epoch: epoch 1 (and 3 more)"]
    assert loss.get_xlim() == rings.get_xlim() and loss.get_xlim()[1] > 40


def test_growth_has_a_panel_a_layer_and_tells_causes_apart():
    history = a_history(layers=("hidden1", "hidden2"))
    history.changes.append(
        history.changes[-1] | {"kind": "prune", "before": 24, "after": 20, "cause": "too many units"}
    )
    first, second, _ = plots.growth(history)
    assert len(first.figure.legends[0].get_texts()) == 2
    markers = {line.get_marker() for line in second.lines if line.get_gid() == "pin"}
    assert markers == {"o", "s"}


@pytest.mark.parametrize("history", [a_history(grow=False), a_history(epochs=1), a_history(epochs=1, grow=False)])
def test_a_constant_or_short_history_is_drawn(history):
    for draw in (plots.curves, plots.growth, plots.resources, plots.network):
        draw(history)
    plt.gcf().canvas.draw()


@given(st.lists(st.integers(1, 600), min_size=1, max_size=12))
def test_generations_add_up_to_the_width(widths):
    life = generations(widths)
    assert [sum(sizes) for sizes in life] == pytest.approx(widths)
    assert len(life[-1]) == 1 + sum(after > before for before, after in zip(widths, widths[1:], strict=False))


def test_a_prune_shrinks_all_generations_by_the_same_share():
    assert generations([8, 12, 9]) == [[8], [8, 4], [6, 3]]


def test_a_prune_that_names_its_units_takes_them_from_their_generation():
    units = [[8, 9, 10, 11], [0, 9, 10], [9]]
    assert generations([8, 12, 9, 10], units) == [[8], [8, 4], [7, 2], [7, 2, 1]]
    history = a_history(epochs=2)
    history.changes = [change | {"units": list(range(change["before"], change["after"]))} for change in history.changes]
    death = {"kind": "prune", "before": 16, "after": 12, "cause": "old", "units": [0, 1, 2, 3]}
    history.changes.append(history.changes[-1] | death)
    rings, _ = plots.growth(history)
    last = next(area for area in rings.collections if area.get_gid() == "generation 0").get_paths()[0].vertices
    assert 3.5 < last[last[:, 0] == last[:, 0].max()][:, 1].max() <= 4


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0.01, 0.2))
def test_labels_keep_their_distance_and_their_order(wanted, gap):
    placed = spread(np.array(wanted), gap)
    assert (np.diff(np.sort(placed)) >= gap - 1e-9).all()
    assert (np.argsort(placed) == np.argsort(wanted, kind="stable")).all()


# Confusion matrix and samples


def test_confusion_counts_and_only_large_errors_are_loud():
    labels, guesses = [0] * 50 + [1] * 30 + [2] * 20, [0] * 49 + [2] + [1] * 20 + [2] * 10 + [2] * 20
    ax = plots.confusion(torch.tensor(labels), np.array(guesses), ["a", "b", "c"])
    told = {(int(text.get_position()[1]), int(text.get_position()[0])): text for text in ax.texts}
    assert {cell: int(text.get_text()) for cell, text in told.items()} == {
        (0, 0): 49,
        (0, 2): 1,
        (1, 1): 20,
        (1, 2): 10,
        (2, 2): 20,
    }
    assert [cell for cell, text in told.items() if text.get_color() == "white"] == [(1, 2)]
    assert ax.get_title(loc="left") == "11 errors in 100 examples"


def test_confusion_writes_in_white_wherever_a_cell_is_solid():
    ax = plots.confusion([0] * 9 + [1] * 4 + [2] * 5, [0] * 9 + [2] * 2 + [1] * 2 + [0] * 5, ["a", "b", "c"])
    cells = ax.collections[0]
    cells.update_scalarmappable()
    solid = (cells.get_facecolors()[:, 3] > 0.5).sum()
    assert solid == sum(text.get_color() == "white" for text in ax.texts) == 2  # 5, and 2: just 40 % of it


def test_confusion_without_an_error_and_with_a_hundred_classes():
    plots.confusion([0, 1], [0, 1], ["a", "b"]).figure.canvas.draw()
    assert not plots.confusion(np.arange(100), np.arange(100)[::-1], list(map(str, range(100)))).texts


@pytest.mark.parametrize("shape", [(3, 1, 8, 8), (3, 3, 8, 8), (3, 8, 8), (3, 8, 8, 3)])
def test_predictions_mark_errors_by_more_than_colour(shape):
    axes = plots.predictions(np.zeros(shape, np.uint8), [0, 1, 1], [0, 1, 0], ["cat", "dog"])
    assert [ax.get_xlabel() for ax in axes] == ["✓ cat", "✓ dog", "✗ cat\nis dog"]
    assert axes[2].spines["top"].get_linewidth() > axes[1].spines["top"].get_linewidth()
    axes[0].figure.canvas.draw()


# The slider


def arms_in(page):
    return json.loads(re.search(r"arms = (\[.*\]);\n", page)[1])


def test_the_scrubber_holds_everything_and_asks_for_nothing():
    figure = plots.curves(a_history()).figure
    page = plots.scrubber(
        ["<b>one</b>", "<i></script></i>", figure], ["1st", "2nd & <b>", "3rd"], "three 'things'"
    )._repr_html_()
    (arm,) = arms_in(page)
    assert arm["frames"][:2] == ["<b>one</b>", "<i></script></i>"] and "data:image/png" in arm["frames"][2]
    assert arm["labels"] == ["1st", "2nd & <b>", "3rd"]
    assert page.count("</script>") == 1 and not re.search(r"https?://|src=\"//", page)
    assert 'aria-label="three &#x27;things&#x27;"' in page
    assert not plt.fignum_exists(figure.number)


def test_one_scrubber_shown_twice_has_two_ids():
    shown = plots.scrubber(["a"], ["a"], "a")
    ids = re.findall(r' id="([^"]+)"', shown._repr_html_() + shown._repr_html_())
    assert len(ids) == 2 == len(set(ids))


def in_chromium(tmp_path, body):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("chromium is not installed")
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8><body>{body}", encoding="utf-8")
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    options += (
        f"--disable-component-update --disable-sync --virtual-time-budget=20000 --user-data-dir={tmp_path / 'user'}"
    )
    command = [chromium, *options.split(), "--dump-dom", (tmp_path / "page.html").as_uri()]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | {"HOME": str(tmp_path)}
    ).stdout


@pytest.mark.slow
def test_the_slider_play_and_choice_work_in_a_browser(tmp_path):
    frames = {"left": ["<b>L0</b>", "<b>L1</b>", "<b>L2</b>"], "right": ["<b>R0</b>", "<b>R1</b>"]}
    labels = {"left": ["l0", "l1", "l2"], "right": ["r0", "r1"]}
    shown = plots.scrubber(frames, labels, {"left": ["a0", "a1", "a2"], "right": "r"})
    script = """<pre id="log"></pre><script>
      const roots = document.querySelectorAll(".growlib-scrubber"), root = roots[0];
      const see = () => [".slot", "output"].map((part) => root.querySelector(part).textContent)
        .concat(root.querySelector("[role=img]").getAttribute("aria-label")).join();
      const told = [see()], slider = root.querySelector("input[type=range]");
      const move = (at) => { slider.value = at; slider.dispatchEvent(new Event("input")); told.push(see()); };
      move(0); move(1);
      const right = root.querySelector("input[value=right]");
      right.checked = true; right.dispatchEvent(new Event("change")); told.push(see());
      move(0);
      root.querySelector("button").click();
      setTimeout(() => {
        told.push(see(), root.querySelector("button").getAttribute("aria-label"));
        told.push(roots[1].querySelector(".slot").textContent);
        document.getElementById("log").textContent = told.join(";");
      }, 8000);
    </script>"""
    page = in_chromium(tmp_path, shown._repr_html_() + shown._repr_html_() + script)
    told = re.search(r'<pre id="log">(.*?)</pre>', page)[1].split(";")
    assert told == ["L2,l2,a2", "L0,l0,a0", "L1,l1,a1", "R1,r1,r", "R0,r0,r", "R1,r1,r", "Play", "L2"]


def test_a_film_begins_anew_and_tells_nobody_every_frame():
    once, film = plots.scrubber(["a", "b"], ["1", "2"], "a"), plots.poles({"it": np.zeros((7, 4))})
    assert "beat = 0," in once._repr_html_() and "aria-live" not in once._repr_html_()
    assert "beat = 60," in film._repr_html_() and '<output aria-live="off">' in film._repr_html_()


def test_poles_stand_where_the_states_say_and_turn_grey_when_their_episode_is_over():
    still, falling = np.zeros((100, 4)), np.linspace([0, 0, 0, 0], [1, 0, 0.2, 0], 10)
    page = plots.poles({"still": still, "falling": falling})._repr_html_()
    (arm,) = arms_in(page)
    assert len(arm["frames"]) == 34 and len(page) < 40_000
    assert [frame.count(plots._style.COLORS[1]) for frame in arm["frames"]] == [1] * 4 + [0] * 30
    assert 'd="M210.0 150L210.0 70.0"' in arm["frames"][-1]  # upright, in the middle
    assert f'd="M710.0 150L{710 + 80 * np.sin(0.2):.1f} {150 - 80 * np.cos(0.2):.1f}"' in arm["frames"][-1]
    assert arm["labels"][-1] == "1 s" and "still: over after 2.0 s, falling: over after 0.2 s" in arm["alts"][0]
    for wrong in ({}, {"short": np.zeros(4)}, {"wide": np.zeros((3, 5))}, {"none": np.zeros((0, 4))}):
        with pytest.raises(ValueError, match="shape"):
            plots.poles(wrong)


def test_wiring_draws_every_connection_once_and_colours_those_that_are_shown():
    weights = [np.array([[1.0, 0], [0, -2], [0, 0]]), np.array([[0.5, 0, 0], [0, 0, 3]])]
    shown = [weights[0] != 0, np.array([[True, False, False], [False, False, False]])]
    ax = plots.wiring(weights, shown, ["a", "b"], ["left", "right"])
    drawn = [(to_hex(part.get_colors()[0]), len(part.get_segments())) for part in ax.collections]
    grey, blue, orange = plots.PALETTE["ink"], plots.PALETTE["blue"], plots.PALETTE["orange"]
    assert drawn == [(blue, 1), (orange, 1), (grey, 1), (blue, 1)]
    assert [text.get_text() for text in ax.texts] == ["a", "b", "left", "right"]
    for wrong in ((weights, shown, "abc", "cd"), (weights, shown[:1], "ab", "cd"), (weights, shown, "ab", "c")):
        with pytest.raises(ValueError, match="do not fit"):
            plots.wiring(*wrong)


# Network and folds


def test_the_network_shows_every_unit_of_every_layer():
    page = plots.network([[2, 3, 2], [2, 5, 2]])._repr_html_()
    (arm,) = arms_in(page)
    assert [frame.count("h0") for frame in arm["frames"]] == [7, 9]
    assert arm["labels"] == ["2 - 3 - 2", "2 - 5 - 2"]
    assert "2, 5, 2 units" in arm["alts"][1]


def test_the_network_of_a_history_has_a_frame_a_change_and_is_small():
    history = a_history(epochs=30, start=64, by=8, layers=("hidden1", "hidden2"))
    page = plots.network(history, inputs=784, outputs=10)._repr_html_()
    (arm,) = arms_in(page)
    assert len(arm["frames"]) == 31 and len(page) < 300_000
    assert arm["labels"][0] == "at the start"
    assert arm["labels"][1] == "step 10, widen hidden1 to 72, widen hidden2 to 72: every 1 epoch: epoch 1"
    assert ">304</text>" in arm["frames"][-1] and ">784</text>" in arm["frames"][0]


def spirals(n=100):
    turn = torch.linspace(0.5, 8, n)
    arm = torch.stack([turn * turn.cos(), turn * turn.sin()], dim=1) / 8
    return torch.cat([arm, -arm]), torch.arange(2).repeat_interleave(n)


def a_net(units, classes=2, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, units), nn.ReLU(), nn.Linear(units, classes))


def test_a_snapshot_keeps_the_moment():
    model, (points, _) = a_net(3), spirals()
    kept = plots.snapshot(model, "before")
    before = model(points).softmax(1).detach().numpy()
    with torch.no_grad():
        model[0].weight.add_(1)
    np.testing.assert_allclose(kept["regions"](points.numpy()), before, atol=1e-6)
    assert not np.allclose(kept["weight"], model[0].weight.detach())


def test_folds_draw_each_unit_where_its_input_is_zero():
    points, labels = np.array([[-1.0, -1.0], [1.0, 1.0]]), np.array([0, 1])
    regions = lambda at: np.stack([at[:, 0] < 0.5, at[:, 0] >= 0.5], axis=1).astype(float)  # noqa: E731
    frame = {"weight": np.array([[2.0, 0.0], [1.0, 0.0]]), "bias": np.array([-1.0, -9.0]), "regions": regions}
    (arm,) = plots.folds([frame], (points, labels)).arms.values()
    lines = re.findall(r"M(\d+) (\d+)L(\d+) (\d+)M\d+ \d+l(-?\d+)", arm["frames"][0])
    # x = 0.5 of a square from -1.12 to 1.12; the second unit's line misses the square; the tick points right.
    assert lines == [("723", "1000", "723", "0", "22")]
    assert arm["labels"] == ["2 units · 100 % right"]


def test_folds_colour_units_by_birth_and_dot_those_that_nothing_hears():
    small, wide = a_net(3), a_net(5)
    with torch.no_grad():
        wide[0].bias.zero_()  # all lines cross the middle
        wide[2].weight[:, 3:] = 0
    shown = plots.folds({"kept": [plots.snapshot(small, "start"), plots.snapshot(wide, "grown")]}, spirals())
    start, grown = shown.arms["kept"]["frames"]
    assert grown.count("stroke-dasharray") == 2 and "stroke-dasharray" not in start
    assert plots.PALETTE["orange"] in grown and plots.PALETTE["orange"] not in start
    assert shown.arms["kept"]["labels"][1].startswith("grown · 5 units · ")
    told = plots.snapshot(wide, born=[0, 0, 7, 7, 9])
    assert set(re.findall(r'stroke="(#[^"]+)" opacity', plots.folds([told], spirals()).arms[""]["frames"][0])) <= set(
        shades(3)
    )


def test_folds_of_many_points_keep_every_class():
    points, labels = np.random.default_rng(0).random((900, 2)), np.arange(900) % 3
    shell = plots.folds([plots.snapshot(a_net(3, classes=3))], (points, labels)).shell
    assert shell.count('stroke="currentColor"') == 3


def test_folds_of_many_frames_and_three_classes_stay_small():
    snapshots = [plots.snapshot(a_net(24, classes=3, seed=seed)) for seed in range(40)]
    points, labels = spirals()
    data = SimpleNamespace(train=SimpleNamespace(images=points, labels=labels))
    page = plots.folds({"naive": snapshots[:20], "zero_out": snapshots[20:]}, data)._repr_html_()
    assert len(page) < 300_000 and [len(arm["frames"]) for arm in arms_in(page)] == [20, 20]
    assert 'type="radio"' in page and not re.search("https?://", page)


# Style and errors


def linear(color):
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    return np.array([c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels])


def contrast(color, background):
    low, high = sorted(linear(each) @ [0.2126, 0.7152, 0.0722] for each in (color, background))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("background", ["#ffffff", "#14181e"])
def test_every_colour_reads_on_white_and_on_dark(background):
    for name, color in plots.PALETTE.items():
        assert contrast(color, background) >= (3.8 if name == "ink" else 3.0), name
    assert min(contrast(color, background) for color in ("#e08a1e", "#1f3f8f")) < 3  # a brighter and a darker one fail


SEEN_BY = {  # Machado et al. (2009), severity 1
    "all": np.eye(3),
    "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritan": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def closest(colors, eyes):
    """The smallest CIELAB distance of two colours, about 2 being the least that can be told apart."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    seen = [to_xyz @ np.clip(np.array(eyes) @ linear(color), 0, 1) / [0.9505, 1, 1.0888] for color in colors]
    x, y, z = np.cbrt(np.maximum(seen, 1e-9)).T
    lab = np.stack([116 * y, 500 * (x - y), 200 * (y - z)], axis=1)
    return min(np.linalg.norm(one - other) for one, other in combinations(lab, 2))


@pytest.mark.parametrize("eyes", SEEN_BY)
def test_colours_differ_for_all_eyes(eyes):
    assert closest(plots.PALETTE.values(), SEEN_BY[eyes]) > 14
    assert closest(["#c4417a", "#1f9e89"], SEEN_BY["deutan"]) < 10  # a pair that would not do


@given(st.integers(1, 120))
def test_every_generation_has_a_colour_of_its_own(count):
    assert len(set(shades(count))) == count == len(shades(count))


WRONG = {
    "no column 'val_los'": lambda: plots.curves(a_history(), ["val_los"]),
    "no row": lambda: plots.tradeoff(pd.DataFrame(), "x", "y", "arm", "point"),
    "no record yet": lambda: plots.growth(SimpleNamespace(records=[], changes=[], losses=[])),
    "'widths'": lambda: plots.growth(SimpleNamespace(records=[{"step": 1, "epoch": 1}], changes=[], losses=[])),
    "nothing to couple": lambda: plots.couplings(nn.Linear(2, 2), []),
    "arms is empty": lambda: plots.compare({}),
    "3 labels, but 2 predictions": lambda: plots.confusion([0, 1, 1], [0, 1], ["a", "b"]),
    "label 5 is no class: there are 2 classes": lambda: plots.confusion([5], [0], ["a", "b"]),
    "1 images, 2 labels": lambda: plots.predictions(np.zeros((1, 8, 8)), [0, 1], [0, 1], ["a", "b"]),
    "2 frames, 1 labels": lambda: plots.scrubber(["a", "b"], ["a"], "alt"),
    "not int": lambda: plots.scrubber([3], ["a"], "alt"),
    "every frame": lambda: plots.network([[2, 3, 2], [2, 3]]),
    r"the first weight matrix here is \(4, 3\)": lambda: plots.snapshot(nn.Linear(3, 4)),
    r"shape \(4, 3\), not \(N, 2\)": lambda: plots.folds([{}], (np.zeros((4, 3)), np.zeros(4))),
    "no snapshot to draw for 'naive'": lambda: plots.folds({"naive": []}, spirals()),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_input_gives_an_error_with_the_values(message):
    with pytest.raises(ValueError, match=message):
        WRONG[message]()


# Who shares a width


def test_couplings_have_a_line_a_width_and_a_stop_a_layer():
    model = ResNet((1, 8, 8), [4, 6], [2, 1], 3)
    ax = plots.couplings(model, model.hidden)
    layers = [label.get_text() for label in ax.get_xticklabels()]
    assert layers[:3] == ["stem", "stage1.block1.conv1", "stage1.block1.conv2"] and layers[-1] == "output"
    assert [label.get_text() for label in ax.get_yticklabels()][:3] == ["stage1: 4", "stage2: 6", "stage1.block1: 4"]
    stops = [[(layers[int(x)], int(y)) for x, y in drawn.get_offsets()] for drawn in ax.collections[:4]]
    assert stops[0] == [(name, 0) for name in ("stem", "stage1.block1.conv2", "stage1.block2.conv2")]
    readers = ("stage1.block1.conv1", "stage1.block2.conv1", "stage2.block1.conv1", "stage2.block1.shortcut")
    assert stops[1] == [(name, 0) for name in readers]
    assert stops[2] == [("stage2.block1.shortcut", 1), ("stage2.block1.conv2", 1)] and stops[3] == [("output", 1)]


# Runs laid over each other


def test_losses_lie_over_each_other_with_what_was_lost():
    whole = a_history(epochs=3, steps=10)
    trainer = SimpleNamespace(history=a_history(epochs=2, steps=10))
    ax = plots.losses({"whole": whole, "resumed": trainer}, lost=(12, 17))
    broad, thin = ax.lines[:2]
    assert broad.get_ydata().tolist() == whole.losses and thin.get_ydata().tolist() == trainer.history.losses
    assert thin.get_xdata()[0] == 1 and broad.get_linewidth() > 3 * thin.get_linewidth()
    assert places(ax, "change") == [10, 20, 30]
    (lost,) = [patch for patch in ax.patches if patch.get_gid() == "lost"]
    assert (lost.get_x(), lost.get_x() + lost.get_width()) == (12, 17)
    with pytest.raises(ValueError, match="resumed has no step yet"):
        plots.losses({"whole": whole, "resumed": SimpleNamespace(losses=[])})
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.losses({})


# Connections that move


def moments(count, shape=(4, 4)):
    rows = []
    for place in range(count):
        read = np.zeros(shape)
        read[1:3, 1:3] = 1 + place  # of the middle
        given = {"connections": 1234, "turnover": 0.25 * place, "label": f"epoch {place}"}
        rows.append({"read": torch.tensor(read), **given})
    return rows


def test_pixels_tell_what_is_read_and_that_the_count_stays():
    found = plots.pixels({"static": moments(2), "RigL": moments(3)})
    assert [len(arm["frames"]) for arm in found.arms.values()] == [2, 3]
    assert all("1,234" in frame and "75%" in frame for arm in found.arms.values() for frame in arm["frames"])
    assert (
        found.arms["RigL"]["alts"][2] == "RigL, epoch 2: 100% of the connections read the middle quarter of the image"
    )
    assert "50%</b>of the connections moved" in found.arms["RigL"]["frames"][2]
    with pytest.raises(ValueError, match="'RigL': 0"):
        plots.pixels({"static": moments(1), "RigL": []})


def test_weights_count_the_connections():
    first, second = np.eye(3), -np.eye(3) * [1, 1, 0]
    found = plots.weights([first, second], ["before", "after"])
    assert found.arms[""]["alts"] == ["before: 3 of 9 weights", "after: 2 of 9 weights"]


def test_the_page_of_a_rewired_run_has_a_line_a_layer():
    records = []
    for epoch in (1, 2):
        by_layer = {"hidden1": 10.0 * epoch, "output": 5.0}
        names = ("connections", "turnover", "explored", "age")
        records.append({"epoch": epoch, **{name: by_layer for name in names}})
    figure = plots.sparsity(records)
    assert [len(ax.lines) for ax in figure.axes] == [2] * 4
    assert figure.axes[1].lines[0].get_ydata().tolist() == [10.0, 20.0]
    with pytest.raises(ValueError, match="train with a Rewire"):
        plots.sparsity(a_history().records)


# Maps, and lives of connections


def test_maps_show_zero_as_the_page_and_signs_in_two_colours():
    picture = torch.tensor([[0.0, 2.0], [-4.0, 1.0]])
    axes = plots.maps({"first": picture, "second": 10 * picture, "nothing": 0 * picture})
    assert [ax.get_title(loc="left") for ax in axes] == ["first", "second", "nothing"]
    colors = [ax.images[0].to_rgba(ax.images[0].get_array(), alpha=None) for ax in axes]
    np.testing.assert_allclose(colors[0], colors[1])
    assert colors[0][0, 0, 3] < 0.02 < colors[0][0, 1, 3] < colors[0][1, 0, 3] == 1
    assert colors[0][0, 1, 2] > colors[0][0, 1, 0] and colors[0][1, 0, 0] > colors[0][1, 0, 2]
    assert colors[2][..., 3].max() < 0.02


@pytest.mark.parametrize("pictures", [{}, {"a vector": np.zeros(3)}])
def test_maps_say_what_they_cannot_draw(pictures):
    with pytest.raises(ValueError, match="nothing to draw|shape"):
        plots.maps(pictures)


def test_lives_end_in_a_cross_where_a_connection_died():
    walks = [
        {"steps": [0, 1, 2], "values": [0.3, 0.1, -0.1], "died": True},
        {"steps": [2, 3], "values": [0.0, 0.2], "died": False},
    ]
    ax = plots.lives(walks)
    crosses = [line for line in ax.lines if line.get_marker() == "x"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in crosses] == [(2, -0.1)]
    assert line_of(ax, ax.lines[0].get_color()).get_ydata().tolist() == [0.3, 0.1, -0.1]
    with pytest.raises(ValueError, match="no connection lived"):
        plots.lives([])


def test_owners_colour_weights_by_row_and_grey_what_never_counts():
    weight = torch.tensor([[1.0, 2.0, -4.0], [0.0, 1.0, 1.0], [float("nan"), -4.0, 0.5]])
    tasks = ["first", "second", "second"]
    axes = plots.owners({"a": weight, "b": weight.nan_to_num()}, tasks, tasks)
    picture, whole = (ax.images[0].get_array() for ax in axes)
    colors = [[to_hex(cell[:3]) for cell in row] for row in picture]
    first, second, grey = *shades(2), plots.PALETTE["ink"]
    assert colors == [[first, grey, grey], [second] * 3, [second] * 3]
    assert picture[2, 0, 3] == 0 < whole[2, 0, 3] == whole[1, 0, 3] < whole[0, 0, 3] < whole[2, 1, 3] == 1
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["first", "second"]
    assert axes[0].get_yticks().tolist() == axes[0].get_xticks().tolist() == [0, 1.5]
    (plain,) = plots.owners({"": weight}, tasks)
    assert not len(plain.get_xticks()) and to_hex(plain.images[0].get_array()[0, 2, :3]) == first


def test_owners_say_what_they_cannot_draw():
    for weights, rows in (({}, ["a"]), ({"": np.zeros((2, 3))}, ["a"]), ({"": np.zeros(2)}, ["a", "a"])):
        with pytest.raises(ValueError, match="nothing to draw|has the shape"):
            plots.owners(weights, rows)


def some_times(scale=1.0):
    rows = [{"density": d, "dense": 10.0, "masked": 12.0, "csr": 50 * d * scale} for d in (0.01, 0.05, 0.2, 0.5)]
    return rows[::-1]


def test_speedups_are_those_over_dense_and_the_band_is_their_range():
    ax = plots.speedups(some_times(), band=[some_times(0.9), some_times(1.1)])
    masked, csr = (line for line in ax.lines if line.get_marker() == "o")
    assert csr.get_xdata().tolist() == [0.01, 0.05, 0.2, 0.5]
    assert np.allclose(csr.get_ydata(), [20, 4, 1, 0.4]) and np.allclose(masked.get_ydata(), 10 / 12)
    (break_even,) = [line for line in ax.lines if line.get_gid() == "break-even"]
    assert set(break_even.get_ydata()) == {1}
    bands = [patch for patch in ax.collections if patch.get_gid() == "band"]
    reach = bands[-1].get_paths()[0].vertices[:, 1]
    assert len(bands) == 2 and np.isclose(reach.max(), 20 / 0.9) and np.isclose(reach.min(), 0.4 / 1.1)
    assert [text.get_text() for text in ax.texts] == ["masked", "csr"]
    with pytest.raises(ValueError, match="needs its density"):
        plots.speedups([{"density": 0.1}])


def test_bills_are_bars_as_long_as_their_totals():
    parts = {"parameters": 2**20, "gradients": 2**20, "total": 2**21}
    ax = plots.bills({"dense": parts, "csr": {"parameters": 2**19, "buffers": 2**18}})
    ends = {round(bar.get_y() + bar.get_height() / 2): 0.0 for bar in ax.patches}
    for bar in ax.patches:
        place = round(bar.get_y() + bar.get_height() / 2)
        ends[place] = max(ends[place], bar.get_x() + bar.get_width())
    assert ends == {0: 2.0, 1: 0.75}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["parameters", "gradients", "buffers"]
    with pytest.raises(ValueError, match="no bill"):
        plots.bills({})


# The matrix of accuracies


def accuracies(rows, names="abc"):
    return pd.DataFrame(rows, index=pd.Index(list(names), name="after"), columns=list(names), dtype=float)


KNOWN = accuracies([[0.991, 0.5, 0.4], [0.2, 0.98, 0.3], [0.1, np.nan, 1]])


def test_a_matrix_of_accuracies_shows_what_was_learned_so_far():
    ax = plots.accuracy_matrix(KNOWN)
    cells = {(round(text.get_position()[0]), round(text.get_position()[1])): text.get_text() for text in ax.texts}
    assert cells == {(0, 0): "99.1", (0, 1): "20.0", (1, 1): "98.0", (0, 2): "10.0", (2, 2): "100.0"}
    assert len(ax.patches) == 5
    assert [label.get_text() for label in ax.get_yticklabels()] == ["after a", "after b", "after c"]
    colors = {tuple(patch.get_xy()): patch.get_facecolor() for patch in ax.patches}
    assert len(set(colors.values())) == 5  # another accuracy, another colour


def test_matrices_stand_side_by_side():
    axes = plots.accuracy_matrix({"naive": KNOWN, "replay": KNOWN})
    assert [ax.get_title(loc="left") for ax in axes] == ["naive", "replay"]
    single = plots.accuracy_matrix(KNOWN, plt.figure().add_subplot())
    assert single.get_title(loc="left") == ""
    last = plots.accuracy_matrix(KNOWN.iloc[-1:])  # learned at once: the other tasks were never learned alone
    assert len(last.texts) == 2


def test_a_matrix_of_nothing_is_refused():
    for nothing in ({}, accuracies(np.full((3, 3), np.nan)), {"naive": KNOWN * np.nan}):
        with pytest.raises(ValueError, match="no accuracy is known"):
            plots.accuracy_matrix(nothing)


def moment(tasks, shared=False):
    matrix = pd.DataFrame(0.9, index=tasks, columns=["a", "b", "c"][: max(len(tasks), 2)])
    owned = {None: 60} if shared else dict.fromkeys(tasks, 20)
    return {"matrix": matrix, "units": {"hidden1": owned, "hidden2": owned}, "changed": 0, "logits": 512}


def test_a_memory_has_a_frame_a_task_and_says_what_moved():
    lives = [moment(["a"]), moment(["a", "b"])]
    found = plots.memory({"one": [moment(["a"], True), moment(["a", "b"], True)], "blocks": lives})
    (arm,) = found.arms.values()
    assert arm["labels"] == ["after a", "after b"] and "blocks: 0 of 512 old logits changed" in arm["alts"][1]


def test_lives_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="as many moments"):
        plots.memory({"one": [moment(["a"])], "two": []})


def test_a_stream_stacks_the_units_of_its_tasks():
    history = History(changes=[])
    for step, task in ((10, 0), (20, 0), (30, 1)):
        history.log(step, task=task, val_accuracy=0.5, widths={"hidden1": 4, "hidden2": 3})
    history.changes += [
        {"kind": "widen", "layer": "hidden1", "before": 4, "after": 9, "step": 10},
        {"kind": "task", "layer": "b", "before": 0, "after": 6, "step": 20},
    ]
    above, below = plots.stream(history, ["a", "b"])
    assert above.get_ylim()[1] >= 7 + 5 + 6 and [text.get_text() for text in above.texts] == ["a", "b"]
    tops = [path.get_paths()[0].vertices[:, 1].max() for path in above.collections]
    assert tops == [12, 18] and len(below.lines) == 2
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.stream(History(), ["a"])


# Losses over two weights


def test_bowls_have_their_level_lines_where_the_loss_says():
    steep, lowest = (9.0, 1.0), (1.0, 0.0)
    ax = plots.bowls({"A": (steep, lowest), "B": (torch.tensor([1.0, 9.0]), torch.tensor([0.0, 1.0]))}, {"end": (0, 1)})
    for ring, level in zip(ax.patches[:4], (0.25, 1, 2.25, 4), strict=True):
        for turn in (0, 0.3, 1.5):
            x, y = lowest[0] + ring.width / 2 * np.cos(turn), lowest[1] + ring.height / 2 * np.sin(turn)
            assert (9 * (x - 1) ** 2 + y**2) / 2 == pytest.approx(level)
    assert len(ax.patches) == 8
    assert [text.get_text() for text in ax.texts] == ["task A", "task B", "end"]
    (end,) = [line for line in ax.lines if line.get_marker() == "o"]
    assert end.get_xydata().tolist() == [[0, 1]]
    for nothing in ({}, {"A": ((1.0, 0.0), lowest)}):
        with pytest.raises(ValueError, match="nothing to draw"):
            plots.bowls(nothing, {})


# Masks


def test_masks_colour_every_pixel_by_its_class_and_leave_the_background_to_the_page():
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    numbers = torch.zeros(2, 4, 5, dtype=torch.int64)
    numbers[0, 1, 2], numbers[1, 3, 4] = 1, 2
    axes = plots.masks(images, {"marked": numbers, "seen": numbers}, ["background", "hat", "shoe"])
    assert len(axes) == 6 and [ax.get_ylabel() for ax in axes[::2]] == ["scene", "marked", "seen"]
    assert np.array_equal(axes[1].images[0].get_array(), images[1].permute(1, 2, 0))
    hat, shoe = shades(2)
    shown = axes[2].images[0].get_array()
    assert to_hex(shown[1, 2]) == hat and to_hex(axes[5].images[0].get_array()[3, 4]) == shoe
    assert (shown[..., 3] < 0.2).sum() == 19
    legend = axes[0].figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["hat", "shoe"]


def test_masks_that_do_not_fit_are_refused():
    images, numbers = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.full((1, 4, 4), 2)
    with pytest.raises(ValueError, match="scenes are"):
        plots.masks(images[:, :1], {}, ["background", "hat"])
    with pytest.raises(ValueError, match="a number a pixel"):
        plots.masks(images, {"seen": numbers[:, :3]}, ["background", "hat"])
    with pytest.raises(ValueError, match="reaches from 2 to 2"):
        plots.masks(images, {"seen": numbers}, ["background", "hat"])


# Forks


def a_moment(step, gap):
    steps = [step, step + 10, step + 20]
    return {"layer": "hidden1", "steps": steps, "plain": [1.0, 0.8, 0.7], "grown": [1.0, 0.8 - gap / 2, 0.7 - gap]}


def test_a_roc_has_a_line_for_every_predictor_and_one_for_chance():
    ax = plots.roc({"width": ([0, 0.5, 1], [0, 0.9, 1]), "rank": ([0, 1], [0, 1])})
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["chance", "width", "rank"]
    assert line_of(ax, plots.PALETTE["blue"]).get_ydata().tolist() == [0, 0.9, 1]
    with pytest.raises(ValueError, match="curves is empty"):
        plots.roc({})


@pytest.mark.parametrize("low", [True, False])
def test_the_forks_go_from_the_threshold_that_never_grows_to_the_one_that_always_does(low):
    run = [(0, 2.0), (10, 1.0), (20, 0.8), (30, 0.7)]
    sign = 1 if low else -1
    known = ([sign * v for v in (1.0, 2.0, 3.0, 4.0)], [True, True, False, False])
    shown = plots.forks(run, [a_moment(10, 0.1), a_moment(20, 0.0)], [sign * 1.5, sign * 3.5], known, "rank", low)
    [arm] = shown.arms.values()
    assert len(arm["frames"]) == len(arm["labels"]) == 25
    assert "grows at 0 of 2" in arm["labels"][0] and "grows at 2 of 2" in arm["labels"][-1]
    assert "100 % of those that pay, 100 % of the others" in arm["labels"][-1]
    assert any("100 % of those that pay, 0 % of the others" in label for label in arm["labels"])
    circles = [frame.count("<circle") for frame in arm["frames"]]
    assert circles == sorted(circles) and circles[0] == 1 and circles[-1] == 5  # the ROC point, and two a birth
    assert "nan" not in "".join(arm["frames"])
    page = shown._repr_html_()
    assert "http" not in page.replace("http://www.w3.org", "")


def test_forks_that_cannot_be_judged_are_refused():
    with pytest.raises(ValueError, match="1 forks, 0 readings"):
        plots.forks([(0, 1.0)], [a_moment(0, 0.1)], [], ([1, 2], [True, False]), "rank", True)
    with pytest.raises(ValueError, match="2 of 2 paid"):
        plots.forks([(0, 1.0)], [a_moment(0, 0.1)], [1], ([1, 2], [True, True]), "rank", True)


# Which memory


def test_a_tree_of_questions_has_a_row_for_every_advice():
    tree = {"Is it known?": {"no": "ask", "yes": {"May it grow?": {"no": "stay", "yes": "grow"}}}}
    ax = plots.decisions(tree)
    texts = {text.get_text().replace("\n", " "): text.get_position() for text in ax.texts}
    assert {"Is it known?", "May it grow?", "ask", "stay", "grow", "yes", "no"} <= set(texts)
    assert [texts[leaf][1] for leaf in ("ask", "stay", "grow")] == [0, 1, 2]
    assert texts["May it grow?"] == (1, 1.5) and texts["Is it known?"] == (0, 0.75)
    assert len(ax.lines) == 4
    with pytest.raises(ValueError, match="begins with one question"):
        plots.decisions({"one": {}, "two": {}})


def test_forgetting_is_the_way_from_the_ring_to_the_dot():
    ax = plots.forgotten({"naive": {"learned": 0.9, "kept": 0.5, "half": 0.1}, "own": {"learned": 0.8, "kept": 0.8}})
    ways = [line.get_xdata().tolist() for line in ax.lines if len(line.get_xdata()) == 2]
    assert ways[:2] == [[0.9, 0.5], [0.8, 0.8]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["naive", "own"]
    assert ax.lines[0].get_color() == plots.PALETTE["orange"] and ax.get_ylim()[0] > ax.get_ylim()[1]
    with pytest.raises(ValueError, match="no method was given"):
        plots.forgotten({})
