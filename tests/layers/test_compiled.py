"""torch.compile: one recompilation a change for every graph in use, and no fall back to eager after many changes."""

import copy
import logging

import pytest
import torch
from networks import mlp
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.nn.functional import cross_entropy, relu

from growlib import Trainer, Widen, deepen, every, load, narrower_than, prune, split, widen
from growlib.growth import width as growth
from growlib.layers import compiled
from growlib.models import MLP

pytestmark = pytest.mark.slow


class WithGraphBreaks(MLP):
    """Three graphs a call: each is a function of its own for torch."""

    def forward(self, inputs):
        units = relu(self.hidden1(inputs))
        torch._dynamo.graph_break()
        units = relu(self.hidden2(units))
        torch._dynamo.graph_break()
        return self.output(units)


@pytest.fixture(autouse=True)
def afresh(caplog):
    torch.compiler.reset()
    caplog.set_level(logging.CRITICAL, "torch._dynamo")  # the negative controls make it complain
    yield
    torch.compiler.reset()


def compiled_in_both_ways(model, way, backend):
    if way == "torch.compile(model)":
        return torch.compile(model, backend=backend)
    model.compile(backend=backend)
    return model


def step(model, optimizer, size=16):
    optimizer.zero_grad()
    cross_entropy(model(torch.randn(size, 12)), torch.arange(size) % 4).backward()
    optimizer.step()


def change(model, number, optimizer):
    """Widens and prunes in turn, so that the network comes back to widths that it had."""
    if number % 2:
        prune(model, "hidden1", [0], optimizer=optimizer)
    else:
        widen(model, "hidden1", 1 + number, init=split, optimizer=optimizer)


WAYS = ["torch.compile(model)", "model.compile()"]


def compilations(way, build=mlp, changes=10, looked_at=False):
    """How often it compiled in every round of four steps, with a change after each round."""
    torch.manual_seed(0)
    counter, counts = CompileCounter(), []
    model = build()
    called = compiled_in_both_ways(model, way, counter)
    optimizer = torch.optim.Adam(model.parameters())
    for number in range(changes + 1):
        before = counter.frame_count
        for size in (16, 16, 9, 16):
            step(called, optimizer, size)
        counts.append(counter.frame_count - before)
        change(called, number, optimizer)
        if looked_at:
            growth.check_growth(called, widen(called, "hidden2", 1, optimizer=optimizer), torch.randn(5, 12))
    return counts


@pytest.mark.parametrize("way", WAYS)
def test_twenty_changes_are_twenty_recompilations(way):
    """The first round compiles twice: for batches of 16, then for batches of any size."""
    assert compilations(way, changes=20) == [2, *[1] * 20]


def test_the_graphs_between_graph_breaks_are_renewed_too():
    counts = compilations(WAYS[0], lambda: WithGraphBreaks(12, [7, 5], 4))
    assert counts == [2 * 3, *[3] * 10]


@pytest.mark.parametrize("way", WAYS)
def test_without_the_remedy_it_falls_back_to_eager(way, monkeypatch):
    monkeypatch.setattr(growth, "renew_compiled", lambda model: None)
    counts = compilations(way, changes=14)
    assert sum(counts) == 8 and not any(counts[-3:])


@pytest.mark.parametrize("way", WAYS)
def test_a_new_layer_is_one_recompilation(way):
    torch.manual_seed(0)
    counter, counts = CompileCounter(), []
    model = mlp()
    called = compiled_in_both_ways(model, way, counter)
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(10):
        before = counter.frame_count
        step(called, optimizer), step(called, optimizer)
        counts.append(counter.frame_count - before)
        deepen(called, model.hidden[-1], optimizer=optimizer)
    assert counts == [1] * 10


def test_looking_at_a_change_compiles_nothing():
    assert compilations(WAYS[1], looked_at=True) == [2, *[1] * 10]


@pytest.mark.parametrize("way", WAYS)
def test_compiled_training_is_the_training(way):
    """Bit for bit, as the backend runs the very operations."""
    torch.manual_seed(0)
    plain = mlp()
    twin = copy.deepcopy(plain)
    runs = []
    for model, called in ((plain, plain), (twin, compiled_in_both_ways(twin, way, "aot_eager"))):
        torch.manual_seed(1)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for number in range(4):
            step(called, optimizer), step(called, optimizer)
            change(called, number, optimizer)
        runs.append(list(model.parameters()))
    for mine, theirs in zip(*runs, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("way", WAYS)
def test_a_trainer_trains_a_compiled_model(way, tmp_path):
    """Two graphs: of training, and of evaluation. Growth, its checks and the ledger compile nothing."""
    digits = load("digits")
    runs, counter = [], CompileCounter()
    for how in ("plain", way):
        torch.manual_seed(0)
        model = MLP(64, [8], 10)
        called = model if how == "plain" else compiled_in_both_ways(model, way, counter)
        callbacks = [Widen(by=4, when=every(1, "epoch") & narrower_than(33))]
        trainer = Trainer(called, torch.optim.AdamW(called.parameters(), lr=1e-2), callbacks, device="cpu")
        trainer.fit(digits, epochs=3)
        before = counter.frame_count
        trainer.fit(digits, epochs=3)
        runs.append(trainer)
    assert trainer.model is model and counter.frame_count - before == 3 * 2
    torch.testing.assert_close(torch.tensor(runs[0].history.losses), torch.tensor(runs[1].history.losses))
    assert runs[0].history.changes == runs[1].history.changes and model.hidden[0].width == 32
    trainer.save(tmp_path / "run.pt")
    loaded = Trainer.load(tmp_path / "run.pt", callbacks=callbacks, device="cpu")
    torch.testing.assert_close(loaded.predict(digits.val.images), trainer.predict(digits.val.images))


def test_a_wrapped_model_is_refused_with_advice():
    class Wrapped(nn.parallel.DistributedDataParallel):
        def __init__(self, module):
            nn.Module.__init__(self)
            self.module = module

    with pytest.raises(TypeError, match="change the model inside of it.*parallel.wrap"):
        widen(Wrapped(mlp()), "hidden1", 2)


def test_nothing_is_imported_for_models_that_were_never_compiled(monkeypatch):
    monkeypatch.delitem(compiled.sys.modules, "torch._dynamo")
    compiled.renew_compiled(mlp())
    with compiled.uncompiled():
        pass
    assert "torch._dynamo" not in compiled.sys.modules


def test_inductor_follows_a_change():
    torch.manual_seed(0)
    model = mlp()
    called = torch.compile(model)
    inputs = torch.randn(16, 12)
    for _ in range(2):
        with torch.no_grad():
            torch.testing.assert_close(called(inputs), model(inputs))
        widen(called, "hidden1", 3, init=split)
