"""Tasks that end early, in one fit or in several: every method does what it does when a task ends by itself."""

from itertools import pairwise

import pytest
import torch
from tasks import Heads, halves, make, same
from torch.optim import Adam

from growlib import Callback, EarlyStopping, TaskNet, Trainer, every, load, new_task, split_by_class
from growlib.continual import (
    AGEM,
    EWC,
    GEM,
    SI,
    Accuracies,
    LwF,
    NeuronGenesis,
    PackNet,
    Replay,
    accuracy_matrix,
    retention_certificate,
    retention_snapshot,
)

METHODS = {
    "EWC": lambda: EWC(10.0, examples=20),
    "SI": lambda: SI(1.0),
    "GEM": lambda: GEM(20),
    "AGEM": lambda: AGEM(20),
    "Replay": lambda: Replay(20),
    "LwF": lambda: LwF(1.0),
    "PackNet": lambda: PackNet(0.3, train=0.1),  # which is pruned in the first epoch of few
}
ENDS = [2, 1, 3]


@pytest.fixture(scope="module")
def tasks():
    return split_by_class(load("digits"), 5)[:3]


class StopAt(Callback):
    """Ends every task after its own number of epochs."""

    def __init__(self, **ends):
        self.ends, self.done = ends, 0

    def before_task(self, trainer):
        self.done = 0

    def after_epoch(self, trainer):
        self.done += 1
        if self.done == self.ends[trainer.data.name.replace("-", "")]:
            trainer.stop_task(f"after {self.done} epochs")

    remembers = ("done",)


def stop(tasks):
    return StopAt(**{data.name.replace("-", ""): end for data, end in zip(tasks, ENDS, strict=True)})


def trained(tasks, callbacks, epochs=3, together=True):
    torch.manual_seed(0)
    names = [data.name for data in tasks]
    trainer = make(callbacks, tasks, model=Heads(names, classes=2))
    for stream in [tasks] if together else [[data] for data in tasks]:
        trainer.fit(*stream, epochs=epochs[: len(stream)] if isinstance(epochs, list) else epochs)
        epochs = epochs[len(stream) :] if isinstance(epochs, list) else epochs
    return trainer


def equal(one, other):
    """Whether two states hold the same."""
    if torch.is_tensor(one):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("name", [name for name in METHODS if name != "PackNet"])
def test_a_task_that_was_ended_is_a_task_that_ended(tasks, name, together):
    early = trained(tasks, [METHODS[name](), stop(tasks)], 4, together)
    wanted = trained(tasks, [METHODS[name]()], ENDS)
    assert same(early, wanted) and len(early.history.records) == sum(ENDS)
    states = [trainer.callbacks[0].state_dict() for trainer in (early, wanted)]
    assert equal(*states) and not equal(states[0], METHODS[name]().state_dict())
    assert early.history.starts == wanted.history.starts and len(early.history.starts) == 3


@pytest.mark.parametrize("name", METHODS)
def test_a_pending_end_survives_a_checkpoint(tasks, name, tmp_path):
    class SavePending(Callback):
        """Writes a checkpoint where the second task is about to end."""

        def after_epoch(self, trainer):
            if trainer.progress.task == 1 and trainer.progress.ending:
                trainer.save(tmp_path / "pending.pt")

    def callbacks():
        return [METHODS[name](), stop(tasks), SavePending()]

    whole = trained(tasks, callbacks())
    torch.manual_seed(1)
    model = Heads([data.name for data in tasks], classes=2)
    parted = Trainer.load(tmp_path / "pending.pt", model, callbacks(), device="cpu")
    assert parted.progress.ending == "after 1 epochs" and parted.epoch == 3
    parted.fit(*tasks, epochs=3)
    assert same(whole, parted)
    assert equal(*(trainer.callbacks[0].state_dict() for trainer in (whole, parted)))


def test_a_run_that_was_stopped_has_ended_no_task(tasks):
    """The negative control: the other word."""

    class StopRun(Callback):
        def after_epoch(self, trainer):
            trainer.stop_run("for the test")

    trainer = trained(tasks, [EWC(10.0, examples=20), Replay(20), StopRun()])
    assert trainer.callbacks[0].tasks == 0 and trainer.callbacks[1].size == 0 and trainer.epoch == 1


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_patience_is_fresh_in_every_task(tasks, name, together):
    class Still(Callback):
        """No gradient, so no loss falls."""

        def after_backward(self, trainer):
            trainer.optimizer.zero_grad()

    stopping = EarlyStopping("val_loss", patience=2)
    trainer = trained(tasks, [Still(), METHODS[name](), stopping, Accuracies(*tasks, split="val")], 6, together)
    starts = [*trainer.history.starts, trainer.step + 1]
    steps = [record["step"] for record in trainer.history.records if "epoch" in record]
    found = [sum(first < step <= last for step in steps) for first, last in pairwise(starts)]
    assert len(found) == 3 and min(found) >= 3 and max(found) < 6
    assert accuracy_matrix(trainer.history, "val").shape == (3, 3)
    assert trainer.stopped is None or trainer.stopped.startswith("val_loss no better than")


