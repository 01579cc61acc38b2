"""Signals and scores on a device are those of the CPU, and connections move there."""

import pytest
import torch
from devices import DEVICE, agree, all_there, trained
from torch import nn, optim
from torch.nn.functional import cross_entropy

from growlib import (
    MLP,
    ConvNet,
    Diagnostics,
    Probe,
    Rewire,
    at_random,
    budget_report,
    connections,
    cut_off,
    degrees,
    erk,
    every,
    hidden_of,
    masks_of,
    ranked,
    rewire,
    scores,
    shuffled,
    signals,
    smallest_magnitude,
    sparse_layers,
    sparsify,
    uniform,
    wire,
)
from growlib.layers.attention import Attention

pytestmark = pytest.mark.gpu
MODELS = {"mlp": lambda: MLP(12, [7, 5], 4), "convnet": lambda: ConvNet((2, 6, 6), [4, 3], [6], 4)}
SIGNALS = [getattr(signals, name) for name in signals.__all__ if name not in ("binned", "gaussian", "ksg", "Probe")]
DRAWN = [scores.at_random, scores.topological, scores.sign_flip]
TOLD = [
    scores.smallest_magnitude,
    scores.largest_gradient,
    scores.gradient_importance,
    scores.hebbian,
    scores.stdp,
]


def seen(name, device):
    """A model that has learned for two steps on the CPU, on a device, and a probe of it."""
    torch.manual_seed(0)
    model = MODELS[name]()
    inputs, labels = torch.randn(16, *model.input_shape), torch.arange(16) % 4
    model.to(device)
    optimizer = optim.AdamW(model.parameters())
    for _ in range(2):
        optimizer.zero_grad()
        cross_entropy(model(inputs.to(device)), labels.to(device)).backward()
        optimizer.step()
    return model, Probe(model, inputs.to(device), labels.to(device), optimizer=optimizer)


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("name", MODELS)
def test_signals_say_what_they_say_on_the_cpu(name, signal):
    def said(device):
        model, probe = seen(name, device)
        return [signal(probe, hidden) for hidden in hidden_of(model) if hidden.name.startswith("hidden")]

    agree(said)


@pytest.mark.parametrize("score", TOLD)
@pytest.mark.parametrize("name", MODELS)
def test_scores_say_what_they_say_on_the_cpu(name, score):
    def said(device):
        model, probe = seen(name, device)
        layers = [layer for layer in model.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
        return [score(layer, probe) for layer in layers]

    agree(said)


def test_attention_is_scored_there():
    def said(device):
        torch.manual_seed(0)
        model = nn.Sequential(Attention(8, 2), nn.Flatten(), nn.Linear(40, 4))
        probe = Probe(model.to(device), torch.randn(6, 5, 8).to(device), (torch.arange(6) % 4).to(device))
        return [scores.attention(getattr(model[0], name), probe) for name in ("query", "key", "value", "project")]

    agree(said)


@pytest.mark.parametrize("score", [*TOLD, *DRAWN])
@pytest.mark.parametrize("role", ["drop", "regrow"])
def test_connections_move_and_their_number_stays(score, role):
    model, probe = seen("mlp", DEVICE)
    sparsify(model, 0.4, erk)
    before = connections(model)
    for layer in sparse_layers(model).values():
        getattr(score, "begin", lambda layer: None)(layer)
    chosen = {"drop": smallest_magnitude, "regrow": at_random, role: score}
    rewire(model, fraction=0.3, probe=Probe(model, probe.inputs, probe.labels), **chosen)
    assert connections(model) == before and all_there(model)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_run_rewires_and_says_what_it_did(scope):
    model = sparsify(MLP(64, [16, 12], 10), 0.3)
    before = connections(model)
    moving = Rewire(scores.smallest_magnitude, scores.largest_gradient, every(1, "steps"), scope=scope)
    trainer = trained(moving, model=model)
    assert connections(model) == before
    assert any(trainer.history.records[-1]["turnover"].values()) and all_there(model, trainer.optimizer)


@pytest.mark.parametrize("allocation", [uniform, erk, ranked])
def test_connections_are_chosen_there(allocation):
    model, probe = seen("convnet", DEVICE)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sparsify(model, 0.5, allocation, score=scores.gradient_importance, probe=probe, optimizer=optimizer)
    masks = masks_of(model)
    assert connections(model) == round(0.5 * sum(mask.numel() for mask in masks.values()))
    assert all(degrees(layer)[0].sum() == layer.mask.sum() for layer in sparse_layers(model).values())
    assert connections(model) in budget_report(model)["connections"].tolist() and cut_off(model).keys()
    assert masks_of(wire(model, shuffled(masks), optimizer)).keys() == masks.keys() and all_there(model, optimizer)


def test_a_csr_layer_says_that_it_stays_on_the_cpu():
    with pytest.raises(ValueError, match="on CPU: use backend='masked'"):
        sparsify(MLP(12, [7], 4).to(DEVICE), 0.5, backend="csr")
    model = sparsify(MLP(64, [16], 10), 0.5, backend="csr")
    with pytest.raises((RuntimeError, ValueError), match="runs on CPU only"):
        trained(model=model)
    assert "weight" in dict(sparsify(MLP(12, [7], 4).to(DEVICE), 0.5, backend="auto").hidden1.named_parameters())


def test_diagnostics_read_everything_there():
    trainer = trained(Diagnostics(SIGNALS, when=every(1, "epoch")))
    assert {reading["signal"] for reading in trainer.history.readings} >= {"dead", "effective_rank", "gradmax_gain"}
