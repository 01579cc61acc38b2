"""The trainer against a plain loop, and the laws of resuming."""

import copy
import os
import signal
from dataclasses import replace

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from growlib import (
    MLP,
    Budget,
    Callback,
    Checkpoint,
    ConvNet,
    Deepen,
    Evaluate,
    LRSchedule,
    Prune,
    ResNet,
    Split,
    Trainer,
    Widen,
    costs,
    deepen,
    every,
    load,
    narrower_than,
    north,
    prune,
    shallower_than,
    split,
    taylor,
    warmup_decay,
    widen,
)
from growlib.data import scenes
from growlib.trainer import derive_seed

EPOCH = -(-len(load("digits").train) // 128)  # steps


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def make(callbacks=(), hidden=(8,), optimizer=torch.optim.AdamW, **settings):
    torch.manual_seed(0)
    model = MLP(64, list(hidden), 10)
    return Trainer(model, optimizer(model.parameters(), lr=1e-2), callbacks, device="cpu", **settings)


def growing():
    """Callbacks that grow in the middle of an epoch and at its end, prune, and schedule the rate."""
    return [
        Widen(by=2, when=every(7, "steps") & narrower_than(20), init=split),
        LRSchedule(warmup_decay, warmup=1, decay=0.5, patience=2, floor=0.1),
        Widen(by=3, when=every(1, "epoch")),
        Prune(by=1, when=every(2, "epochs")),
    ]


def assert_same_run(one, other):
    assert one.history.losses == other.history.losses
    assert one.history.changes == other.history.changes
    for mine, theirs in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    for mine, theirs in zip(one.history.records, other.history.records, strict=True):
        assert {**mine, "seconds": 0} == {**theirs, "seconds": 0}


# ------------------------------------------------------------------------------------------------------- the loop


def test_where_every_pixel_has_a_label_accuracy_is_the_share_of_right_pixels():
    data = scenes(load("fashion_mini"), ["Trouser", "Bag"], n=30)
    torch.manual_seed(0)
    model = torch.nn.Conv2d(3, 3, 3, padding=1)
    trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0), batch_size=16, device="cpu")
    trainer.fit(data, epochs=1)  # nothing moves, so that the training accuracy can be recomputed
    for split_name, measured in (
        ("train", trainer.history.records[0]["train_accuracy"]),
        ("val", trainer.history.records[0]["val_accuracy"]),
        ("test", trainer.evaluate(data, "test")["accuracy"]),
    ):
        whole, right, count = getattr(data, split_name), 0, 0
        for number in range(len(whole)):
            inputs, labels = data.batch(split_name, torch.tensor([number]))
            for logits, label in zip(model(inputs)[0].flatten(1).T, labels.flatten(), strict=True):
                right, count = right + int(logits.argmax() == label), count + 1
        assert measured == pytest.approx(right / count, rel=1e-6) and 0 < measured < 1