# ------------------------------------------------------------------------------------------------- NeuronGenesis


def grown(tasks, callbacks, epochs, together=True):
    torch.manual_seed(0)
    model = TaskNet(tasks[0].shape, tasks[0].name, len(tasks[0].classes), hidden=[4])
    trainer = Trainer(model, Adam(model.parameters(), 0.01), callbacks, device="cpu", batch_size=32)
    for stream in [tasks] if together else [[data] for data in tasks]:
        trainer.fit(*stream, epochs=epochs)
    return trainer


@pytest.mark.parametrize("together", [True, False])
def test_neurogenesis_closes_what_was_ended(tasks, together):
    class Keep(Callback):
        def after_task(self, trainer):
            if trainer.data is tasks[0]:
                self.then = retention_snapshot(trainer.model, tasks[0])

    keep = Keep()
    early = grown(tasks, [NeuronGenesis(hidden=3), stop(tasks), keep], 4, together)
    wanted = grown(tasks, [NeuronGenesis(hidden=3)], ENDS)
    assert same(early, wanted) and early.history.changes == wanted.history.changes
    assert early.model.tasks == [data.name for data in tasks] and early.model.closed == set(early.model.tasks[:2])
    found = retention_certificate(keep.then, retention_snapshot(early.model, tasks[0]))
    assert found["exact"]


def test_neurogenesis_grows_nothing_that_a_task_about_to_end_would_not_train(tasks):
    def changes(*callbacks):
        history = grown(tasks[:1], callbacks, 4).history
        return [change["epoch"] for change in history.changes]

    grow = NeuronGenesis(hidden=3, when=new_task() | every(1, "epoch"))
    assert changes(grow) == [1, 2, 3]
    assert changes(StopAt(**{tasks[0].name.replace("-", ""): 2}), grow) == [1]


# --------------------------------------------------------------------------------------------- one example alone


@pytest.mark.parametrize("kind", [Replay, AGEM])
def test_a_draw_of_one_example_is_normalised_with_another(kind):
    data = halves(load("digits"), 100)
    model = Heads([one.name for one in data], norm=True)
    trainer = make([kind(10)], data, model=model)
    trainer.fit(*data, epochs=1)
    memory = trainer.callbacks[0]
    model.train()
    for _ in range(10):
        assert memory.remembered(trainer, 1).isfinite()
    name, kept = next(iter(memory.kept.items()))
    inputs, labels = kept.batch("train", torch.arange(1))
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):  # the negative control
        trainer.loss(model(inputs, name), labels)
    wanted = set()
    for name, kept in memory.kept.items():
        for one in range(len(kept.train)):
            inputs, labels = kept.batch("train", torch.tensor([one, (one + 1) % len(kept.train)]))
            wanted.add(round(float(trainer.loss(model(inputs, name), labels)), 5))
    assert {round(float(memory.remembered(trainer, 1)), 5) for _ in range(20)} <= wanted


@pytest.mark.parametrize("kind", [Replay, AGEM, GEM])
def test_a_memory_of_one_example_a_task_says_what_to_do(kind):
    data = halves(load("digits"), 100)
    names = [one.name for one in data]
    with pytest.raises(ValueError, match="one example of task 'digits-[12]' in the memory, .*remember more"):
        make([kind(2)], data, model=Heads(names, norm=True)).fit(*data, data[0], epochs=1)
    make([kind(2)], data, model=Heads(names)).fit(*data, data[0], epochs=1)  # without it one is enough


def test_a_memory_that_is_too_small_says_so_before_the_task_is_trained():
    data = halves(load("digits"), 100)
    trainer = make([Replay(1)], data)
    with pytest.raises(ValueError, match="a memory of 1 examples cannot be shared among 2 tasks"):
        trainer.fit(*data, epochs=1)
    assert trainer.epoch == 1


def test_agem_draws_as_many_as_the_whole_step_has():
    class Counting(AGEM):
        def remembered(self, trainer, count):
            counts.append(count)
            return super().remembered(trainer, count)

    data, counts = halves(load("digits"), 64), []
    for accumulate in (1, 2):
        make([Counting(10)], data, accumulate=accumulate).fit(*data, epochs=1)
    assert counts == [32, 32, 64]


def test_gem_passes_over_tasks_of_which_all_is_frozen(tasks):
    for method in (GEM, AGEM):
        early = grown(tasks[:2], [NeuronGenesis(hidden=3), method(20)], 1)
        assert early.model.closed == {tasks[0].name} and early.epoch == 2
