"""What new units would learn, against autograd on a widened network."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, gelu, max_pool2d, relu, unfold

from growlib import MLP, GrowConv2d, GrowLinear, Hidden, Probe, widen
from growlib.signals._patches import growth_matrix, patches


class Net(nn.Module):
    """A first layer, whatever lies between, and readers whose outputs are averaged over positions and added up."""

    def __init__(self, first, *readers, between=relu):
        super().__init__()
        self.first, self.readers, self.between = first, nn.ModuleList(readers), between

    @property
    def hidden(self):
        return [Hidden("first", (self.first,), (), tuple(self.readers))]

    def forward(self, inputs):
        units, total = self.between(self.first(inputs)), 0
        for reader in self.readers:
            spread = isinstance(self.first, nn.Conv2d) and isinstance(reader, nn.Linear)
            outputs = reader(units.flatten(1) if spread else units)
            if outputs.ndim == 4:
                outputs = outputs.square().mean((2, 3))
            total = total + (outputs.square().mean(1) if outputs.ndim == 3 else outputs)
        return total


def conv(inputs, outputs, size=3, **settings):
    return GrowConv2d(inputs, outputs, size, **settings)


CASES = {
    "linear": lambda: (Net(GrowLinear(6, 5), GrowLinear(5, 4)), (6,)),
    "tokens": lambda: (Net(GrowLinear(6, 5), GrowLinear(5, 4)), (7, 6)),
    "two readers": lambda: (Net(GrowLinear(6, 5), GrowLinear(5, 4), GrowLinear(5, 4)), (6,)),
    "convolutions": lambda: (Net(conv(2, 5, padding=1), conv(5, 4, padding=1)), (2, 7, 6)),
    "strides": lambda: (Net(conv(2, 5, stride=2), conv(5, 4, (2, 3), padding=(1, 0), stride=(2, 1))), (2, 9, 11)),
    "dilation": lambda: (Net(conv(2, 5, padding="same"), conv(5, 4, dilation=2, padding=2)), (2, 7, 6)),
    "flattened": lambda: (Net(conv(2, 5), GrowLinear(5 * 12, 4)), (2, 5, 6)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_growth_matrix_is_what_autograd_finds(case):
    """New units with no incoming weights, and any outgoing ones."""
    torch.manual_seed(0)
    model, shape = CASES[case]()
    model = model.double()
    inputs, labels = torch.randn(16, *shape, dtype=torch.float64), torch.randint(4, (16,))
    probe, hidden = Probe(model, inputs, labels), model.hidden[0]
    matrix = torch.cat([growth_matrix(hidden, reader, probe) for reader in hidden.consumers])

    def start(hidden, by, probe):
        outgoing = [torch.randn(r.weight.shape[0], by * hidden.spread(r), *r.weight.shape[2:]) for r in model.readers]
        rows = model.first.weight
        return [rows.new_zeros(by, *rows.shape[1:])], [rows.new_full((by,), 1e-30)], [o.double() for o in outgoing]

    widen(model, "first", 3, init=start)
    cross_entropy(model(inputs), labels).backward()
    read = torch.cat([hidden.read(reader) for reader in hidden.consumers], 1)[-3:]
    torch.testing.assert_close(model.first.weight.grad[-3:].flatten(1), read @ matrix, rtol=1e-9, atol=1e-12)
    assert (read @ matrix).abs().max() > 1e-6


def test_another_activation_between_is_noticed_by_this_test():
    """The negative control: where the activation halves the gradients, so it does with those of new units."""
    torch.manual_seed(0)
    model = Net(GrowLinear(6, 5), GrowLinear(5, 4), between=gelu).double()
    inputs, labels = torch.randn(16, 6, dtype=torch.float64), torch.randint(4, (16,))
    matrix = growth_matrix(model.hidden[0], model.readers[0], Probe(model, inputs, labels))
    model.first.weight.data[0] = model.first.bias.data[0] = 0
    matrix = growth_matrix(model.hidden[0], model.readers[0], Probe(model, inputs, labels))
    cross_entropy(model(inputs), labels).backward()
    torch.testing.assert_close(model.first.weight.grad[0], model.readers[0].weight[:, 0] @ matrix / 2)


@pytest.mark.parametrize(
    "model, shape",
    [
        (Net(conv(2, 5), conv(5, 4), between=lambda units: max_pool2d(relu(units), 2)), (2, 12, 12)),
        (Net(conv(2, 5), GrowLinear(5 * 9, 4), between=lambda units: max_pool2d(relu(units), 2)), (2, 8, 8)),
        (Net(conv(2, 4, groups=2), conv(4, 4)), (2, 8, 8)),
        (Net(conv(2, 5, bias=False), conv(5, 4)), (2, 8, 8)),
    ],
    ids=["pooling", "pooling and flatten", "groups", "no bias"],
)
def test_what_it_cannot_see_through_is_refused(model, shape):
    probe = Probe(model, torch.randn(3, *shape), torch.randint(4, (3,)))
    with pytest.raises(ValueError, match="gradmax cannot widen layer 'first'.*(pooling|groups|bias)"):
        growth_matrix(model.hidden[0], model.readers[0], probe)


def test_patches_are_what_a_layer_multiplies():
    torch.manual_seed(0)
    layer, inputs = conv(2, 5, (3, 2), stride=2, padding=(1, 0), padding_mode="reflect"), torch.randn(4, 2, 8, 8)
    outputs = patches(layer, inputs) @ layer.weight.flatten(1).T + layer.bias
    torch.testing.assert_close(outputs.transpose(1, 2), layer(inputs).flatten(2))
    plain = conv(2, 5, 3)
    assert torch.equal(patches(plain, inputs), unfold(inputs, 3).transpose(1, 2))
    assert patches(MLP(6, [5], 4).hidden1, torch.randn(4, 6)).shape == (4, 1, 6)
    with pytest.raises(ValueError, match="Conv1d: only what linear layers and 2-D convolutions"):
        patches(nn.Conv1d(2, 3, 3), torch.randn(2, 2, 8))