def test_the_loop_is_a_plain_loop(digits):
    trainer = make(batch_size=100)
    plain = copy.deepcopy(trainer.model)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-2)
    trainer.fit(digits, epochs=2)
    losses = []
    for epoch in range(2):
        order = torch.randperm(len(digits.train), generator=torch.Generator().manual_seed(derive_seed(0, epoch)))
        for index in order.split(100):
            loss = cross_entropy(plain(digits.normalize(digits.train.images[index])), digits.train.labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    torch.testing.assert_close(torch.tensor(trainer.history.losses), torch.tensor(losses))
    logits = plain(digits.normalize(digits.val.images))
    record = trainer.history.records[-1]
    assert record["val_loss"] == pytest.approx(cross_entropy(logits, digits.val.labels).item(), rel=1e-4)
    accuracy = (logits.argmax(1) == digits.val.labels).double().mean().item()
    assert record["val_accuracy"] == pytest.approx(accuracy, abs=1e-2)
    assert (record["step"], record["epoch"], record["task"]) == (len(losses), 2, 0)


def test_another_seed_is_another_run(digits):
    """The negative control of every equality below."""
    assert make(seed=0).fit(digits, epochs=1).losses != make(seed=1).fit(digits, epochs=1).losses


def test_accumulated_gradients_are_those_of_one_large_batch(digits):
    whole = make(batch_size=96, clip=0.5).fit(digits, epochs=2)
    parts = make(batch_size=32, accumulate=3, clip=0.5).fit(digits, epochs=2)
    torch.testing.assert_close(torch.tensor(parts.losses), torch.tensor(whole.losses), rtol=1e-3, atol=1e-4)
    assert parts.records[-1]["step"] == whole.records[-1]["step"]


def test_clipping_limits_the_gradient(digits):
    class Norm(Callback):
        def before_step(self, trainer):
            self.weights = [parameter.detach().clone() for parameter in trainer.model.parameters()]

        def after_step(self, trainer):
            moved = [(p - w).square().sum() for p, w in zip(trainer.model.parameters(), self.weights, strict=True)]
            self.largest = max(getattr(self, "largest", 0), sum(moved).sqrt().item())

    norm = Norm()
    make([norm], optimizer=torch.optim.SGD, clip=0.1).fit(digits, epochs=1)
    assert norm.largest == pytest.approx(0.1 * 1e-2, rel=1e-2)
    make([free := Norm()], optimizer=torch.optim.SGD).fit(digits, epochs=1)
    assert free.largest > 2 * norm.largest


def test_events_run_in_order(digits):
    seen = []

    class Note(Callback):
        def __init__(self, name):
            self.name = name

    for event in ["before_fit", "before_task", "before_epoch", "before_step", "after_loss", "after_backward"]:
        setattr(Note, event, lambda self, trainer, event=event: seen.append(f"{self.name} {event}"))
    for event in ["after_step", "after_epoch", "after_task", "after_fit"]:
        setattr(Note, event, lambda self, trainer, event=event: seen.append(f"{self.name} {event}"))
    make([Note("a"), Note("b")], batch_size=2000).fit(digits, digits, epochs=1)
    task = ["before_task", "before_epoch", "before_step", "after_loss", "after_backward", "after_step", "after_epoch"]
    events = ["before_fit", *task, "after_task", *task, "after_task", "after_fit"]
    assert seen == [f"{name} {event}" for event in events for name in "ab"]


def test_a_callback_can_add_to_the_loss(digits):
    class Decay(Callback):
        def after_loss(self, trainer):
            trainer.batch_loss = trainer.batch_loss + 0.1 * trainer.model.output.weight.square().sum()

    decayed, plain = make([Decay()]), make()
    decayed.fit(digits, epochs=3), plain.fit(digits, epochs=3)
    assert decayed.model.output.weight.norm() < 0.8 * plain.model.output.weight.norm()


def test_several_data_sets_are_a_sequence_of_tasks(digits):
    history = make().fit(digits, digits, epochs=2)
    assert [(record["task"], record["epoch"]) for record in history.records] == [(0, 1), (0, 2), (1, 3), (1, 4)]


def test_the_ledger_counts_every_example_at_the_width_it_met(digits):
    trainer = make([Widen(by=8, when=every(1, "epoch"))])
    history = trainer.fit(digits, epochs=2)
    work = [len(digits.train) * (4 * 64 * width + 6 * width * 10) for width in (8, 16)]
    assert history.column("training_flops") == [work[0], sum(work)]
    assert [record["widths"]["hidden1"] for record in history.records] == [8, 16]


# --------------------------------------------------------------------------------------------------------- growth


def test_growth_in_the_middle_of_training_is_recorded_with_its_cause(digits):
    trainer = make([Widen(by=4, when=every(1, "epoch") & narrower_than(16))])
    history = trainer.fit(digits, epochs=3)
    causes = [change["cause"] for change in history.changes]
    assert causes == ["epoch 1, width 8 < 16", "epoch 2, width 12 < 16"]
    assert [(change["before"], change["after"]) for change in history.changes] == [(8, 12), (12, 16)]
    assert trainer.model.hidden[0].width == 16


def test_growth_after_the_last_epoch_stays_untrained(digits):
    trainer = make([Widen(by=4, when=every(1, "epoch"))])
    trainer.fit(digits, epochs=1)
    assert not trainer.model.output.weight[:, 8:].any()


def test_a_budget_is_a_wall_and_nothing_is_lost(digits):
    limit = Budget(parameters=64 * 14 + 14 + 14 * 10 + 10)
    trainer = make([Widen(by=4, when=every(1, "epoch"))], budget=limit)
    with pytest.raises(ValueError, match=r"widen\(model, 'hidden1', 4\) would need .* the budget is"):
        trainer.fit(digits, epochs=3)
    assert trainer.model.hidden[0].width == 12 and len(trainer.history.records) == 2
    assert 0 <= trainer.evaluate(digits)["accuracy"] <= 1
    with pytest.raises(ValueError, match="the budget is 10"):
        make(budget=Budget(parameters=10))


structural = st.one_of(
    st.builds(Widen, st.integers(1, 6), st.builds(every, st.integers(1, 3), st.just("steps")), init=st.just(split)),
    st.builds(Widen, st.integers(1, 6), st.builds(every, st.just(1), st.just("epoch"))),
    st.builds(Prune, st.integers(1, 3), st.builds(every, st.integers(1, 4), st.just("steps")), score=st.just(taylor)),
    st.builds(Deepen, st.builds(every, st.integers(2, 4), st.just("steps"))),
)


def few():
    """Three batches an epoch, small enough for many runs."""
    digits = load("digits")
    cut = {
        name: Split(whole.images[:90], whole.labels[:90])
        for name, whole in vars(digits).items()
        if isinstance(whole, Split)
    }
    return replace(digits, **cut)


def dearest(callbacks, model, limit):
    """The most that a model ever cost in a run, in shares of the budget; the run may end with the budget's error."""
    prices = []

    class Watch(Callback):
        def after_step(self, trainer):
            spent = costs.parameters(trainer.model), costs.flops(trainer.model)
            prices.extend(spent[kind] / most for kind, most in enumerate(vars(limit).values()) if most is not None)

        after_epoch = after_fit = before_step = after_step

    watched = [item for callback in callbacks for item in (Watch(), callback)]
    optimizer = torch.optim.Adam(model.parameters())
    trainer = Trainer(model, optimizer, [*watched, Watch()], budget=limit, batch_size=30, device="cpu")
    try:
        trainer.fit(few(), epochs=3)
    except ValueError as error:
        assert "the budget is" in str(error) or "cannot prune all" in str(error)
    Watch().after_step(trainer)
    return max(prices)


def small(kind):
    torch.manual_seed(0)
    return MLP(64, [5, 4], 10) if kind == "MLP" else ConvNet((1, 8, 8), [3, 2], [4], 10)


def limit_of(model, parameters, flops):
    """A budget of so many times what the model costs."""
    limits = (parameters, costs.parameters(model)), (flops, costs.flops(model))
    return Budget(*[None if share is None else int(share * cost) for share, cost in limits])


@pytest.mark.filterwarnings("ignore:growlib")  # small layers may have dead units
@given(
    callbacks=st.lists(structural, min_size=1, max_size=4),
    kind=st.sampled_from(["MLP", "ConvNet"]),
    shares=st.tuples(st.floats(1, 2), st.none()) | st.tuples(st.none() | st.floats(1, 2), st.floats(1, 2)),
)
@settings(max_examples=30, deadline=None, phases=[Phase.generate])
def test_no_sequence_of_callbacks_breaks_the_budget(callbacks, kind, shares):
    model = small(kind)
    assert dearest(callbacks, model, limit_of(model, *shares)) <= 1


def test_a_budget_that_does_not_refuse_is_broken(monkeypatch):
    """The negative control."""
    monkeypatch.setattr(Budget, "refuse", lambda budget, model, deed: None)
    for kind in ("MLP", "ConvNet"):
        model = small(kind)
        assert dearest([Widen(4, every(1, "epoch"))], model, limit_of(model, 1.2, None)) > 1
        model = small(kind)
        assert dearest([Widen(4, every(1, "epoch"))], model, limit_of(model, None, 1.2)) > 1
        model = small(kind)
        assert dearest([Deepen(every(2, "steps"))], model, limit_of(model, 1.2, None)) > 1


def test_a_budget_of_flops_needs_a_shape(digits):
    with pytest.raises(ValueError, match="Sequential has no input_shape"):
        Budget(flops=100).refuse(torch.nn.Sequential(torch.nn.Linear(2, 2)), "the model as it is")


# --------------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("stop_at", [1, 7, 12, 13, 20, 24, 30])
def test_resuming_anywhere_equals_not_having_stopped(digits, tmp_path, stop_at):
    class Save(Callback):
        def after_step(self, trainer):
            if trainer.step == stop_at:
                trainer.save(tmp_path / "run.pt")

    def callbacks():
        return [*growing()[:1], Save(), *growing()[1:]]  # saves before other callbacks of the same event run

    whole = make(callbacks())
    whole.fit(digits.augmented(shift=1), epochs=3)
    torch.manual_seed(123)  # another process would have another state
    resumed = Trainer.load(tmp_path / "run.pt", callbacks=callbacks(), device="cpu")
    assert resumed.step == stop_at
    resumed.fit(digits.augmented(shift=1), epochs=3)
    assert_same_run(whole, resumed)


@pytest.mark.parametrize("stop_at", [4, 7, 8, 11])
def test_resuming_gives_callbacks_the_batch_that_they_would_have_looked_at(digits, tmp_path, stop_at):
    """7 steps an epoch; the last batch of an epoch is smaller, and gradients accumulate."""

    class Save(Callback):
        def after_step(self, trainer):
            if trainer.step == stop_at:
                trainer.save(tmp_path / "run.pt")

    def callbacks():
        grow = Widen(by=3, when=every(4, "steps"), init=north)
        return [Save(), grow, Prune(by=2, when=every(1, "epoch") | every(8, "steps"), score=taylor)]

    whole = make(callbacks(), accumulate=2, batch_size=100)
    whole.fit(digits.augmented(shift=1), epochs=2)
    assert len({change["kind"] for change in whole.history.changes}) == 2
    resumed = Trainer.load(tmp_path / "run.pt", callbacks=callbacks(), device="cpu")
    resumed.fit(digits.augmented(shift=1), epochs=2)
    assert_same_run(whole, resumed)


def deepening():
    """Callbacks that add layers, and widen and prune them, in the middle of an epoch and at its end."""
    return [
        Deepen(when=every(5, "steps") & shallower_than(3), after="hidden1"),
        *growing(),
        Deepen(when=every(2, "epochs") & shallower_than(4)),
    ]


@pytest.mark.parametrize("stop_at", [4, 5, 12, 14, 26, 30])
def test_resuming_a_deepened_network_equals_not_having_stopped(digits, tmp_path, stop_at):
    class Save(Callback):
        def after_step(self, trainer):
            if trainer.step == stop_at:
                trainer.save(tmp_path / "run.pt")

    def callbacks():
        return [*deepening()[:2], Save(), *deepening()[2:]]

    whole = make(callbacks(), clip=1.0)
    whole.fit(digits, epochs=3)
    assert len(whole.model.hidden) == 4
    torch.manual_seed(123)
    resumed = Trainer.load(tmp_path / "run.pt", callbacks=callbacks(), device="cpu")
    assert resumed.step == stop_at
    resumed.fit(digits, epochs=3)
    assert_same_run(whole, resumed)


def test_a_convnet_and_a_resnet_are_restored_with_their_new_layers(tmp_path):
    shapes = load("shapes", n=300)
    for model in (ConvNet((3, 32, 32), [4, 4], [8], 10), ResNet((3, 32, 32), [4, 4], [1, 1], 10, stride=2)):
        trainer = Trainer(model, torch.optim.AdamW(model.parameters(), lr=1e-3), device="cpu")
        trainer.fit(shapes, epochs=1)
        for hidden in model.hidden:
            trainer.change(deepen, hidden)
        trainer.save(tmp_path / "run.pt")
        loaded = Trainer.load(tmp_path / "run.pt", device="cpu")
        assert loaded.model.config() == model.config()
        assert trainer.fit(shapes, epochs=1).losses == loaded.fit(shapes, epochs=1).losses


def test_resuming_from_the_checkpoint_of_an_epoch_too(digits, tmp_path):
    def callbacks():
        return [Evaluate("test"), Checkpoint(tmp_path), *growing()]

    whole = make(callbacks())
    whole.fit(digits, epochs=4)
    make(callbacks()).fit(digits, epochs=2)
    resumed = Trainer.load(tmp_path / "last.pt", callbacks=callbacks(), device="cpu")
    assert resumed.epoch == 2
    resumed.fit(digits, epochs=4)  # 2 of 4 are done
    assert_same_run(whole, resumed)


def test_a_run_that_forgets_the_random_state_is_another_run(digits, tmp_path):
    """The negative control of resuming: without the generator's state, the new units differ."""
    trainer = make(growing())
    trainer.fit(digits, epochs=1)
    trainer.save(tmp_path / "run.pt")
    whole = make(growing()).fit(digits, epochs=3).losses
    runs = []
    for forget in (False, True):
        resumed = Trainer.load(tmp_path / "run.pt", callbacks=growing(), device="cpu")
        if forget:
            torch.manual_seed(99)
        runs.append(resumed.fit(digits, epochs=2).losses)
    assert whole == runs[0] != runs[1]


def test_two_fits_are_one_longer_fit(digits):
    once = make(growing())
    once.fit(digits, epochs=4)
    twice = make(growing())
    twice.fit(digits, epochs=2), twice.fit(digits, epochs=2)
    assert_same_run(once, twice)


def test_a_loaded_trainer_needs_no_model_and_predicts_the_same(digits, tmp_path):
    trainer = make(growing(), hidden=(8, 6))
    trainer.fit(digits, epochs=2)
    trainer.save(tmp_path / "run.pt")
    loaded = Trainer.load(tmp_path / "run.pt", callbacks=growing(), device="cpu")
    assert isinstance(loaded.model, MLP) and isinstance(loaded.optimizer, torch.optim.AdamW)
    images = digits.test.images[:50]
    assert torch.equal(loaded.predict(images), trainer.predict(images))


def test_a_grown_convnet_and_parameter_groups_are_restored(tmp_path):
    shapes = load("shapes", n=600)
    torch.manual_seed(0)
    model = ConvNet((3, 32, 32), [4, 4], [8], 10)
    groups = [{"params": model.output.parameters(), "lr": 0.1}]
    groups += [{"params": [p for n, p in model.named_parameters() if not n.startswith("output")]}]
    trainer = Trainer(model, torch.optim.SGD(groups, lr=0.01, momentum=0.9), device="cpu")
    trainer.fit(shapes, epochs=1)
    trainer.change(widen, "conv2", 3)
    trainer.save(tmp_path / "run.pt")
    loaded = Trainer.load(tmp_path / "run.pt", device="cpu")
    assert loaded.model.conv2.out_channels == 7
    assert [group["lr"] for group in loaded.optimizer.param_groups] == [0.1, 0.01]
    assert trainer.fit(shapes, epochs=1).losses == loaded.fit(shapes, epochs=1).losses


class Doubling(torch.nn.Module):
    """A model that growlib.models does not have."""

    def __init__(self, width):
        super().__init__()
        self.inner = MLP(64, [width], 10)
        self.hidden = self.inner.hidden
        self.input_shape = (64,)

    def forward(self, images):
        return 2 * self.inner(images)


def test_another_model_is_passed_fresh_and_resized(digits, tmp_path):
    torch.manual_seed(0)
    model = Doubling(8)
    trainer = Trainer(model, torch.optim.Adam(model.parameters()), device="cpu")
    trainer.fit(digits, epochs=1)
    trainer.change(widen, "hidden1", 5)
    trainer.save(tmp_path / "run.pt")
    with pytest.raises(ValueError, match="pass a fresh one"):
        Trainer.load(tmp_path / "run.pt")
    loaded = Trainer.load(tmp_path / "run.pt", model=Doubling(8), device="cpu")
    assert torch.equal(loaded.predict(digits.val.images), trainer.predict(digits.val.images))


# ---------------------------------------------------------------------------------------- things that go wrong


def test_a_loss_that_is_not_finite_stops_at_the_last_good_state(digits):
    class Break(Callback):
        def before_step(self, trainer):
            if trainer.step == EPOCH + 3:
                with torch.no_grad():
                    trainer.model.output.weight.fill_(float("inf"))

    clean = make([Widen(by=4, when=every(1, "epoch"))]).fit(digits, epochs=2)
    trainer = make([Widen(by=4, when=every(1, "epoch")), Break()])
    with pytest.raises(FloatingPointError, match=f"the loss is nan at step {EPOCH + 3} .* back at step {EPOCH}"):
        trainer.fit(digits, epochs=2)
    assert trainer.step == EPOCH == len(trainer.history.losses) and trainer.model.hidden[0].width == 12
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())
    trainer.callbacks.pop()
    assert trainer.fit(digits, epochs=2).losses == clean.losses


