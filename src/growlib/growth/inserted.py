"""Layers that were put behind others: where they stand in a model, and how a checkpoint puts them there again."""

import copy
from itertools import count

from torch import Tensor, nn
from torch.nn.functional import relu

from growlib.layers import GrowBatchNorm2d, GrowConv2d, GrowLinear


class Block(nn.Module):
    """x + second(relu(first(x))), to put behind any layer.

    Args:
        width: Of what comes in and goes out, and of what is between.
    """

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = GrowLinear(width, width), GrowLinear(width, width)

    def silence(self):
        """Makes the branch zero."""
        nn.init.zeros_(self.second.weight), nn.init.zeros_(self.second.bias)

    def forward(self, stream: Tensor) -> Tensor:
        return stream + self.second(relu(self.first(stream)))  # (..., width)


class ChannelBlock(nn.Module):
    """x + norm2(second(relu(norm1(first(x))))), convolutions along channels to put behind any layer.

    Args:
        width: As in Block.
    """

    convolution = norm = None

    def __init__(self, width: int):
        super().__init__()
        self.first, self.norm1 = self.convolution(width, width, 3, padding=1, bias=False), self.norm(width)
        self.second, self.norm2 = self.convolution(width, width, 3, padding=1, bias=False), self.norm(width)

    def silence(self):
        """Makes the branch zero."""
        nn.init.zeros_(self.norm2.weight), nn.init.zeros_(self.norm2.bias)

    def forward(self, stream: Tensor) -> Tensor:
        return stream + self.norm2(self.second(relu(self.norm1(self.first(stream)))))  # (B, width, ...)


class SequenceBlock(ChannelBlock):
    """Of (B, width, L)."""

    convolution, norm = nn.Conv1d, nn.BatchNorm1d


class ImageBlock(ChannelBlock):
    """Of (B, width, H, W)."""

    convolution, norm = GrowConv2d, GrowBatchNorm2d


class VolumeBlock(ChannelBlock):
    """Of (B, width, D, H, W)."""

    convolution, norm = nn.Conv3d, nn.BatchNorm3d


KINDS = {
    "ReLU": lambda width: nn.ReLU(),
    "GrowLinear": lambda width: GrowLinear(width, width),
    "Conv1d": lambda width: nn.Conv1d(width, width, 3, padding=1),
    "GrowConv2d": lambda width: GrowConv2d(width, width, 3, padding=1),
    "Conv3d": lambda width: nn.Conv3d(width, width, 3, padding=1),
    "Block": Block,
    "SequenceBlock": SequenceBlock,
    "ImageBlock": ImageBlock,
    "VolumeBlock": VolumeBlock,
}  # what can be put behind a layer, as checkpoints name it, beside "Repeat": the layer once more
KEYS = {"ReLU": "relu", "Repeat": "repeat"}  # what is called otherwise than "deeper"


class Deeper(nn.Sequential):
    """A layer, `first`, and what was put behind it. `path_of` still finds the layer by its old name."""


def path_of(model: nn.Module, name: str) -> str:
    """Where the module is now that was called this before anything was put behind it, or behind what holds it."""
    module, path = model, []
    for part in name.split("."):
        while isinstance(module, Deeper) and part not in module._modules:
            path, module = [*path, "first"], module.first
        if module._modules.get(part) is None:
            raise ValueError(f"{type(model).__name__} has no module {name!r}")
        path, module = [*path, part], module._modules[part]
    while isinstance(module, Deeper):
        path, module = [*path, "first"], module.first
    return ".".join(path)


def name_of(model: nn.Module, path: str) -> str:
    """The name by which `path_of` finds the module that is there."""
    module, name = model, []
    for part in path.split("."):
        name += [] if isinstance(module, Deeper) and part == "first" else [part]
        module = None if module is None else module._modules.get(part)  # none for a tensor of its own
    return ".".join(name)


def put_behind(model: nn.Module, after: str, kinds: list[str], width: int) -> list[nn.Module]:
    """Puts new modules behind the one of this name.

    Args:
        model: Any module.
        after: A name.
        kinds: Keys of KINDS, or "Repeat".
        width: Of what the module puts out.

    Returns:
        The new modules.
    """
    container, key = _wrapped(model, after)
    taken = {key.lstrip("abcdefghijklmnopqrstuvwxyz") for key in container._modules}
    number = next(number for number in count(1) if str(number) not in taken)
    keys = [f"{KEYS.get(kind, 'deeper')}{number}" for kind in kinds]
    new = {key: _made(model, container, kind, width) for key, kind in zip(keys, kinds, strict=True)}
    order = list(container._modules)
    place = order.index(key) + 1
    container._modules.update(new)
    _sort(container, [*order[:place], *new, *order[place:]])
    return list(new.values())


def insertions(model: nn.Module) -> dict[str, list[list[str]]]:
    """What was put behind other layers, as plain values: for the name of each, the keys and kinds of what follows."""
    return {
        name_of(model, path): [[key, _kind(key, module)] for key, module in list(container._modules.items())[1:]]
        for path, container in model.named_modules()
        if isinstance(container, Deeper)
    }


def _kind(key: str, module: nn.Module) -> str:
    return "Repeat" if key.startswith("repeat") else type(module).__name__


def match(model: nn.Module, wanted: dict[str, list[list[str]]]) -> bool:
    """Puts in what `insertions` names and a model lacks, and takes out what it does not name.

    Args:
        model: Any module.
        wanted: What `insertions` gave. The widths are right once the weights are loaded.

    Returns:
        Whether anything was to do.
    """
    if insertions(model) == wanted:
        return False
    present = [(path, name_of(model, path)) for path, m in model.named_modules() if isinstance(m, Deeper)]
    for path, name in reversed(present):  # what is inside first
        container, keys = model.get_submodule(path), {key for key, _ in wanted.get(name, [])}
        for key in list(container._modules)[1:]:
            if key not in keys:
                del container._modules[key]
        if not keys:
            parent, _, key = path.rpartition(".")
            model.get_submodule(parent)._modules[key] = container.first
    for name, entries in wanted.items():
        container, _ = _wrapped(model, name)
        for key, kind in entries:
            if key not in container._modules:
                container._modules[key] = _made(model, container, kind, 1)
        _sort(container, ["first", *(key for key, _ in entries)])
    return True


def _wrapped(model: nn.Module, name: str) -> tuple[Deeper, str]:
    """The Deeper that holds the module of this name, which is made if need be, and the module's key there."""
    path, _, key = path_of(model, name).rpartition(".")
    parent = model.get_submodule(path)
    if isinstance(parent, Deeper):
        return parent, key
    container = Deeper()
    container.add_module("first", parent._modules[key])
    container.training = parent.training
    parent._modules[key] = container
    return container, "first"


def _made(model: nn.Module, container: Deeper, kind: str, width: int) -> nn.Module:
    new = fresh(container.first) if kind == "Repeat" else KINDS[kind](width)
    return new.train(model.training).to(next(model.parameters()))


def fresh(block: nn.Module) -> nn.Module:
    """A copy that has learned nothing, as far as its modules know how to start anew."""
    twin = copy.deepcopy(block)
    for module in twin.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    for parameter in twin.parameters():
        parameter.grad = None
    return twin.requires_grad_()


def _sort(container: Deeper, keys: list[str]):
    modules = dict(container._modules)
    container._modules.clear()
    container._modules.update((key, modules[key]) for key in keys)
