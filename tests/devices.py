"""The device that the tests in on_a_device run on, and what they share.

`pytest -m gpu` runs them on a GPU, where there is one. Wherever there is none, test_on_a_device.py runs the same tests
on a pretended one.
"""

import os
from dataclasses import replace

import pytest
import torch
from torch.optim import AdamW

from growlib import MLP, Callback, Trainer, load

PRETENDED = "GROWLIB_PRETEND_DEVICE" in os.environ  # set in the process that test_on_a_device.py starts
if PRETENDED:
    import pretend_device  # noqa: F401
elif not torch.cuda.is_available():
    pytest.skip("there is no GPU; test_on_a_device.py runs these on a pretended one", allow_module_level=True)

DEVICE = "pretend" if PRETENDED else "cuda"


class SaveAt(Callback):
    """Writes a checkpoint after one step."""

    may_differ = "path", "step"

    def __init__(self, path, step):
        self.path, self.step = path, step

    def after_step(self, trainer):
        if trainer.step == self.step:
            trainer.save(self.path)


def few(data, size: int = 96):
    """The first examples of every split."""
    parts = {name: getattr(data, name) for name in ("train", "val", "test")}
    cut = {name: type(part)(part.images[:size], part.labels[:size]) for name, part in parts.items()}
    return replace(data, **cut)


def digits(size: int = 96):
    return few(load("digits"), size)


def trained(*callbacks, model=None, device=DEVICE, optimizer=AdamW, epochs=2, data=None, **settings):
    """A trainer that has trained a small network on a few digits."""
    torch.manual_seed(0)
    model = MLP(64, [16, 12], 10) if model is None else model
    trainer = Trainer(
        model, optimizer(model.parameters(), lr=0.01), callbacks, batch_size=32, device=device, **settings
    )
    trainer.fit(*(data or [digits()]), epochs=epochs)
    return trainer


def tensors_of(model, optimizer=None) -> list:
    """All tensors that must be on the device; torch's optimizers keep their numbers, as that of steps, on the CPU."""
    state = optimizer.state.values() if optimizer else ()
    kept = [value for one in state for value in one.values() if torch.is_tensor(value) and value.ndim]
    return [*model.parameters(), *model.buffers(), *kept]


def all_there(model, optimizer=None) -> bool:
    """Whether everything is on the device."""
    return {tensor.device.type for tensor in tensors_of(model, optimizer)} == {DEVICE}


def agree(function, rtol: float = 1e-3, atol: float = 1e-5):
    """Asserts that a function of a device finds there what it finds on the CPU; it returns tensors or numbers."""
    torch.testing.assert_close(to_cpu(function(DEVICE)), to_cpu(function("cpu")), rtol=rtol, atol=atol)


def to_cpu(found):
    if isinstance(found, dict):
        return {name: to_cpu(value) for name, value in found.items()}
    if isinstance(found, (list, tuple)):
        return [to_cpu(value) for value in found]
    return found.detach().cpu() if torch.is_tensor(found) else found
