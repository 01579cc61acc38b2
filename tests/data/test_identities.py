"""One name, one task: other data of a name that is known are refused, wherever tasks are kept apart by it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tasks import Heads, make

from growlib import (
    AGEM,
    GEM,
    MLP,
    Accuracies,
    Callback,
    Certify,
    Joint,
    NeuronGenesis,
    Replay,
    TaskNet,
    Trainer,
    load,
    permuted,
    relabelled,
    results,
    retention_snapshot,
    split_by_class,
)
from growlib.continual import Distill, Prototypes, accuracy_without_task
from growlib.data import Split, identity, refuse_namesakes


def points(path, seed):
    """A file of two classes on the line, whose place depends on the seed."""
    random = np.random.default_rng(seed)
    arrays = {"classes": np.array(["left", "right"])}
    for split, size in (("train", 120), ("test", 40)):
        labels = np.arange(size) % 2
        images = random.normal(size=(size, 4)) + (2 * labels - 1)[:, None] * random.normal(size=4)
        arrays |= {f"{split}_images": images.astype(np.float32), f"{split}_labels": labels}
    path.parent.mkdir(parents=True)
    np.savez(path, **arrays)
    return path


@pytest.fixture
def paths(tmp_path):
    return [points(tmp_path / folder / "data.npz", seed) for seed, folder in enumerate("AB")]


@pytest.fixture
def namesakes(paths):
    return [load(path) for path in paths]


@pytest.fixture
def named(paths):
    return [load(path, name=name) for path, name in zip(paths, ("first", "second"), strict=True)]


CLASH = r"tasks are told apart by it.*load\(source, name='second'\)"


def plain(callbacks=()):
    torch.manual_seed(0)
    model = MLP(4, [8], 2)
    return Trainer(model, torch.optim.Adam(model.parameters(), lr=0.01), callbacks, device="cpu")


def growing(task):
    torch.manual_seed(0)
    model = TaskNet((4,), task, 2, hidden=[6])
    return Trainer(model, torch.optim.Adam(model.parameters(), lr=0.01), [NeuronGenesis(hidden=6)], device="cpu")


def test_a_name_is_chosen_when_data_are_loaded(paths):
    first, second = load(paths[0]), load(paths[0], name="second")
    assert (first.name, second.name) == ("data", "second") and second.provenance["name"] == "second"
    assert torch.equal(first.train.images, second.train.images)
    assert split_by_class(load("digits", name="numbers"), 2)[1].name == "numbers-2"
    assert load("parity", bits=6, name="even").name == "even"
    for bad in ("", " ", 3):
        with pytest.raises(ValueError, match="must be a text"):
            load("digits", name=bad)
    with pytest.raises(TypeError):
        load(source="digits")


def test_the_identity_is_that_of_the_examples_whatever_else(paths):
    data = load(paths[0])
    same = [load(paths[0]), data.augmented(), replace(data, name="other"), load(paths[0], name="second")]
    assert all(identity(one) == identity(data) for one in same)
    other = [load(paths[1]), load(paths[0], seed=1), load(paths[0], validation=0.2)]
    other += [replace(data, train=Split(data.train.images + 1, data.train.labels))]
    other += [replace(data, train=Split(data.train.images, 1 - data.train.labels))]
    other += [replace(data, val=data.test)]
    assert all(identity(one) != identity(data) for one in other)
    assert identity(replace(data, test=data.val)) == identity(data)  # nothing is learned from it


def test_streams_of_other_seeds_are_other_tasks_under_the_same_names():
    data = load("digits")
    for make_stream in (permuted, relabelled):
        first, second = make_stream(data, 2, seed=0), make_stream(data, 2, seed=1)
        refuse_namesakes(*first, *make_stream(data, 2, seed=0))
        with pytest.raises(ValueError, match=CLASH):
            refuse_namesakes(*first, *second)


@pytest.mark.parametrize("start", [lambda: plain(), lambda: plain([GEM(10)]), lambda: growing("data")])
def test_two_data_sets_of_one_name_are_no_stream(namesakes, start):
    trainer = start()
    before = [parameter.clone() for parameter in trainer.model.parameters()]
    with pytest.raises(ValueError, match=f"'data' is the name of a task with other train and val examples.*{CLASH}"):
        trainer.fit(*namesakes, epochs=1)
    assert all(map(torch.equal, before, trainer.model.parameters())) and trainer.step == 0


@pytest.mark.parametrize("start", [lambda: plain(), lambda: plain([Replay(10)]), lambda: plain([AGEM(10)])])
def test_nor_are_they_in_two_calls_of_fit(namesakes, start):
    trainer = start()
    trainer.fit(namesakes[0], epochs=1)
    trainer.fit(namesakes[0], epochs=1)  # the negative control
    with pytest.raises(ValueError, match=CLASH):
        trainer.fit(namesakes[1], epochs=1)


def test_with_names_of_their_own_the_old_task_is_kept(named):
    trainer = growing("first")
    trainer.fit(named[0], epochs=3)
    before = trainer.evaluate(named[0])
    trainer.fit(named[1], epochs=3)
    assert trainer.model.tasks == ["first", "second"] and trainer.evaluate(named[0]) == before


def test_a_model_knows_its_tasks_in_another_trainer_too(namesakes):
    model = TaskNet((4,), "data", 2, hidden=[6])
    Trainer(model, torch.optim.Adam(model.parameters()), device="cpu").fit(namesakes[0], epochs=1)
    again = Trainer(model, torch.optim.Adam(model.parameters()), device="cpu")
    with pytest.raises(ValueError, match=CLASH):
        again.fit(namesakes[1], epochs=1)
    again.fit(namesakes[0], epochs=1)


def test_data_that_were_refused_are_not_remembered(namesakes):
    trainer = plain()
    with pytest.raises(ValueError, match=CLASH):
        trainer.fit(*namesakes, epochs=1)
    trainer.fit(namesakes[1], epochs=1)


def test_a_resumed_run_notices_another_split(paths, tmp_path):
    data = load(paths[0])
    trainer = plain()
    trainer.fit(data, epochs=1)
    trainer.save(tmp_path / "run.pt")
    for other in (load(paths[0], seed=1), load(paths[0], validation=0.2), load(paths[1])):
        with pytest.raises(ValueError, match=r"other train and val examples.*the same\s+seed and validation"):
            Trainer.load(tmp_path / "run.pt", device="cpu").fit(other, epochs=2)
    resumed = Trainer.load(tmp_path / "run.pt", device="cpu")
    resumed.fit(load(paths[0]), epochs=1)  # the negative control: loaded anew, as it was
    trainer.fit(data, epochs=1)
    assert resumed.history.losses == trainer.history.losses


def test_a_run_that_is_cut_in_the_middle_of_a_task_notices_too(paths, tmp_path):
    class Halt(Callback):
        def after_step(self, trainer):
            if trainer.step == 2:
                trainer.stop_run("enough")

    torch.manual_seed(0)
    model = MLP(4, [8], 2)
    trainer = Trainer(model, torch.optim.Adam(model.parameters()), [Halt()], device="cpu", batch_size=16)
    trainer.fit(load(paths[0]), epochs=1)
    trainer.save(tmp_path / "run.pt")
    with pytest.raises(ValueError, match=CLASH):
        Trainer.load(tmp_path / "run.pt", callbacks=[Halt()], device="cpu").fit(load(paths[0], seed=1), epochs=1)
    assert Trainer.load(tmp_path / "run.pt", callbacks=[Halt()], device="cpu").fit(load(paths[0]), epochs=1).records


def test_a_memory_that_moves_to_another_trainer_knows_its_tasks(namesakes, named):
    for kind in (Replay, GEM, AGEM):
        memory = kind(10)
        plain([memory]).fit(namesakes[0], epochs=1)
        with pytest.raises(ValueError, match="memory holds examples of another task that is called 'data'"):
            plain([memory]).fit(namesakes[1], epochs=1)
        plain([memory]).fit(named[1], epochs=1)


@pytest.mark.parametrize("callback", [Accuracies, Joint, Certify])
def test_what_looks_at_data_beside_the_stream_takes_no_namesakes(namesakes, callback):
    tasks = Heads(["data"], inputs=4, classes=2)
    with pytest.raises(ValueError, match=CLASH):
        make([callback(namesakes[1])], namesakes[:1], model=tasks).fit(namesakes[0], epochs=1)


def test_nor_do_the_instruments(namesakes):
    model = TaskNet((4,), "data", 2, hidden=[6])
    with pytest.raises(ValueError, match="Accuracies needs data sets of different names.*name='second'"):
        Accuracies(*namesakes)
    for act in (
        lambda: Certify(*namesakes),
        lambda: retention_snapshot(model, *namesakes),
        lambda: Prototypes(model, *namesakes),
        lambda: accuracy_without_task(model, *namesakes),
        lambda: results._records.named(namesakes, "20_x", "quick"),
    ):
        with pytest.raises(ValueError, match=CLASH):
            act()
    assert list(results._records.named([namesakes[0]] * 2, "20_x", "quick")) == ["data"]


def test_a_teacher_of_another_task_of_that_name_is_no_teacher(namesakes):
    teacher = TaskNet((4,), "data", 2, hidden=[6])
    Trainer(teacher, torch.optim.Adam(teacher.parameters()), device="cpu").fit(namesakes[0], epochs=1)
    student = TaskNet((4,), "data", 2, hidden=[3])
    trainer = Trainer(student, torch.optim.Adam(student.parameters()), [Distill(teacher)], device="cpu")
    with pytest.raises(ValueError, match=CLASH):
        trainer.fit(namesakes[1], epochs=1)