@pytest.mark.parametrize("build", [MLP, ResNet])
def test_a_layer_that_came_after_the_last_good_state_goes_with_it(digits, build):
    class Break(Callback):
        def before_step(self, trainer):
            if trainer.step == EPOCH + 6:
                with torch.no_grad():
                    trainer.model.output.weight.fill_(float("inf"))

    def run(*more):
        torch.manual_seed(0)
        model = MLP(64, [8], 10) if build is MLP else ResNet((1, 8, 8), [3], [1], 10)
        grow = Deepen(when=every(EPOCH + 4, "steps") | every(EPOCH - 2, "steps"))
        return Trainer(model, torch.optim.Adam(model.parameters()), [grow, *more], device="cpu")

    clean = run()
    clean.fit(digits, epochs=2)
    trainer = run(Break())
    before = len(trainer.model.hidden)
    with pytest.raises(FloatingPointError, match=f"back at step {EPOCH}"):
        trainer.fit(digits, epochs=2)
    assert len(trainer.model.hidden) == before + 1 and trainer.step == EPOCH
    trainer.callbacks.pop()
    trainer.fit(digits, epochs=2)
    assert_same_run(trainer, clean)


def test_ctrl_c_waits_for_the_step_and_the_run_can_go_on(digits):
    class Interrupt(Callback):
        def after_backward(self, trainer):
            if trainer.step == 15:
                os.kill(os.getpid(), signal.SIGINT)

    trainer = make([*growing(), Interrupt()])
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(digits, epochs=3)
    assert trainer.step == 16 == len(trainer.history.losses)
    trainer.callbacks.pop()
    trainer.fit(digits, epochs=3)
    whole = make(growing())
    whole.fit(digits, epochs=3)
    assert_same_run(trainer, whole)


