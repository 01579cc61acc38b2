"""The recipe of CIFAR-10 as a whole, on digits: it learns, it grows in mid-training, and it goes on after a stop."""

import pytest
import torch
from torch import nn
from torch.optim import SGD

from growlib import (
    Callback,
    Freeze,
    Lookahead,
    LRSchedule,
    SpeedNet,
    Trainer,
    Whiten,
    Widen,
    every,
    load,
    narrower_than,
    norm_biases_apart,
    triangle,
)


class SaveAt(Callback):
    may_differ = ("path", "step")

    def __init__(self, path, step):
        self.path, self.step = path, step

    def after_step(self, trainer):
        if trainer.step == self.step:
            trainer.save(self.path)


def data():
    return load("digits").augmented(shift=1, border="reflect", flip="alternating", cutout=2)


def recipe(*callbacks, width=4):
    torch.manual_seed(0)
    model = SpeedNet((1, 8, 8), [width, 2 * width], 10)
    optimizer = SGD(norm_biases_apart(model, lr=0.7, weight_decay=1e-3), momentum=0.85, nesterov=True)
    parts = [
        Whiten(examples=500),
        Freeze("stem.bias", after=2),
        LRSchedule(triangle, per="step"),
        *callbacks,
        Lookahead(),
    ]
    loss = nn.CrossEntropyLoss(label_smoothing=0.2)
    return Trainer(model, optimizer, parts, loss=loss, batch_size=100, device="cpu")


def growth():
    return Widen(by=2, when=every(10, "steps") & narrower_than(12))


def test_it_learns():
    trainer = recipe(width=16)
    trainer.fit(load("digits").augmented(shift=1, border="reflect"), epochs=8)  # digits are no longer such in a mirror
    assert trainer.evaluate(trainer.data, "test")["accuracy"] > 0.95


@pytest.mark.parametrize("step", [7, 20, 33])
def test_a_run_that_grows_goes_on_after_a_stop_as_if_it_had_not_stopped(tmp_path, step):
    whole = recipe(growth(), SaveAt(tmp_path / "run.pt", step))
    whole.fit(data(), epochs=4)
    parted = recipe(growth(), SaveAt(tmp_path / "other.pt", 0)).resume(tmp_path / "run.pt")
    assert parted.step == step
    parted.fit(data(), epochs=4)
    assert parted.history.losses == whole.history.losses and parted.training_flops == whole.training_flops
    mine, theirs = parted.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert whole.model.config()["widths"] == [[12, 12], [12, 12]]
