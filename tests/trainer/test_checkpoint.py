"""Checkpoint files: whole or not at all, of the right kind, and running no code."""

import errno
import os
import resource
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from growlib import (
    MLP,
    ConvNet,
    Prune,
    TaskNet,
    Trainer,
    Widen,
    every,
    growable,
    load,
    load_model,
    sparse_layers,
    sparsify,
    split_by_class,
    widen,
)


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def growing():
    return [Widen(by=2, when=every(1, "epoch")), Prune(by=1, when=every(2, "epochs"))]


def make(callbacks=()):
    torch.manual_seed(0)
    model = MLP(64, [8], 10)
    return Trainer(model, torch.optim.AdamW(model.parameters(), lr=1e-2), callbacks, device="cpu")


def test_a_checkpoint_of_another_kind_is_refused(digits, tmp_path):
    trainer = make(growing())
    trainer.fit(digits, epochs=1)
    path = tmp_path / "run.pt"
    trainer.save(path)
    with pytest.raises(ValueError, match="pass the same"):
        Trainer.load(path)
    with pytest.raises(ValueError, match="holds a MLP, and the model is a ConvNet"):
        Trainer.load(path, model=ConvNet((1, 8, 8), [2], [], 10), callbacks=growing())
    with pytest.raises(ValueError, match="another MLP: only the file has .* only the model has .*hidden2"):
        Trainer.load(path, model=MLP(64, [8, 8], 10), callbacks=growing())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        Trainer.load(path, callbacks=growing())
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        Trainer.load(tmp_path / "nothing.pt")


def test_a_checkpoint_runs_no_code(tmp_path):
    class Malice:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/harm",)

    torch.save({"format": 1, "model": Malice()}, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        Trainer.load(tmp_path / "bad.pt")
    assert not (tmp_path / "harm").exists()


def test_an_older_format_is_refused_by_its_number(tmp_path):
    torch.save({"format": 1, "model": {}}, tmp_path / "old.pt")
    torch.save({"weights": {}}, tmp_path / "foreign.pt")
    with pytest.raises(ValueError, match="is a checkpoint of format 1, and this growlib reads format 2"):
        Trainer.load(tmp_path / "old.pt")
    with pytest.raises(ValueError, match="is not a checkpoint of growlib"):
        Trainer.load(tmp_path / "foreign.pt")


@pytest.mark.parametrize("change", [lambda m: m, lambda m: sparsify(m, 0.5), lambda m: sparsify(m, 0.5, backend="csr")])
def test_a_model_is_loaded_alone(digits, tmp_path, change):
    """Without the callbacks that its run had, whatever it has become."""
    torch.manual_seed(0)
    model = change(MLP(64, [8], 10))
    dense = not sparse_layers(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(model, optimizer, growing() if dense else [], device="cpu")
    trainer.fit(digits, epochs=2)
    trainer.save(tmp_path / "run.pt")
    alone, (images, _) = load_model(tmp_path / "run.pt"), digits.batch("val", torch.arange(20))
    assert not alone.training and sparse_layers(alone).keys() == sparse_layers(model).keys()
    assert torch.equal(alone(images), model.eval()(images))
    if dense:
        assert [hidden.width for hidden in alone.hidden] == [11]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_numbers_keep_their_format(digits, tmp_path, dtype):
    """float64 is not rounded to float32 on the way."""
    torch.manual_seed(0)
    model = MLP(64, [8], 10).to(dtype)
    trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), device="cpu")
    trainer.save(tmp_path / "run.pt")
    for loaded in (load_model(tmp_path / "run.pt"), Trainer.load(tmp_path / "run.pt", device="cpu").model):
        assert loaded.output.weight.dtype == dtype and torch.equal(loaded.output.weight, model.output.weight)


def test_a_model_of_another_library_is_passed_fresh(digits, tmp_path):
    def net():
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 10))

    model = growable(net(), torch.randn(2, 1, 8, 8))
    trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), device="cpu")
    trainer.change(widen, "1", 3)
    trainer.save(tmp_path / "run.pt")
    with pytest.raises(ValueError, match="growlib cannot build by itself: pass a fresh one"):
        load_model(tmp_path / "run.pt")
    alone = load_model(tmp_path / "run.pt", growable(net(), torch.randn(2, 1, 8, 8)))
    assert alone[1].out_features == 9 and torch.equal(alone[1].weight, model[1].weight)


