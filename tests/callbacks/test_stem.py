"""Whiten and Freeze: once, at their time, and after a resume as before it."""

import pytest
import torch

from growlib import Callback, Freeze, SpeedNet, Trainer, Whiten, load, whiten


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def make(callbacks, model=None):
    torch.manual_seed(0)
    model = model or SpeedNet((1, 8, 8), [3, 4], 10)
    return Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), callbacks, device="cpu")


def test_a_stem_is_whitened_once(digits):
    trainer = make([Whiten(examples=300)])
    trainer.fit(digits, epochs=1)
    twin = SpeedNet((1, 8, 8), [3, 4], 10)
    whiten(twin.stem, digits.batch("train", torch.arange(300))[0])
    assert torch.equal(trainer.model.stem.weight, twin.stem.weight)
    bias = trainer.model.stem.bias.clone()
    assert bias.any()
    trainer.fit(digits, epochs=1)  # another call of fit goes on with what was learned
    assert torch.equal(trainer.model.stem.weight, twin.stem.weight) and not torch.equal(
        trainer.model.stem.bias, 0 * bias
    )


class Biases(Callback):
    def __init__(self):
        self.seen = []

    def after_epoch(self, trainer):
        self.seen.append(trainer.model.stem.bias.detach().clone())


def test_a_bias_is_frozen_after_its_epochs_and_saves_work(digits):
    watch = Biases()
    trainer = make([Freeze("stem*bias", after=2), watch])
    trainer.fit(digits, epochs=4)
    first, second, third, fourth = watch.seen
    assert not torch.equal(first, second) and torch.equal(second, third) and torch.equal(third, fourth)
    work = [record["training_flops"] for record in trainer.history.records]
    assert work[3] - work[2] < work[1] - work[0]  # no gradient of the stem's answers is needed any more


def test_a_resumed_run_freezes_too(digits, tmp_path):
    class Stop(Callback):
        def after_step(self, trainer):
            if trainer.step == 20:
                trainer.stop_run("enough")

    def callbacks():
        return [Whiten(), Freeze("stem*bias", after=1)]

    whole = make(callbacks())
    whole.fit(digits, epochs=3)
    parted = make([*callbacks(), Stop()])
    parted.fit(digits, epochs=3)
    parted.callbacks.pop()
    parted.save(tmp_path / "run.pt")
    parted = Trainer.load(tmp_path / "run.pt", callbacks=callbacks(), device="cpu")
    assert 1 < parted.step / 13 < 2  # in the middle of the second epoch
    parted.fit(digits, epochs=3)
    assert parted.history.losses == whole.history.losses
    assert parted.training_flops == whole.training_flops


def test_an_unknown_parameter_is_refused(digits):
    with pytest.raises(ValueError, match="no parameter of SpeedNet is called 'stern.bias'"):
        make([Freeze("stern.bias", after=1)]).fit(digits, epochs=1)
