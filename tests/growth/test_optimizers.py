"""Optimizers that wrap, average or keep lists, and lists of optimizers: their state follows, or they are refused."""

import copy

import pytest
import torch
from networks import inputs_for, mlp, relative, train
from torch import nn

from growlib import MLP, Deepen, Trainer, Widen, deepen, every, growable, load, lost_tensors, prune, split, widen


class Lookahead:
    """Slow weights that follow an inner optimizer; a wrapper that shares the inner one's groups."""

    def __init__(self, inner, kept="keyed"):
        self.inner, self.param_groups, self.kept = inner, inner.param_groups, kept
        self.defaults, self.slow, self.lists = {}, {}, []
        self.state = self.slow if kept == "keyed" else {}
        if kept == "lists":
            self.lists = [[p.detach().clone() for p in group["params"]] for group in self.param_groups]
        else:
            self.slow.update({p: {"slow": p.detach().clone()} for g in self.param_groups for p in g["params"]})

    def step(self):
        self.inner.step()
        for number, group in enumerate(self.param_groups):
            for place, p in enumerate(group["params"]):
                slow = self.slow[p]["slow"] if self.slow else self.lists[number][place]
                slow.lerp_(p.detach(), 0.5)

    def zero_grad(self):
        self.inner.zero_grad()

    @torch.no_grad()
    def look(self):
        """Puts the slow weights in."""
        for number, group in enumerate(self.param_groups):
            for place, p in enumerate(group["params"]):
                p.copy_(self.slow[p]["slow"] if self.slow else self.lists[number][place])


@pytest.mark.parametrize("kept", ["keyed", "lists"])
@pytest.mark.parametrize("change", ["split", "zero_out", "prune"])
def test_averages_of_weights_go_through_what_the_weights_go_through(kept, change):
    """The network of the slow weights keeps its function, and the inner optimizer its momentum."""
    torch.manual_seed(0)
    model = mlp(torch.float64)
    inner = torch.optim.Adam(model.parameters(), lr=1e-2)
    optimizer = Lookahead(inner, kept)
    train(model, optimizer, 7)
    momentum = inner.state[model.hidden1.weight]["exp_avg"].clone()
    inputs, (twin, looker) = inputs_for(model), copy.deepcopy((model, optimizer))
    looker.look()
    if change == "prune":
        prune(model, "hidden1", [2], optimizer=optimizer)
        prune(twin, "hidden1", [2])
        momentum = momentum[[0, 1, 3, 4, 5, 6]]
    else:
        widen(model, "hidden1", 3, optimizer=optimizer, **({"init": split} if change == "split" else {}))
    kept_now = inner.state[model.hidden1.weight]["exp_avg"]
    assert torch.equal(kept_now[: len(momentum)], momentum)
    again = copy.deepcopy((model, optimizer))
    again[1].look()
    assert relative(again[0](inputs), twin(inputs)) < 1e-12
    train(model, optimizer, 3)  # and learning goes on


def test_without_the_averages_a_split_moves_the_slow_network():
    """The negative control: slow weights that were not divided count twice."""
    torch.manual_seed(0)
    model = mlp(torch.float64)
    optimizer = Lookahead(torch.optim.SGD(model.parameters(), lr=0.1))
    train(model, optimizer, 5)
    inputs, slow = inputs_for(model), optimizer.slow[model.hidden2.weight]["slow"].clone()
    widen(model, "hidden1", 3, split, optimizer=optimizer)
    optimizer.look()
    right = model(inputs)
    with torch.no_grad():
        model.hidden2.weight[:, :7] = slow
    assert relative(model(inputs), right) > 1e-3


def test_asgd_keeps_the_function_of_its_average_too():
    torch.manual_seed(0)
    model = mlp(torch.float64)
    optimizer = torch.optim.ASGD(model.parameters(), lr=0.05, t0=0)
    train(model, optimizer, 6)
    inputs = inputs_for(model)

    def averaged():
        twin, other = copy.deepcopy((model, optimizer))
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.copy_(other.state[parameter]["ax"])
        return twin(inputs)

    before = averaged()
    widen(model, "hidden1", 4, split, optimizer=optimizer)
    assert relative(averaged(), before) < 1e-12


class Listed(torch.optim.SGD):
    """Momentum in a list beside the parameters of a group, as old implementations keep it."""

    def __init__(self, params, **settings):
        super().__init__(params, **settings)
        for group in self.param_groups:
            group["buffers"] = [torch.zeros_like(p) for p in group["params"]]

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p, buffer in zip(group["params"], group["buffers"], strict=True):
                p.sub_(buffer.mul_(0.9).add_(p.grad), alpha=group["lr"])


def test_lists_beside_the_parameters_follow_them():
    torch.manual_seed(0)
    model = mlp(torch.float64)
    plain = copy.deepcopy(model)
    optimizers = Listed(model.parameters(), lr=0.05), torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9)
    for net, optimizer in zip((model, plain), optimizers, strict=True):
        train(net, optimizer, 4)
        torch.manual_seed(1)
        widen(net, "hidden1", 2, optimizer=optimizer)
        prune(net, "hidden2", [0], optimizer=optimizer)
        train(net, optimizer, 4, seed=2)
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)
    with pytest.raises(TypeError, match="'buffers'.*nothing tells what it would hold for a new one"):
        deepen(model, "hidden1", optimizer=optimizers[0])
    assert len(model.hidden) == 2


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda o, p: o.state.update({p: {"history": [torch.zeros(3)]}}), "'history'.*in a list"),
        (lambda o, p: o.state.update({p: {"deep": {"sketch": torch.zeros(3)}}}), "'sketch'"),
        (lambda o, p: o.state.update({"flat": torch.zeros(9)}), "'flat'.*nothing tells which parameter"),
        (lambda o, p: setattr(o, "buffer", torch.zeros(9)), "'buffer'.*nothing tells"),
        (lambda o, p: o.param_groups[0].update(views=[torch.zeros(9)]), "group 0.*nothing tells"),
    ],
)
def test_any_other_tensor_is_refused_before_anything_changes(spoil, message):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    spoil(optimizer, model.hidden1.weight)
    for change in (
        lambda: widen(model, "hidden1", 2, optimizer=optimizer),
        lambda: deepen(model, "hidden1", None, optimizer),
    ):
        with pytest.raises(TypeError, match=message):
            change()
    assert [hidden.width for hidden in model.hidden] == [7, 5]