@pytest.mark.slow
def test_a_kill_in_the_middle_of_a_write_leaves_the_checkpoint_before(tmp_path):
    """A process writes checkpoints without pause and is killed; what lies there loads, every time."""
    script = f"""
import torch
from torch.nn import functional
from growlib import MLP, Trainer
torch.manual_seed(0)
model = MLP(784, [512, 512], 10)
trainer = Trainer(model, torch.optim.Adam(model.parameters()), device="cpu")
print("ready", flush=True)
while True:
    trainer.save(r"{tmp_path}/last.pt")
    print("saved", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    for _ in range(4):
        process.stdout.readline()
    process.kill()
    process.wait()
    assert Trainer.load(tmp_path / "last.pt", device="cpu").model.hidden[0].width == 512


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch, digits):
    trainer = make()
    trainer.save(tmp_path / "run.pt")
    before = (tmp_path / "run.pt").read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="could not write the checkpoint .*No space left"):
        trainer.save(tmp_path / "run.pt")
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]
    assert (tmp_path / "run.pt").read_bytes() == before


@pytest.mark.parametrize("limit", [100, 5000])
def test_a_disk_that_fills_up_while_writing_leaves_the_checkpoint_before(tmp_path, limit):
    trainer = make()
    trainer.save(tmp_path / "run.pt")
    before = (tmp_path / "run.pt").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # the system cuts every file here
    try:
        with pytest.raises(OSError, match="could not write the checkpoint .*run.pt: .*is untouched. Free some space"):
            trainer.save(tmp_path / "run.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]
    assert (tmp_path / "run.pt").read_bytes() == before
    trainer.save(tmp_path / "run.pt")  # the negative control


def test_a_disk_that_is_read_only_says_so(tmp_path, monkeypatch):
    trainer, real = make(), open
    message = "could not write the checkpoint .*Read-only.*save to a folder that can be written"

    def closed(path, mode="r", *rest, **named):
        if "w" in mode:
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return real(path, mode, *rest, **named)

    def refuse(self, **_):
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr("builtins.open", closed)
    monkeypatch.setattr("pathlib.Path.unlink", refuse)  # such a disk refuses to remove what is not there
    with pytest.raises(OSError, match=message):
        trainer.save(tmp_path / "run.pt")
    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(OSError, match=message):
        trainer.save(tmp_path / "new" / "run.pt")


def cross_entropy(logits, labels):
    """A user's own, with the name of torch's."""
    return 2 * functional.cross_entropy(logits, labels)


@pytest.mark.parametrize(
    "loss",
    [cross_entropy, torch.nn.CrossEntropyLoss(), partial(functional.cross_entropy, label_smoothing=0.1)],
)
def test_a_loss_of_ones_own_is_never_replaced_by_that_of_torch(tmp_path, digits, loss):
    model = MLP(64, [8], 10)
    trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), loss=loss, device="cpu")
    trainer.save(tmp_path / "run.pt")
    with pytest.raises(ValueError, match="written with the loss '.*', not one of torch.nn.functional: pass loss="):
        Trainer.load(tmp_path / "run.pt", device="cpu")
    resumed = Trainer.load(tmp_path / "run.pt", device="cpu", loss=loss)
    assert resumed.evaluate(digits) == trainer.evaluate(digits)


def test_a_loss_of_torch_is_known_by_its_name(tmp_path):
    for loss in (functional.cross_entropy, functional.mse_loss):
        model = MLP(64, [8], 10)
        Trainer(model, torch.optim.SGD(model.parameters()), loss=loss, device="cpu").save(tmp_path / "run.pt")
        assert Trainer.load(tmp_path / "run.pt", device="cpu").loss is loss


class AdamW(torch.optim.SGD):
    """A user's own, with the name of torch's."""


def test_an_optimizer_of_ones_own_is_never_replaced_by_that_of_torch(tmp_path):
    model = MLP(64, [8], 10)
    Trainer(model, AdamW(model.parameters(), lr=0.1), device="cpu").save(tmp_path / "run.pt")
    with pytest.raises(
        ValueError, match=r"the optimizer .*test_checkpoint\.AdamW, none of torch.optim.* load_model\(path\)"
    ):
        Trainer.load(tmp_path / "run.pt", device="cpu")
    assert load_model(tmp_path / "run.pt").config() == model.config()
    Trainer(model, torch.optim.AdamW(model.parameters()), device="cpu").save(tmp_path / "run.pt")
    assert type(Trainer.load(tmp_path / "run.pt", device="cpu").optimizer) is torch.optim.AdamW


def test_a_task_net_that_was_loaded_knows_its_data_from_namesakes(tmp_path, digits):
    one, two = (replace(task, name="same") for task in split_by_class(digits, 2))
    model = TaskNet(one.shape, "same", 5, hidden=[4])
    trainer = Trainer(model, torch.optim.Adam(model.parameters()), device="cpu")
    trainer.fit(one, epochs=1)
    trainer.save(tmp_path / "run.pt")
    for loaded in (load_model(tmp_path / "run.pt"), Trainer.load(tmp_path / "run.pt", device="cpu").model):
        other = Trainer(loaded, torch.optim.Adam(loaded.parameters()), device="cpu")
        with pytest.raises(ValueError, match="'same' is the name of a task with other train and val examples"):
            other.fit(two, epochs=1)
        other.fit(one, epochs=1)