def test_bad_input_is_refused_with_the_values(digits):
    trainer = make()
    with pytest.raises(ValueError, match="whole number of epochs"):
        trainer.fit(digits, epochs=0)
    with pytest.raises(ValueError, match="whole number of epochs"):
        trainer.fit(epochs=1)
    with pytest.raises(ValueError, match="does not take spirals, of shape .*takes 64 values an example, and got 2"):
        trainer.fit(load("spirals"), epochs=1)
    model = MLP(64, [4], 7)
    with pytest.raises(ValueError, match=r"labels of digits \(train\) reach from 0 to 9, and the model has 7 outputs"):
        Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), device="cpu").fit(digits, epochs=1)
    with pytest.raises(ValueError, match="batch_size must be a whole number"):
        make(batch_size=0)
    with pytest.raises(ValueError, match="seen no data"):
        make().predict(digits.val.images)
    assert trainer.step == 0 and trainer.history.records == []


def test_growth_that_the_optimizer_never_heard_of_is_refused(digits):
    trainer = make()
    widen(trainer.model, "hidden1", 2)  # without optimizer=
    with pytest.raises(ValueError, match=r"holds 3 tensors .* lacks: hidden1.weight, hidden1.bias, output.weight\)"):
        trainer.fit(digits, epochs=1)
    assert trainer.step == 0
    trainer = make()
    widen(trainer.model, "hidden1", 2, optimizer=trainer.optimizer)
    trainer.fit(digits, epochs=1)


def test_saving_in_the_middle_of_a_step_is_refused(digits, tmp_path):
    class Save(Callback):
        def after_backward(self, trainer):
            trainer.save(tmp_path / "run.pt")

    with pytest.raises(RuntimeError, match="can't be taken in after_backward"):
        make([Save()]).fit(digits, epochs=1)


def test_pruning_in_training_goes_through_the_trainer_too(digits):
    trainer = make()
    trainer.fit(digits, epochs=1)
    change = trainer.change(prune, "hidden1", [0, 1], cause="by hand")
    assert (change.step, change.cause, trainer.history.changes[-1]["kind"]) == (EPOCH, "by hand", "prune")
