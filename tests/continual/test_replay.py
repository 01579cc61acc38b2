"""Replay: who is remembered, what the batch costs, and what it holds."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tasks import cut_in_two, halves, make, same
from torch.nn.functional import cross_entropy

from growlib import MLP, load
from growlib.continual import Replay
from growlib.continual.memory import balanced


@pytest.fixture(scope="module")
def tasks():
    return halves(load("digits"), 100)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 100))
def test_every_beginning_is_balanced(labels, seed):
    labels = torch.tensor(labels)
    order = balanced(labels, torch.Generator().manual_seed(seed))
    assert sorted(order.tolist()) == list(range(len(labels)))
    available = labels.bincount(minlength=5)
    for size in range(len(labels) + 1):
        counts = labels[order[:size]].bincount(minlength=5)
        short = counts < available  # classes of which more could have been taken
        assert not short.any() or counts.max() - counts[short].min() <= 1


def test_an_order_by_lot_alone_is_not_balanced():
    labels = torch.tensor([0] * 90 + [1] * 10)
    assert labels[torch.randperm(100, generator=torch.Generator().manual_seed(0))[:20]].sum() < 10
    assert labels[balanced(labels, torch.Generator().manual_seed(0))[:20]].sum() == 10


def row_of(images, image):
    return (images == image).flatten(1).all(1).nonzero()[:, 0]


def test_tasks_share_the_memory_and_keep_bytes(tasks):
    replay = Replay(41)
    trainer = make([replay], tasks)
    trainer.fit(tasks[0], epochs=1)
    first = replay.kept[tasks[0].name].train.images
    assert replay.size == 41 and first.dtype == torch.uint8
    trainer.fit(tasks[1], epochs=1)
    one, two = (replay.kept[data.name] for data in tasks)
    assert [len(one.train), len(two.train)] == [21, 20] and replay.size == 41
    assert torch.equal(one.train.images, first[:21])  # nothing of the past is looked up again
    for data, kept in zip(tasks, (one, two), strict=True):
        counts = kept.train.labels.bincount(minlength=5)
        assert counts.min() == 4 and counts.max() <= 5
        for image, label in zip(kept.train.images, kept.train.labels, strict=True):
            assert label in data.train.labels[row_of(data.train.images, image)]
        assert torch.equal(kept.batch("train", torch.arange(2))[0], data.normalize(kept.train.images[:2]))
        assert "21 train" in repr(kept) or "20 train" in repr(kept)


def test_the_loss_is_a_mean_over_the_memory_drawn(tasks):
    replay = Replay(20, weight=0.5)
    trainer = make([replay], tasks, model=None)
    trainer.fit(*tasks, epochs=1)
    trainer.inputs = torch.zeros(64, 1)  # more than there are: all of the memory is drawn
    total = 0.0
    for data in tasks:
        kept = replay.kept[data.name]
        for x, label in zip(data.normalize(kept.train.images), kept.train.labels, strict=True):
            total = total + cross_entropy(trainer.model(x[None], data.name), label[None]) / 20
    torch.testing.assert_close(replay.remembered(trainer, 64), total)
    before = trainer.batch_loss = torch.tensor(1.0)
    replay.after_loss(trainer)
    torch.testing.assert_close(trainer.batch_loss, before + 0.5 * total)
    assert len({float(replay.remembered(trainer, 8).detach()) for _ in range(5)}) == 5  # another draw every time


def test_augmented_data_are_augmented_again(tasks):
    shifted = [data.augmented(shift=2) for data in tasks]
    replay = Replay(20)
    trainer = make([replay], shifted)
    trainer.fit(shifted[0], epochs=1)
    trainer.inputs = torch.zeros(64, 1)
    assert len({float(replay.remembered(trainer, 64).detach()) for _ in range(5)}) == 5
    plain = Replay(20)
    trainer = make([plain], tasks)
    trainer.fit(tasks[0], epochs=1)
    trainer.inputs = torch.zeros(64, 1)
    found = [float(plain.remembered(trainer, 64).detach()) for _ in range(5)]
    assert max(found) - min(found) < 1e-6  # only the order differs


@pytest.mark.parametrize("build", [lambda: None, lambda: MLP(64, [12], 5)])
def test_it_holds_what_was_learned(tasks, build):
    found = {}
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        trainer = make([Replay(50, weight)], tasks, model=build())
        trainer.fit(*tasks, epochs=8)
        inputs, labels = tasks[0].batch("train", torch.arange(100))
        head = (tasks[0].name,) if hasattr(trainer.model, "tasks") else ()
        found[weight] = (trainer.model(inputs, *head).argmax(1) == labels).float().mean()
    assert found[1.0] > found[0.0] + 0.1


def test_a_resumed_run_is_the_run(tasks, tmp_path):
    shifted = [data.augmented(shift=1) for data in tasks]
    whole, parted = cut_in_two(tmp_path / "file.pt", lambda: [Replay(30)], shifted, 8 + 3)
    assert same(whole, parted)
    forgetful = type("Replay", (Replay,), {"state_dict": lambda self: super(Replay, self).state_dict() | FRESH})
    whole, parted = cut_in_two(tmp_path / "other.pt", lambda: [forgetful(30)], shifted, 8 + 3)
    assert not same(whole, parted)


FRESH = {"kept": {}, "draws": 0}


def test_bad_settings_are_refused(tasks):
    for settings in ((0,), (2.5,)):
        with pytest.raises(ValueError, match="a whole number of at least 1"):
            Replay(*settings)
    with pytest.raises(ValueError, match="a number from 0 on"):
        Replay(10, -1.0)
    with pytest.raises(ValueError, match="a memory of 1 examples cannot be shared among 2 tasks"):
        make([Replay(1)], tasks).fit(*tasks, epochs=1)
