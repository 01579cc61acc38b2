"""Chains of layers: MLP and ConvNet."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

from growlib.layers import GrowBatchNorm2d, GrowConv2d, GrowLinear, Hidden, TakesOnWidths


class _Chain(TakesOnWidths, nn.Module):
    """A network whose hidden layers, each with its ReLU, run in the order of `names`."""

    def insert_layer(self, after: str) -> tuple[str, nn.Module]:
        """Puts a new layer with its ReLU behind a hidden layer (and its pooling): its name, and the layer."""
        if after not in self.names:
            raise ValueError(f"no hidden layer {after!r}: the model has {', '.join(map(repr, self.names)) or 'none'}")
        old, kind, position = getattr(self, after), after.rstrip("0123456789"), self.names.index(after) + 1
        width, follower = len(old.weight), [*self.names, "output"][position]
        number = 1 + max(int(name.removeprefix(kind)) for name in self.names if name.startswith(kind))
        layer = GrowLinear(width, width) if kind == "hidden" else GrowConv2d(width, width, 3, padding=1)
        self.names.insert(position, f"{kind}{number}")
        modules = dict(self._modules)
        self._modules.clear()
        for name, module in modules.items():  # in the order of a network that is built with this layer
            if name == follower:
                self.add_module(f"{kind}{number}", layer.to(old.weight).train(self.training))
            self.add_module(name, module)
        return f"{kind}{number}", layer

    def remove_layer(self, name: str):
        """Takes a layer out that `insert_layer` put in."""
        self.names.remove(name)
        delattr(self, name)


class MLP(_Chain):
    """A network of linear layers with ReLU between: hidden1, hidden2, ..., output.

    Args:
        inputs: Values of one example; images are flattened.
        hidden: The width of every hidden layer, or a dict from names to widths where `deepen` put layers in between.
        outputs: Classes.
    """

    def __init__(self, inputs: int, hidden: list[int] | dict[str, int], outputs: int):
        super().__init__()
        hidden = numbered("hidden", hidden)
        widths = positive("MLP", inputs, *hidden.values(), outputs)
        self.input_shape = (inputs,)
        self.names = list(hidden)  # in the order in which they run
        for name, before, after in zip(self.names, widths, widths[1:], strict=False):
            self.add_module(name, GrowLinear(before, after))
        self.output = GrowLinear(widths[-2], outputs)

    @property
    def hidden(self) -> list[Hidden]:
        return [
            Hidden(name, (getattr(self, name),), (), (getattr(self, reader),))
            for name, reader in pairwise([*self.names, "output"])
        ]

    def config(self) -> dict:
        """The arguments that would build this network as it is now."""
        hidden = plainly("hidden", {hidden.name: hidden.width for hidden in self.hidden})
        return {"inputs": self.input_shape[0], "hidden": hidden, "outputs": self.output.out_features}

    def forward(self, inputs: Tensor) -> Tensor:
        units = inputs.flatten(1)  # (B, inputs)
        if units.shape[1] != self.input_shape[0]:
            raise ValueError(
                f"this MLP takes {self.input_shape[0]} values an example, and got {units.shape[1]} "
                f"(inputs of shape {tuple(inputs.shape)})"
            )
        for name in self.names:
            units = relu(getattr(self, name)(units))  # (B, width)
        return self.output(units)  # (B, outputs)


class ConvNet(_Chain):
    """Blocks of convolution, batch normalisation, ReLU and pooling, then linear layers.

    Args:
        shape: Of one image, (C, H, W).
        channels: The width of every convolution: conv1, conv2, ..., or a dict from names to widths.
        hidden: The width of every hidden linear layer: hidden1, hidden2, ..., or a dict from names to widths.
        outputs: Classes.
        plain: The names of convolutions without normalisation and pooling, which `deepen` put behind the others.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        channels: list[int] | dict[str, int],
        hidden: list[int] | dict[str, int],
        outputs: int,
        plain: Sequence[str] = (),
    ):
        super().__init__()
        channels, hidden = numbered("conv", channels), numbered("hidden", hidden)
        positive("ConvNet", *shape, *channels.values(), *hidden.values(), outputs)
        self.input_shape, self.names = tuple(shape), [*channels, *hidden]  # in the order in which they run
        poolings = len(channels) - len(plain)
        side = [size // 2**poolings for size in shape[1:]]
        if min(side) < 1:
            raise ValueError(f"{poolings} poolings leave nothing of an image of {shape[1]}x{shape[2]} pixels")
        for name, before, after in zip(channels, [shape[0], *channels.values()], channels.values(), strict=False):
            self.add_module(name, GrowConv2d(before, after, 3, padding=1, bias=name in plain))
            if name not in plain:
                self.add_module(name.replace("conv", "norm"), GrowBatchNorm2d(after))
        widths = [[shape[0], *channels.values()][-1] * prod(side), *hidden.values()]
        for name, before, after in zip(hidden, widths, widths[1:], strict=False):
            self.add_module(name, GrowLinear(before, after))
        self.output = GrowLinear(widths[-1], outputs)

    @property
    def hidden(self) -> list[Hidden]:
        found = []
        for name, reader in pairwise([*self.names, "output"]):
            norm = self.norm_of(name)
            found.append(Hidden(name, (getattr(self, name),), (norm,) if norm else (), (getattr(self, reader),)))
        return found

    def norm_of(self, name: str) -> nn.Module | None:
        """The normalisation of a convolution, if it has one."""
        return getattr(self, name.replace("conv", "norm"), None) if name.startswith("conv") else None

    def config(self) -> dict:
        """The arguments that would build this network as it is now."""
        widths = {hidden.name: hidden.width for hidden in self.hidden}
        channels = {name: width for name, width in widths.items() if name.startswith("conv")}
        return {
            "shape": list(self.input_shape),
            "channels": plainly("conv", channels),
            "hidden": plainly("hidden", {n: width for n, width in widths.items() if n not in channels}),
            "outputs": self.output.out_features,
            "plain": [name for name in channels if self.norm_of(name) is None],
        }

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[1:] != self.input_shape:
            raise ValueError(f"this ConvNet takes images {self.input_shape}, and got {tuple(images.shape[1:])}")
        units = channels_last(images)
        for name in self.names:
            layer, norm = getattr(self, name), self.norm_of(name)
            if isinstance(layer, GrowLinear):
                units = units.flatten(1)  # (B, channels x H x W)
            units = layer(units)  # (B, width, ...)
            units = relu(units) if norm is None else max_pool2d(relu(norm(units)), 2)  # (B, width, H / 2, W / 2)
        return self.output(units.flatten(1))  # (B, outputs)


def numbered(kind: str, widths: list[int] | dict[str, int]) -> dict[str, int]:
    """Widths by name: those of a list are numbered from 1."""
    return dict(widths if isinstance(widths, dict) else {f"{kind}{n}": width for n, width in enumerate(widths, 1)})


def plainly(kind: str, widths: dict[str, int]) -> list[int] | dict[str, int]:
    """Widths without the names that `_numbered` would give them."""
    plain = list(widths.values())
    return plain if list(numbered(kind, plain)) == list(widths) else widths


def positive(name: str, *widths: int) -> tuple[int, ...]:
    """The widths, if they are whole and positive."""
    if not all(isinstance(width, int) and width > 0 for width in widths):
        raise ValueError(f"{name} needs whole, positive sizes, and got {list(widths)}")
    return widths


def channels_last(images: Tensor) -> Tensor:
    """Images whose channels lie side by side in memory: on a CPU convolutions take up to a third less time, and what
    they compute lies so too, whatever the layout of their weights. One image gains nothing, and vmap, which EWC needs,
    cannot do it.
    """
    return images.contiguous(memory_format=torch.channels_last) if images.shape[0] > 1 else images
