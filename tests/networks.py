"""Small networks that the tests share."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy, relu

from growlib.growth import growable
from growlib.models import MLP, ConvNet, ResNet, SpeedNet


def mlp(dtype=torch.float32):
    return MLP(12, [7, 5], 4).to(dtype)


def convnet(dtype=torch.float32):
    return shaken(ConvNet((2, 8, 8), [4, 3], [6], 4)).to(dtype)


def resnet(dtype=torch.float32):
    return shaken(ResNet((2, 8, 8), [4, 6], [{"block1": 3, "block2": 5}, 1], 4)).to(dtype)


def speednet(dtype=torch.float32):
    return shaken(SpeedNet((2, 9, 9), [[3, 4], [5, 4]], 4)).to(dtype)


def inputs_for(model, size=16):
    return torch.randn(size, *model.input_shape, dtype=next(model.parameters()).dtype)


def relative(new, old):
    return ((new - old).abs().max() / old.abs().max()).item()


def train(model, optimizer, steps, seed=0, scheduler=None):
    """A few steps on data that depend on the seed only."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        inputs = torch.randn(16, *model.input_shape, generator=generator).to(next(model.parameters()))
        labels = torch.randint(4, (16,), generator=generator)
        optimizer.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        if scheduler:
            scheduler.step()


@torch.no_grad()
def shaken(model):
    """The model with random statistics and scales of its norms, so that a new unit's neutral values stand out."""
    for module in model.modules():
        if isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)):
            nn.init.normal_(module.weight), nn.init.normal_(module.bias)
            if getattr(module, "running_mean", None) is not None:
                module.running_mean.normal_(), module.running_var.uniform_(0.5, 2.0)
    return model


def marked(shape, dim):
    """A tensor whose every value is the number of its unit."""
    view = [1] * len(shape)
    view[dim] = shape[dim]
    return torch.arange(shape[dim]).view(view).expand(shape)


def lies_as_told(tensor, layout):
    (_, spread), units = layout.parts[0], tensor.movedim(layout.dim, 0)
    return all((units[unit * spread : (unit + 1) * spread] == unit).all() for unit in range(len(units) // spread))


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "SGD without momentum": lambda p: torch.optim.SGD(p, lr=0.05),
    "Adam": lambda p: torch.optim.Adam(p, lr=1e-2, amsgrad=True),
    "Adam, one by one": lambda p: torch.optim.Adam(p, lr=1e-2, foreach=False),
    "Adam, fused": lambda p: torch.optim.Adam(p, lr=1e-2, fused=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-2),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=1e-2),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=1e-2),
    "RAdam": lambda p: torch.optim.RAdam(p, lr=1e-2),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2, initial_accumulator_value=0.1),
    "Adadelta": lambda p: torch.optim.Adadelta(p, lr=0.5),
    "ASGD": lambda p: torch.optim.ASGD(p, lr=0.05, t0=0),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.9, centered=True),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=1e-3),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=1e-2),
    "Muon": lambda p: torch.optim.Muon([q for q in p if q.ndim == 2], lr=1e-2),
}


class Net(nn.Module):
    """Convolutions and linear layers whose activation stands in `forward` only."""

    def __init__(self, activation=relu):
        super().__init__()
        self.input_shape, self.activation = (2, 6, 6), activation
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.one, self.two, self.out = nn.Linear(4 * 36, 7), nn.Linear(7, 5), nn.Linear(5, 4)

    def forward(self, images):
        units = self.activation(self.norm(self.conv(images))).flatten(1)
        return self.out(self.activation(self.two(self.activation(self.one(units)))))


def net(activation=relu, dtype=torch.float32):
    return growable(shaken(Net(activation)), torch.randn(2, 2, 6, 6)).to(dtype)
