"""Layers that were put behind others: where they stand in a model, and how a checkpoint puts them there again."""

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


class ImageBlock(nn.Module):
    """x + norm2(second(relu(norm1(first(x))))), convolutions to put behind any layer.

    Args:
        width: As in Block.
    """

    def __init__(self, width: int):
        super().__init__()
        self.first, self.norm1 = GrowConv2d(width, width, 3, padding=1, bias=False), GrowBatchNorm2d(width)
        self.second, self.norm2 = GrowConv2d(width, width, 3, padding=1, bias=False), GrowBatchNorm2d(width)

    def silence(self):
        """Makes the branch zero."""
        nn.init.zeros_(self.norm2.weight), nn.init.zeros_(self.norm2.bias)

    def forward(self, stream: Tensor) -> Tensor:
        return stream + self.norm2(self.second(relu(self.norm1(self.first(stream)))))  # (B, width, H, W)


KINDS = {
    "ReLU": lambda width: nn.ReLU(),
    "GrowLinear": lambda width: GrowLinear(width, width),
    "GrowConv2d": lambda width: GrowConv2d(width, width, 3, padding=1),
    "Block": Block,
    "ImageBlock": ImageBlock,
}  # what can be put behind a layer, as checkpoints name it


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
        kinds: Keys of KINDS.
        width: Of what the module puts out.

    Returns:
        The new modules.
    """
    container, key = _wrapped(model, after)
    number = next(number for number in count(1) if f"deeper{number}" not in container._modules)
    keys = [f"{'relu' if kind == 'ReLU' else 'deeper'}{number}" for kind in kinds]
    new = {key: _made(model, kind, width) for key, kind in zip(keys, kinds, strict=True)}
    order = list(container._modules)
    place = order.index(key) + 1
    container._modules.update(new)
    _sort(container, [*order[:place], *new, *order[place:]])
    return list(new.values())


def insertions(model: nn.Module) -> dict[str, list[list[str]]]:
    """What was put behind other layers, as plain values: for the name of each, the keys and kinds of what follows."""
    return {
        name_of(model, path): [[key, type(module).__name__] for key, module in list(container._modules.items())[1:]]
        for path, container in model.named_modules()
        if isinstance(container, Deeper)
    }


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
                container._modules[key] = _made(model, kind, 1)
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


def _made(model: nn.Module, kind: str, width: int) -> nn.Module:
    return KINDS[kind](width).train(model.training).to(next(model.parameters()))


def _sort(container: Deeper, keys: list[str]):
    modules = dict(container._modules)
    container._modules.clear()
    container._modules.update((key, modules[key]) for key in keys)