def test_state_in_nested_dicts_follows():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.state[model.hidden1.weight]["deep"] = {"sums": torch.ones(7, 12), "step": torch.tensor(3.0)}
    widen(model, "hidden1", 2, optimizer=optimizer)
    deep = optimizer.state[model.hidden1.weight]["deep"]
    assert deep["sums"].sum(1).tolist() == [12.0] * 7 + [0.0] * 2 and deep["step"] == 3


# ----------------------------------------------------------------------------------------------- lists of optimizers


def both(model):
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    return [torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW(vectors, lr=0.01)]


def test_a_list_of_optimizers_takes_part_in_every_change():
    torch.manual_seed(0)
    model = mlp()
    optimizers = both(model)
    for optimizer in optimizers:
        train(model, optimizer, 2)
    widen(model, "hidden1", 3, optimizer=optimizers)
    prune(model, "hidden2", [1], optimizer=optimizers)
    new = model.get_submodule(deepen(model, "hidden1", optimizer=optimizers).layer)
    assert lost_tensors(model, optimizers) == []
    held = [{id(p) for p in optimizer.param_groups[0]["params"]} for optimizer in optimizers]
    assert id(new.weight) in held[0] and id(new.bias) in held[1]
    assert optimizers[0].state[model.hidden1.weight]["momentum_buffer"].shape == (10, 12)


def test_a_run_with_a_list_of_optimizers_resumes_bit_for_bit(tmp_path):
    digits = load("digits")

    def run(epochs):
        torch.manual_seed(0)
        model = MLP(64, [8], 10)
        callbacks = [Widen(2, every(1, "epoch")), Deepen(every(2, "epochs"))]
        trainer = Trainer(model, both(model), callbacks, device="cpu", progress=False)
        trainer.fit(digits, epochs=epochs)
        return trainer, callbacks

    whole, callbacks = run(3)
    assert whole.history.records[-1]["learning_rate"] == 0.02  # of the first group of the first
    part, _ = run(2)
    part.save(tmp_path / "run.pt")
    part.fit(digits, epochs=1)
    resumed = Trainer.load(tmp_path / "run.pt", callbacks=callbacks, device="cpu")
    assert repr(resumed.optimizer) == "Optimizers(Muon, AdamW)"
    resumed.fit(digits, epochs=1)
    for mine, theirs in zip(part.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert part.history.losses == resumed.history.losses


def test_a_list_with_an_optimizer_that_cannot_step_or_shares_parameters_is_refused():
    model = mlp()
    with pytest.raises(TypeError, match="LBFGS.step needs a closure"):
        Trainer(model, [*both(model), torch.optim.LBFGS(model.parameters())], device="cpu")
    with pytest.raises(ValueError, match="hold the same parameter"):
        Trainer(model, [*both(model), torch.optim.SGD(model.parameters(), lr=0.1)], device="cpu")


# ------------------------------------------------------------------------------------------------------------ groups


class Backbone(nn.Module):
    """Convolutions with norms, and a head."""

    def __init__(self):
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second, self.norm2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.head, self.out = nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, images):
        units = self.norm1(self.first(images)).relu()
        units = self.norm2(self.second(units)).relu()
        return self.out(self.head(units.mean((2, 3))).relu())


def grouped(model):
    named = dict(model.named_parameters())
    norms = [name for name in named if "norm" in name]
    biases = [name for name in named if name.endswith("bias") and name not in norms]
    weights = [name for name in named if name not in norms + biases]
    parts = [("decay", weights), ("biases", biases), ("norms", norms)]
    groups = [{"params": [(n, named[n]) for n in names], "kind": kind} for kind, names in parts]
    return torch.optim.AdamW(groups)


def test_new_tensors_join_the_groups_of_their_kind_and_names_stay_right():
    model = growable(Backbone(), torch.randn(2, 2, 6, 6))
    optimizer = grouped(model)
    deepen(model, "norm1", optimizer=optimizer), deepen(model, "head", optimizer=optimizer)
    widen(model, "head", 2, optimizer=optimizer)
    named = dict(model.named_parameters())
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(named)
    for group in optimizer.param_groups:
        assert [id(named[name]) for name in group["param_names"]] == [id(p) for p in group["params"]]
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            layer = model.get_submodule(name.rpartition(".")[0])
            norm = isinstance(layer, nn.modules.batchnorm._BatchNorm)
            kind = "decay" if parameter.ndim > 1 else "norms" if norm else "biases"
            assert group["kind"] == kind, name


def test_beside_a_frozen_backbone_the_new_layer_learns():
    model = growable(Backbone(), torch.randn(2, 2, 6, 6))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("out"))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad])
    deepen(model, "second", optimizer=optimizer)
    assert lost_tensors(model, optimizer) == [] and len(optimizer.param_groups[0]["params"]) > 2
