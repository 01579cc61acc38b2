"""Residual blocks once more: convolutional ones, transformers and mixers, exact at birth, and learning."""

import pytest
import torch
import torchvision
from networks import relative
from torch import nn

from growlib import deepen, growable, repeated, widen
from growlib.growth.inserted import insertions, match


class Mixer(nn.Module):
    """Mixes tokens, then features; tokens lie along the second dimension."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.mix, self.back = nn.Linear(6, 10), nn.Linear(10, 6)
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, tokens):
        tokens = tokens + self.back(torch.relu(self.mix(self.norm1(tokens).mT))).mT
        return tokens + self.down(torch.relu(self.up(self.norm2(tokens))))


def mixer():
    return nn.Sequential(nn.Linear(5, 8), Mixer(), nn.Flatten(), nn.Linear(48, 3)), (4, 6, 5), "1"


def transformer():
    model = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=4)
    nn.init.normal_(model.heads.head.weight)
    return model, (2, 3, 32, 32), "encoder.layers.encoder_layer_0"


def residual_network():
    return torchvision.models.resnet18(num_classes=4), (2, 3, 32, 32), "layer1.0"


@pytest.mark.parametrize("build", [mixer, transformer, residual_network])
def test_a_block_once_more_changes_nothing_and_learns(build):
    torch.manual_seed(0)
    model, shape, after = build()
    inputs = torch.randn(shape)
    growable(model.eval(), inputs)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before, names = model(inputs), insertions(model)
    change = deepen(model, after, init=repeated, optimizer=optimizer)
    assert torch.equal(model(inputs), before) and change.layer.startswith(f"{after}.repeat1.")
    assert type(change.inserted[0]) is type(model.get_submodule(f"{after}.first"))
    widen(model, change.layer, 1, optimizer=optimizer)
    assert relative(model(inputs), before) <= 1e-6
    model(inputs).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model(inputs), before)
    assert insertions(model) == {after: [["repeat1", "Repeat"]]}
    assert match(model, names) and insertions(model) == {}
    assert match(model, {after: [["repeat1", "Repeat"]]}) and not match(model, insertions(model))


def test_what_does_not_add_to_what_it_reads_is_refused():
    model, inputs = residual_network()[0], torch.randn(2, 3, 32, 32)
    growable(model, inputs)
    with pytest.raises(ValueError, match="cannot repeat 'layer2.0': it does not take one tensor and put out another"):
        deepen(model, "layer2.0", init=repeated)
    chain = growable(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)), torch.randn(2, 4))
    with pytest.raises(ValueError, match="cannot repeat '0': with zeros where it writes to its stream"):
        deepen(chain, "0", init=repeated)
    assert insertions(chain) == {} == insertions(model)
