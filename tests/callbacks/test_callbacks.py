"""Callbacks: each does its one thing, and refuses test data."""

import io
import warnings

import psutil
import pytest
import torch

from growlib import (
    MLP,
    Budget,
    Checkpoint,
    Deepen,
    EarlyStopping,
    Evaluate,
    LRSchedule,
    ProgressBar,
    Prune,
    ResourceMonitor,
    Trainer,
    Widen,
    activation,
    every,
    load,
    magnitude,
    narrower_than,
    plateau,
    random,
    shallower_than,
    untrained,
    warmup_decay,
    within_budget,
    zero_out,
)
from growlib.callbacks import machine as module


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def make(callbacks, width=8, rate=1e-2, **settings):
    torch.manual_seed(0)
    model = MLP(64, [width], 10)
    return Trainer(model, torch.optim.Adam(model.parameters(), lr=rate), callbacks, device="cpu", **settings)


def test_the_schedule_of_widths_is_one_line(digits):
    def rest(trainer, hidden):
        return min(6, 20 - hidden.width)

    trainer = make([Widen(by=rest, when=every(2, "epochs") & narrower_than(20))])
    history = trainer.fit(digits, epochs=7)
    widths = [record["widths"]["hidden1"] for record in history.records]
    assert widths == [min(8 + 6 * (epoch // 2), 20) for epoch in range(7)]


def test_within_budget_asks_about_the_model_after_the_change(digits):
    limit = 64 * 13 + 13 + 13 * 10 + 10  # room for 13 units: 8, then 11, but not 14
    history = make([Widen(by=3, when=every(1, "epoch") & within_budget(params=limit))]).fit(digits, epochs=4)
    assert [change["after"] for change in history.changes] == [11]
    assert history.changes[0]["cause"] == f"epoch 1, {history.changes[0]['parameters']:,} <= {limit:,} params"


def test_where_chooses_the_layers(digits):
    torch.manual_seed(0)
    model = MLP(64, [8, 6], 10)
    grow = Widen(by=2, when=every(1, "epoch"), where=lambda trainer, hidden: hidden[-1:])
    Trainer(model, torch.optim.Adam(model.parameters()), [grow], device="cpu").fit(digits, epochs=1)
    assert [hidden.width for hidden in model.hidden] == [8, 8]


def test_an_init_that_lies_about_preserving_is_caught(digits):
    def liar(hidden, by, probe):
        return random(hidden, by, probe)

    liar.preserves = True
    with pytest.raises(RuntimeError, match="`preserves` is not true here"):
        make([Widen(by=4, when=every(1, "epoch"), init=liar)]).fit(digits, epochs=1)
    make([Widen(by=4, when=every(1, "epoch"), init=random)]).fit(digits, epochs=1)


def test_units_dead_at_birth_are_told(digits):
    def dead(hidden, by, probe):
        incoming, bias, outgoing = random(hidden, by, probe)
        return [rows.zero_() for rows in incoming], bias, [columns.zero_() for columns in outgoing]

    dead.preserves = True
    with pytest.warns(UserWarning, match=r"all new units of 'hidden1' are dead: \[8, 9\]"):
        make([Widen(by=2, when=every(1, "epoch"), init=dead)]).fit(digits, epochs=1)


def test_prune_takes_the_units_of_least_worth(digits):
    trainer = make([Prune(by=3, when=every(1, "epoch"))], batch_size=2000)
    hidden = trainer.model.hidden[0]

    class Watch(module.Callback):
        def after_epoch(self, trainer):
            worth = magnitude(None, hidden)
            self.kept = trainer.model.hidden1.weight[worth.argsort()[3:].sort().values].clone()

    trainer.callbacks.insert(0, watch := Watch())
    trainer.fit(digits, epochs=1)
    assert torch.equal(trainer.model.hidden1.weight, watch.kept)


@pytest.mark.parametrize("warmup", [0, 3])
def test_warmup_then_decay_is_the_formula(digits, warmup):
    schedule = LRSchedule(warmup_decay, warmup=warmup, decay=0.5, patience=2, floor=0.2)
    history = make([schedule], rate=0.01).fit(digits, epochs=12)
    expected = [(e + 1) / (warmup + 1) if e < warmup else max(0.5 ** ((e - warmup) / 2), 0.2) for e in range(12)]
    assert history.column("learning_rate") == pytest.approx([0.01 * factor for factor in expected])


def test_any_schedule_of_torch_survives_growth(digits):
    def run(callbacks):
        steps = 3 * 13
        schedule = LRSchedule(torch.optim.lr_scheduler.OneCycleLR, per="step", max_lr=0.05, total_steps=steps + 1)
        return make([*callbacks, schedule], rate=0.01).fit(digits, epochs=3)

    rates = run([]).column("learning_rate")
    assert len(set(rates)) == 3
    assert run([Widen(by=2, when=every(5, "steps"))]).column("learning_rate") == rates
    with pytest.raises(ValueError, match="per 'epoch' or per 'step'"):
        LRSchedule(torch.optim.lr_scheduler.OneCycleLR, per="minute")


def test_evaluate_adds_columns_to_the_record(digits):
    trainer = make([Evaluate("test")])
    record = trainer.fit(digits, epochs=1).records[0]
    assert record["test_accuracy"] == trainer.evaluate(digits, "test")["accuracy"]


def test_checkpoint_keeps_the_best_and_the_last(digits, tmp_path):
    trainer = make([Checkpoint(tmp_path, best="val_accuracy")], rate=0.3)
    history = trainer.fit(digits, epochs=6)
    accuracies = history.column("val_accuracy")
    best = torch.load(tmp_path / "best.pt", weights_only=True)["progress"]["epoch"]
    assert best == accuracies.index(max(accuracies)) + 1 < 6
    assert torch.load(tmp_path / "last.pt", weights_only=True)["progress"]["epoch"] == 6
    assert sorted(file.name for file in tmp_path.iterdir()) == ["best.pt", "last.pt"]


def test_early_stopping_stops_and_growth_gives_it_new_patience(digits):
    frozen = make([EarlyStopping("val_loss", patience=2)], rate=0.0)
    assert len(frozen.fit(digits, epochs=10).records) == 3
    assert frozen.stopped.startswith("val_loss no better than")
    growing = make([Widen(by=1, when=every(2, "epochs")), EarlyStopping("val_loss", patience=2)], rate=0.0)
    assert len(growing.fit(digits, epochs=10).records) == 10


@pytest.mark.parametrize("make_it", [EarlyStopping, lambda column: Checkpoint("nowhere", best=column)])
def test_choosing_on_test_data_is_refused(make_it):
    with pytest.raises(ValueError, match="test"):
        make_it("test_loss")


def test_over_the_ceiling_the_batch_shrinks_then_the_run_stops(digits, tmp_path, monkeypatch):
    total = psutil.virtual_memory().total
    monkeypatch.setattr(module, "resident_bytes", lambda: 0.6 * total)
    monitor = ResourceMonitor(ceiling=0.5, checkpoint=tmp_path / "stopped.pt", patience=1)
    trainer = make([monitor], batch_size=32)
    trainer.fit(digits, epochs=2)
    assert (trainer.batch_size, trainer.accumulate) == (8, 4)  # equal gradients
    assert trainer.step == 3 and "is over the ceiling of 50.0%" in trainer.stopped
    resumed = Trainer.load(tmp_path / "stopped.pt", callbacks=[ResourceMonitor(ceiling=0.5, patience=1)], device="cpu")
    assert (resumed.step, resumed.batch_size) == (3, 8)
    monkeypatch.setattr(module, "resident_bytes", lambda: 0.4 * total)
    history = resumed.fit(digits, epochs=2)
    assert len(history.records) == 2 and history.records[-1]["memory_mb"] == 0.4 * total / 2**20
    with pytest.raises(ValueError, match="share of the system's memory"):
        ResourceMonitor(ceiling=80)


def test_the_ceiling_sees_the_activations_that_are_gone_after_the_step(digits, monkeypatch):
    total = psutil.virtual_memory().total
    held = {"bytes": 0.4 * total}
    monkeypatch.setattr(module, "resident_bytes", lambda: held["bytes"])

    class Activations(module.Callback):
        def before_step(self, trainer):
            held["bytes"] = (0.4 + 0.1 * trainer.batch_size / 32) * total

        def after_backward(self, trainer):
            held["bytes"] = 0.4 * total

    trainer = make([Activations(), ResourceMonitor(ceiling=0.46, patience=1)], batch_size=32)
    history = trainer.fit(digits, epochs=1)
    assert (trainer.batch_size, trainer.stopped) == (16, None)
    assert history.records[0]["memory_mb"] == pytest.approx(0.5 * total / 2**20)


def test_the_ceiling_guards_the_memory_of_the_device_too(digits, tmp_path, monkeypatch):
    held, freed = {"bytes": 60}, []
    monkeypatch.setattr(module, "resident_bytes", lambda: 0)
    monkeypatch.setattr(module, "device_memory", lambda device: (held["bytes"], 100))
    monkeypatch.setattr(torch.accelerator, "max_memory_allocated", lambda device: 3 * 2**20)
    monkeypatch.setattr(torch.accelerator, "reset_peak_memory_stats", lambda device: freed.append("peak"))
    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: freed.append("cache"))
    trainer = make([ResourceMonitor(ceiling=0.5, checkpoint=tmp_path / "stopped.pt", patience=1)], batch_size=32)
    trainer.fit(digits, epochs=2)
    assert (trainer.batch_size, trainer.accumulate) == (8, 4) and freed == ["peak", "cache", "cache"]
    assert trainer.step == 3 and trainer.stopped == "memory 60.0% of the device's is over the ceiling of 50.0%"
    held["bytes"] = 40
    trainer = make([ResourceMonitor(ceiling=0.5)], batch_size=32)
    assert trainer.fit(digits, epochs=1).records[0]["gpu_memory_mb"] == 3
    assert (trainer.batch_size, trainer.stopped) == (32, None)


def test_the_memory_of_a_device_is_asked_where_torch_can_tell(monkeypatch):
    assert module.device_memory(torch.device("cpu")) is None
    monkeypatch.setattr(torch.accelerator, "memory_reserved", lambda device: 7)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1, 9))
    monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda device: (2, 11))
    assert module.device_memory(torch.device("cuda")) == (7, 9)
    assert module.device_memory(torch.device("xpu")) == (7, 11)

    def silent(device):
        raise NotImplementedError("this device does not count")

    monkeypatch.setattr(torch.accelerator, "get_memory_info", silent)
    assert module.device_memory(torch.device("mps")) is None


