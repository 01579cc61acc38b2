"""The trainer on a device: fit, evaluate, predict, augment, save and load, and what it does with a loss of NaN."""

import pytest
import torch
from devices import DEVICE, SaveAt, agree, all_there, digits, to_cpu, trained
from torch import nn

from growlib import (
    MLP,
    Callback,
    Checkpoint,
    ConvNet,
    Diagnostics,
    EarlyStopping,
    LRSchedule,
    ResourceMonitor,
    Trainer,
    Widen,
    every,
    split,
    warmup_decay,
)

pytestmark = pytest.mark.gpu
ROUGHLY = {"rtol": 0.05, "atol": 0.05}  # on a device autocast computes in bfloat16


class Spoil(Callback):
    """Makes the loss of one step something else."""

    def __init__(self, step, change):
        self.step, self.change = step, change

    def after_loss(self, trainer):
        if trainer.step == self.step:
            trainer.batch_loss = self.change(trainer.batch_loss)


def times_nan(loss):
    return loss * float("nan")


def plus_infinity(loss):
    """Leaves the gradients as they are, so that the losses of later steps are finite."""
    return loss + float("inf")


class Noisy(nn.Module):
    """An MLP whose inputs are dropped at random: it draws from the device's own generator."""

    def __init__(self):
        super().__init__()
        self.drop, self.inner = nn.Dropout(0.3), MLP(64, [8], 10)

    def forward(self, inputs):
        return self.inner(self.drop(inputs))


@pytest.mark.parametrize("settings", [{}, {"accumulate": 2}, {"clip": 0.5}], ids=str)
def test_losses_are_those_of_the_cpu(settings):
    agree(lambda device: trained(device=device, **settings).history.losses, **ROUGHLY)


def test_all_that_learns_is_on_the_device():
    trainer = trained(clip=1.0)
    assert all_there(trainer.model, trainer.optimizer)
    assert isinstance(trainer.history.losses[0], float)
    assert trainer.history.records[-1]["val_loss"] == pytest.approx(trainer.evaluate(digits())["loss"])


class Types(Callback):
    """Notes of which types the logits are."""

    def __init__(self):
        self.seen = set()

    def after_loss(self, trainer):
        self.seen.add(trainer.logits.dtype)


def test_a_device_computes_in_bfloat16_and_keeps_float32():
    types = Types()
    trainer = trained(types, model=ConvNet((1, 8, 8), [4], [6], 10))
    assert types.seen == {torch.bfloat16}
    assert {tensor.dtype for tensor in trainer.model.parameters()} == {torch.float32}


def test_evaluate_and_predict_take_what_is_on_the_cpu():
    data, trainer = digits(), trained()
    logits = trainer.predict(data.val.images)
    assert logits.dtype == torch.float32 and logits.device.type == DEVICE
    right = (logits.argmax(1).cpu() == data.val.labels).double().mean().item()
    assert trainer.evaluate(data)["accuracy"] == pytest.approx(right)
    assert trainer.predict(data.val.images.numpy()).shape == logits.shape


def test_augmentation_draws_on_the_device():
    data = digits().augmented(shift=1, flip=True, cutout=2).to(DEVICE)

    def batch(seed):
        noise = torch.Generator(DEVICE).manual_seed(seed)
        return data.batch("train", torch.arange(32, device=DEVICE), noise)[0]

    assert batch(0).device.type == DEVICE
    assert torch.equal(batch(0), batch(0)) and not torch.equal(batch(0), batch(1))
    torch.manual_seed(0)
    trained(data=[data], model=ConvNet((1, 8, 8), [4], [6], 10))


@pytest.mark.parametrize("change", [times_nan, plus_infinity])
def test_a_loss_that_is_not_finite_leads_back_to_the_start_of_the_epoch(change):
    trainer = trained(Spoil(4, change), epochs=1)
    before = to_cpu(trainer.model.state_dict())
    with pytest.raises(FloatingPointError, match="back at step 3"):
        trainer.fit(digits(), epochs=2)
    assert trainer.step == 3 and all_there(trainer.model, trainer.optimizer)
    assert all(torch.equal(value.cpu(), before[name]) for name, value in trainer.model.state_dict().items())


@pytest.mark.parametrize("make", [lambda: MLP(64, [8], 10), Noisy], ids=["mlp", "dropout"])
def test_a_resumed_run_is_the_run_that_did_not_stop(make, tmp_path):
    torch.manual_seed(0)
    whole = trained(SaveAt(tmp_path / "mid.pt", 4), model=make())
    parted = Trainer.load(tmp_path / "mid.pt", make(), [SaveAt(tmp_path / "mid.pt", -1)], device=DEVICE)
    assert all_there(parted.model, parted.optimizer) and parted.device.type == DEVICE
    parted.fit(digits(), epochs=2)
    assert parted.history.losses == whole.history.losses


@pytest.mark.parametrize(("here", "there"), [(DEVICE, "cpu"), ("cpu", DEVICE)])
def test_a_grown_run_goes_on_on_another_device(here, there, tmp_path):
    def callbacks():
        return [Widen(by=2, when=every(1, "epoch"), init=split)]

    trainer = trained(*callbacks(), device=here)
    trainer.save(tmp_path / "grown.pt")
    other = Trainer.load(tmp_path / "grown.pt", callbacks=callbacks(), device=there)
    assert [hidden.width for hidden in other.model.hidden] == [20, 16]
    assert {p.device.type for p in other.model.parameters()} == {torch.device(there).type}
    inputs = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(other.predict(inputs).cpu(), trainer.predict(inputs).cpu(), **ROUGHLY)
    other.fit(digits(), epochs=3)


def test_the_usual_callbacks_run(tmp_path):
    watching = [
        LRSchedule(warmup_decay, warmup=1, decay=0.5, patience=2, floor=0.1),
        EarlyStopping("val_loss", patience=5),
        Diagnostics(when=every(2, "steps")),
        ResourceMonitor(),
        Checkpoint(tmp_path),
    ]
    history = trained(*watching).history
    assert (tmp_path / "last.pt").exists() and (tmp_path / "best.pt").exists()
    assert history.readings and history.records[-1]["memory_mb"] > 0
