"""The recipe of CIFAR-10 on a device: all that it makes is there, and a resumed run is the same run."""

import pytest
import torch
from devices import DEVICE, SaveAt, all_there, digits, few, tensors_of
from torch.optim import SGD

from growlib import (
    Average,
    Evaluate,
    Freeze,
    Lookahead,
    LRSchedule,
    NeuronGenesis,
    SpeedNet,
    TaskSpeedNet,
    Trainer,
    Whiten,
    Widen,
    averaged,
    cropped,
    every,
    load,
    mirrored,
    norm_biases_apart,
    retention_certificate,
    retention_snapshot,
    split_by_class,
    triangle,
)

pytestmark = pytest.mark.gpu


def stem(*callbacks):
    return [*callbacks, Whiten(examples=60), Freeze("stem*bias", after=1), LRSchedule(triangle, per="step")]


def trainer_of(model, callbacks):
    groups = norm_biases_apart(model, lr=0.1, factor=8)
    optimizer = SGD(groups, momentum=0.85, nesterov=True)
    return Trainer(model, optimizer, callbacks, batch_size=32, device=DEVICE)


def moved(data):
    return data.augmented(shift=1, border="reflect", flip="alternating", cutout=2)


def grown(kind, *callbacks):
    torch.manual_seed(0)
    widening = Widen(by=2, when=every(2, "steps"))
    return trainer_of(
        SpeedNet((1, 8, 8), [3, 4], 10), [*stem(), widening, kind, Evaluate("test", mirrored, cropped), *callbacks]
    )


def test_what_the_recipe_makes_is_on_the_device():
    trainer = grown(Average(kept=0.5, every=2))
    record = trainer.fit(moved(digits()), epochs=2).records[-1]
    assert all_there(trainer.model, trainer.optimizer)
    assert {"val_loss_averaged", "test_accuracy_mirrored", "test_accuracy_cropped"} <= set(record)
    with averaged(trainer) as model:
        assert all(tensor.isfinite().all() for tensor in tensors_of(model))


def test_a_resumed_run_is_the_same_run(tmp_path):
    whole = grown(Lookahead(every=2), SaveAt(tmp_path / "run.pt", 4))
    whole.fit(moved(digits()), epochs=2)
    parted = grown(Lookahead(every=2), SaveAt(tmp_path / "other.pt", 0)).resume(tmp_path / "run.pt")
    parted.fit(moved(digits()), epochs=2)
    torch.testing.assert_close(parted.history.losses, whole.history.losses, rtol=1e-3, atol=1e-4)


def test_tasks_with_stems_of_their_own_are_retained():
    torch.manual_seed(0)
    first, second = (moved(few(task)) for task in split_by_class(load("digits"), 2))
    model = TaskSpeedNet((1, 8, 8), first.name, len(first.classes), [3, 3])
    trainer = trainer_of(model, [*stem(NeuronGenesis(channels=2, hidden=0)), Lookahead()])
    trainer.fit(first, epochs=2)
    before = retention_snapshot(trainer.model, first)
    trainer.fit(second, epochs=2)
    assert retention_certificate(before, retention_snapshot(trainer.model, first))["exact"]
    assert all_there(trainer.model, trainer.optimizer)