def test_shrinking_the_batch_does_not_change_the_gradients(digits):
    class Shrink(module.Callback):
        def after_step(self, trainer):
            if trainer.step == 5:
                trainer.batch_size, trainer.accumulate = 16, 8

    losses = [torch.tensor(make(callbacks).fit(digits, epochs=1).losses) for callbacks in ([], [Shrink()])]
    torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-4)


def test_the_bar_is_one_line_and_quiet_in_ci(digits, monkeypatch, capsys):
    import ipykernel  # noqa: F401  (that it is imported does not make this a notebook)

    monkeypatch.delenv("CI", raising=False)
    make([ProgressBar()]).fit(digits, epochs=3)
    shown = capsys.readouterr().err
    assert "3/3 epochs" in shown and "val_accuracy=" in shown
    monkeypatch.setenv("CI", "true")
    make([ProgressBar()]).fit(digits, epochs=1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("console", [None, "closed"])
def test_a_program_without_a_console_trains_without_a_bar(digits, monkeypatch, console):
    monkeypatch.delenv("CI", raising=False)
    if console:
        console = io.StringIO()
        console.close()
    monkeypatch.setattr("sys.stderr", console)
    trainer = make([ProgressBar()], progress=True)
    assert len(trainer.fit(digits, epochs=1).records) == 1 and trainer.bar.bar is None
    assert make([], progress=None).bar is None  # to look whether somebody watches harms nothing either


def test_reprs_are_what_one_would_write_and_the_same_everywhere():
    grow = Widen(by=8, when=every(1, "epoch") & narrower_than(104))
    assert repr(grow) == "Widen(8, (every(1, 'epoch') & narrower_than(104)), where=each, init=zero_out)"
    schedule = LRSchedule(warmup_decay, warmup=1, decay=0.5, patience=2, floor=0.1)
    assert repr(schedule) == "LRSchedule(warmup_decay, per='epoch', warmup=1, decay=0.5, patience=2, floor=0.1)"
    for callback in (
        EarlyStopping(),
        Checkpoint("runs"),
        ResourceMonitor(),
        Evaluate(),
        ProgressBar(),
        Prune(1, grow.when),
    ):
        assert "0x" not in repr(callback)


@pytest.mark.parametrize("make_it", [lambda: Widen(by=0, when=every(1, "epoch")), lambda: Prune(0, every(1, "epoch"))])
def test_nothing_to_do_is_an_error(make_it):
    with warnings.catch_warnings(), pytest.raises(ValueError, match="give a positive number of units"):
        make_it()


def test_inits_and_scores_see_the_batch_of_the_last_step(digits):
    seen = []

    def watching(hidden, by, probe):
        seen.append((probe.inputs, probe.post(hidden)))
        return zero_out(hidden, by, probe)

    def score(probe, hidden):
        seen.append((probe.inputs, probe.post(hidden)))
        return activation(probe, hidden)

    class Check(module.Callback):
        def after_step(self, trainer):
            while seen:
                inputs, said = seen.pop()
                assert inputs is trainer.inputs and said.shape[0] == len(trainer.inputs)

    watching.preserves = True
    callbacks = [Widen(by=3, when=every(5, "steps"), init=watching), Prune(by=2, when=every(5, "steps"), score=score)]
    history = make([*callbacks, Check()]).fit(digits, epochs=1)
    assert [change["kind"] for change in history.changes] == ["widen", "prune"] * 2 and not seen


# ---------------------------------------------------------------------------------------------------------- Deepen


def test_deepen_waits_for_a_plateau_and_says_so(digits):
    trainer = make([Deepen(when=plateau("val_loss", 3, "epochs"))], rate=0.0)
    history = trainer.fit(digits, epochs=9)
    assert [(change["layer"], change["epoch"]) for change in history.changes] == [("hidden2", 4), ("hidden3", 8)]
    assert history.changes[0]["cause"].startswith("val_loss no better than") and history.changes[0]["before"] == 0
    assert trainer.model.names == ["hidden1", "hidden2", "hidden3"]
    assert [len(record["widths"]) for record in history.records] == [1, 1, 1, 1, 2, 2, 2, 2, 3]


def test_hybrid_growth_is_both_callbacks(digits):
    grow = [Widen(by=2, when=every(1, "epoch") & narrower_than(13)), Deepen(every(2, "epochs") & shallower_than(3))]
    trainer = make(grow)
    history = trainer.fit(digits, epochs=6)
    assert [hidden.width for hidden in trainer.model.hidden] == [14, 14, 14]
    assert {change["kind"] for change in history.changes} == {"widen", "deepen"}
    assert [c["cause"] for c in history.changes if c["kind"] == "deepen"] == [
        "epoch 2, depth 1 < 3",
        "epoch 4, depth 2 < 3",
    ]


def test_deepen_goes_behind_the_layer_that_is_named_or_chosen(digits):
    trainer = make([Deepen(every(1, "epoch"), after="hidden1")])
    trainer.fit(digits, epochs=2)
    assert trainer.model.names == ["hidden1", "hidden3", "hidden2"]
    trainer = make([Deepen(every(1, "epoch"), after=lambda trainer, hidden: hidden[0])])
    trainer.fit(digits, epochs=2)
    assert trainer.model.names == ["hidden1", "hidden3", "hidden2"]


def test_deepen_asks_the_budget_and_hits_its_wall(digits):
    limit = 64 * 8 + 8 + (8 * 8 + 8) + 8 * 10 + 10
    history = make([Deepen(every(1, "epoch") & within_budget(params=limit))]).fit(digits, epochs=3)
    assert len(history.changes) == 1 and history.changes[0]["cause"] == f"epoch 1, {limit:,} <= {limit:,} params"
    trainer = make([Deepen(every(1, "epoch"))], budget=Budget(parameters=limit))
    with pytest.raises(ValueError, match=r"deepen\(model, 'hidden2', None\) would need 754 parameters"):
        trainer.fit(digits, epochs=3)
    assert trainer.model.names == ["hidden1", "hidden2"]


def test_an_untrained_layer_may_move_outputs_since_it_says_so(digits):
    make([Deepen(every(1, "epoch"), init=untrained)]).fit(digits, epochs=1)
    assert repr(Deepen(every(1, "epoch"), init=untrained)) == "Deepen(every(1, 'epoch'), after=last, init=untrained)"
