"""Growing on a device: the function is kept, the optimizer follows, and everything new is where the rest is."""

import pytest
import torch
from devices import DEVICE, agree, all_there
from torch import nn, optim
from torch.nn.functional import cross_entropy
from torchvision.models import resnet18

from growlib import (
    MLP,
    ConvNet,
    Probe,
    ResNet,
    check_growth,
    deepen,
    gradmax,
    growable,
    hidden_of,
    north,
    orthogonal,
    prune,
    random,
    split,
    variance_transfer,
    widen,
    zero_out,
)

pytestmark = pytest.mark.gpu

MODELS = {
    "mlp": lambda: MLP(12, [7, 5], 4),
    "convnet": lambda: ConvNet((2, 8, 8), [4, 3], [6], 4),
    "resnet": lambda: ResNet((2, 8, 8), [4, 6], [2, 1], 4),
}
OPTIMIZERS = {
    "sgd": lambda parameters: optim.SGD(parameters, lr=0.01, momentum=0.9),
    "adam": optim.Adam,
    "amsgrad": lambda parameters: optim.AdamW(parameters, amsgrad=True),
    "rmsprop": optim.RMSprop,
    "adagrad": optim.Adagrad,
    "adamax": optim.Adamax,
    "nadam": optim.NAdam,
    "adadelta": optim.Adadelta,
}
INITS = [zero_out, random, orthogonal, split, north, gradmax, variance_transfer]


def ready(name="mlp", optimizer=optim.Adam):
    """A model on the device that has learned a little, its optimizer, and a batch."""
    torch.manual_seed(0)
    model = MODELS[name]().to(DEVICE)
    optimizer = optimizer(model.parameters())
    batch = torch.randn(16, *model.input_shape).to(DEVICE), (torch.arange(16) % 4).to(DEVICE)
    learn(model, optimizer, batch)
    return model, optimizer, batch


def learn(model, optimizer, batch, steps=2):
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(model(batch[0]), batch[1]).backward()
        optimizer.step()


@torch.no_grad()
def answers(model, inputs):
    return model.eval()(inputs)


def kept(model, inputs, change):
    """Whether a change leaves what the model puts out as it was."""
    before = answers(model, inputs)
    change()
    drift = (answers(model.train(), inputs) - before).abs().max() / before.abs().max()
    model.train()
    return drift.item() < 1e-5


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_follows(name):
    model, optimizer, batch = ready(optimizer=OPTIMIZERS[name])
    assert kept(model, batch[0], lambda: widen(model, "hidden1", 3, optimizer=optimizer))
    learn(model, optimizer, batch)
    prune(model, "hidden2", [0, 2], optimizer=optimizer)
    assert kept(model, batch[0], lambda: deepen(model, "hidden1", optimizer=optimizer))
    learn(model, optimizer, batch)
    assert all_there(model, optimizer) and hidden_of(model)[0].width == 10


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_every_init_starts_units_on_the_device(name, init):
    model, optimizer, batch = ready(name)
    layer, probe = hidden_of(model)[-1].name, Probe(model, *batch)  # behind it stands no normalisation
    same = kept(model, batch[0], lambda: widen(model, layer, 2, init, optimizer=optimizer, probe=probe))
    assert same or not init.preserves
    learn(model, optimizer, batch)
    assert all_there(model, optimizer)


@pytest.mark.parametrize("name", MODELS)
def test_units_go_and_layers_come(name):
    model, optimizer, batch = ready(name)
    last = hidden_of(model)[-1].name
    prune(model, last, torch.tensor([0, 1], device=DEVICE), optimizer=optimizer)
    assert kept(model, batch[0], lambda: deepen(model, last, optimizer=optimizer))
    learn(model, optimizer, batch)
    assert all_there(model, optimizer)


def test_the_foot_guns_are_looked_for():
    model, optimizer, batch = ready()
    change = widen(model, "hidden1", 4, split, optimizer=optimizer)
    assert set(check_growth(model, change, batch[0])) >= {"lost"}


def norms():
    layers = [nn.Linear(12, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 6), nn.GroupNorm(3, 6), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(6, 4))


def test_any_network_is_made_growable_there():
    torch.manual_seed(0)
    inputs = torch.randn(4, 12).to(DEVICE)
    model = growable(norms().to(DEVICE), inputs)
    for hidden in hidden_of(model):
        assert kept(model, inputs, lambda name=hidden.name, by=hidden.unit: widen(model, name, by))
    assert len(hidden_of(model)) == 2 and all_there(model)


@pytest.mark.parametrize("device", ["cpu", DEVICE])
def test_examples_come_from_anywhere(device):
    torch.manual_seed(0)
    tokens = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 2)).to(DEVICE)
    assert len(hidden_of(growable(tokens, torch.arange(6).view(2, 3).to(device)))) >= 1
    assert len(hidden_of(growable(norms().to(DEVICE), torch.randn(4, 12).to(device)))) == 2


def test_a_network_of_torchvision_grows_there():
    torch.manual_seed(0)
    inputs = torch.randn(2, 3, 32, 32).to(DEVICE)
    model = growable(resnet18(num_classes=4).to(DEVICE), inputs)
    name = hidden_of(model)[0].name
    assert kept(model, inputs, lambda: widen(model, name, 2)) and all_there(model)


def test_what_is_found_is_what_is_found_on_the_cpu():
    def found(device):
        model = growable(norms().to(device), torch.randn(4, 12).to(device))
        return [hidden.width for hidden in hidden_of(model)]

    agree(found)
