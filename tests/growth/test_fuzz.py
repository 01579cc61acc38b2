"""Any sequence of changes, saves, loads, stops and resumes keeps function, state and counts."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import OPTIMIZERS, inputs_for, relative, train
from torch import nn
from torch.nn.functional import relu

from growlib import (
    MLP,
    ConvNet,
    ResNet,
    Trainer,
    at_random,
    connections,
    costs,
    deepen,
    growable,
    hidden_of,
    lost_tensors,
    prune,
    random,
    rewire,
    smallest_magnitude,
    sparse_layers,
    sparsify,
    split,
    widen,
    zero_out,
)

DEEDS = ["widen", "split", "prune", "deepen", "save", "reload", "train", "sparsify", "rewire"]


class Free(nn.Module):
    """What `growable` prepares: a branch that is added up, and a LayerNorm."""

    def __init__(self, width, other):
        super().__init__()
        self.one, self.norm, self.two = nn.Linear(12, width), nn.LayerNorm(width), nn.Linear(width, other)
        self.side, self.out = nn.Linear(12, other), nn.Linear(other, 4)

    def forward(self, inputs):
        return self.out(relu(self.two(relu(self.norm(self.one(inputs)))) + self.side(inputs)))


BUILDS = {
    "MLP": lambda a, b: MLP(12, [a, b], 4),
    "ConvNet": lambda a, b: ConvNet((1, 4, 4), [a], [b], 4),
    "ResNet": lambda a, b: ResNet((1, 4, 4), [a], [{"block1": b}], 4),
    "Free": lambda a, b: growable(Free(a, b), torch.randn(2, 12)),
}


class Run:
    """A model with its optimizer, in a trainer, and what has to stay as it is."""

    def __init__(self, kind: str, optimizer: str, widths, folder):
        self.kind, self.widths, self.folder = kind, widths, folder
        model = BUILDS[kind](*widths).double()
        self.trainer = Trainer(model, OPTIMIZERS[optimizer](list(model.parameters())), device="cpu", progress=False)
        self.inputs = inputs_for(model, 5)
        self.act("train", 0)

    model = property(lambda self: self.trainer.model)
    optimizer = property(lambda self: self.trainer.optimizer)

    def outputs(self):
        with torch.no_grad():
            return self.model.eval()(self.inputs)

    def act(self, deed: str, draw: int):
        """Does one deed, if the model is such that it can be done."""
        names = [hidden.name for hidden in hidden_of(self.model)]
        hidden = hidden_of(self.model)[draw % len(names)]
        sparse = bool(sparse_layers(self.model))
        before, kept = self.outputs(), self.notes()
        if deed in ("widen", "split") and not sparse:
            self.trainer.change(widen, hidden, 1 + draw % 3, init=split if deed == "split" else zero_out)
            assert relative(self.outputs(), before) < 1e-9
        elif deed == "prune" and not sparse and hidden.width > 1:
            self.trainer.change(prune, hidden, [draw % hidden.width])
        elif deed == "deepen" and not sparse and len(names) < 5:
            self.trainer.change(deepen, hidden)
            assert relative(self.outputs(), before) < 1e-9
        elif deed == "save":
            self.resume()
            assert torch.equal(self.outputs(), before) and self.notes() == kept
        elif deed == "reload" and not sparse:  # into a model of the widths it began with, where nothing was put in
            twin = BUILDS[self.kind](*self.widths).double()
            if [*twin.state_dict()] == [*self.model.state_dict()]:
                twin.load_state_dict(self.model.state_dict())
                assert torch.equal(twin.eval()(self.inputs), before)
        elif deed == "train":
            train(self.model.train(), self.optimizer, 1, seed=draw)
        elif deed == "sparsify" and not sparse and draw % 3 == 0:
            sparsify(self.model, 0.6, optimizer=self.optimizer)
        elif deed == "rewire" and sparse:
            count = connections(self.model)
            rewire(self.model, smallest_magnitude, at_random, 0.3, optimizer=self.optimizer)
            assert connections(self.model) == count

    def notes(self):
        """The counts that a resume must keep."""
        state = {name: value for name, value in self.optimizer.state_dict().items() if name == "state"}
        shapes = [[(k, getattr(v, "shape", v)) for k, v in one.items()] for one in state["state"].values()]
        return costs.parameters(self.model), len(self.trainer.history.changes), shapes

    def resume(self):
        """Stops, and goes on from a file."""
        path = self.folder / "run.pt"
        self.trainer.save(path)
        model = self.model
        fresh = BUILDS["Free"](*self.widths) if self.kind == "Free" else type(model)(**model.config())
        self.trainer = Trainer.load(path, model=fresh.double(), device="cpu")

    def check(self):
        """Counts that hold at any time."""
        model, change = self.model, (self.trainer.history.changes or [None])[-1]
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                for key, value in self.optimizer.state.get(parameter, {}).items():
                    fits = not torch.is_tensor(value) or not value.ndim or key in ("row_var", "col_var")
                    assert fits or value.shape == parameter.shape, key
        assert len(hidden_of(model)) == len({hidden.name for hidden in hidden_of(model)})
        if change and not sparse_layers(model):
            assert change["parameters"] == costs.parameters(model) and change["flops"] == costs.flops(model)


@given(
    kind=st.sampled_from(list(BUILDS)),
    optimizer=st.sampled_from([name for name in OPTIMIZERS if name not in ("Muon", "Adam, fused")]),
    widths=st.tuples(st.integers(2, 4), st.integers(2, 4)),
    deeds=st.lists(st.tuples(st.sampled_from(DEEDS), st.integers(0, 11)), min_size=2, max_size=5),
    seed=st.integers(0, 99),
)
@settings(max_examples=200, deadline=None)
def test_any_sequence_keeps_function_state_and_counts(tmp_path_factory, kind, optimizer, widths, deeds, seed):
    torch.manual_seed(seed)
    run = Run(kind, optimizer, widths, tmp_path_factory.getbasetemp())
    for deed, draw in deeds:
        run.act(deed, draw)
        run.check()
    assert lost_tensors(run.model, run.optimizer) == []
    before = copy.deepcopy(run.model.state_dict())
    run.act("train", 1)
    stuck = [name for name, p in run.model.named_parameters() if torch.equal(p, before[name])]
    assert len(stuck) < len(before)


def test_the_fuzz_sees_an_init_that_moves_outputs(monkeypatch, tmp_path):
    """The negative control."""
    monkeypatch.setitem(globals(), "zero_out", random)
    torch.manual_seed(0)
    with pytest.raises(AssertionError):
        Run("MLP", "SGD", (3, 4), tmp_path).act("widen", 0)
