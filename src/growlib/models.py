"""Networks that know their hidden layers."""

from itertools import pairwise
from math import prod

from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

from growlib.layers import GrowBatchNorm2d, GrowConv2d, GrowLinear, Hidden


class MLP(nn.Module):
    """A network of linear layers with ReLU between: hidden1, hidden2, ..., output.

    Args:
        inputs: Values of one example; images are flattened.
        hidden: The width of every hidden layer.
        outputs: Classes.
    """

    def __init__(self, inputs: int, hidden: list[int], outputs: int):
        super().__init__()
        widths = _positive("MLP", inputs, *hidden, outputs)
        self.input_shape = (inputs,)
        self.depth = len(hidden)
        for number, (before, after) in enumerate(pairwise(widths[:-1]), start=1):
            self.add_module(f"hidden{number}", GrowLinear(before, after))
        self.output = GrowLinear(widths[-2], outputs)

    @property
    def hidden(self) -> list[Hidden]:
        names = [f"hidden{number}" for number in range(1, self.depth + 1)]
        chain = [*names, "output"]
        return [
            Hidden(name, (getattr(self, name),), (), (getattr(self, reader),))
            for name, reader in zip(names, chain[1:], strict=True)
        ]

    def config(self) -> dict:
        """The arguments that would build this network as it is now."""
        widths = [hidden.width for hidden in self.hidden]
        return {"inputs": self.input_shape[0], "hidden": widths, "outputs": self.output.out_features}

    def forward(self, inputs: Tensor) -> Tensor:
        units = inputs.flatten(1)  # (B, inputs)
        if units.shape[1] != self.input_shape[0]:
            raise ValueError(
                f"this MLP takes {self.input_shape[0]} values an example, and got {units.shape[1]} "
                f"(inputs of shape {tuple(inputs.shape)})"
            )
        for number in range(1, self.depth + 1):
            units = relu(getattr(self, f"hidden{number}")(units))  # (B, width)
        return self.output(units)  # (B, outputs)


class ConvNet(nn.Module):
    """Blocks of convolution, batch normalisation, ReLU and pooling, then linear layers.

    Args:
        shape: Of one image, (C, H, W).
        channels: The width of every convolution: conv1, conv2, ...
        hidden: The width of every hidden linear layer: hidden1, hidden2, ...
        outputs: Classes.
    """

    def __init__(self, shape: tuple[int, int, int], channels: list[int], hidden: list[int], outputs: int):
        super().__init__()
        _positive("ConvNet", *shape, *channels, *hidden, outputs)
        self.input_shape = tuple(shape)
        side = [size // 2 ** len(channels) for size in shape[1:]]
        if min(side) < 1:
            raise ValueError(f"{len(channels)} poolings leave nothing of an image of {shape[1]}x{shape[2]} pixels")
        for number, (before, after) in enumerate(pairwise([shape[0], *channels]), start=1):
            self.add_module(f"conv{number}", GrowConv2d(before, after, 3, padding=1, bias=False))
            self.add_module(f"norm{number}", GrowBatchNorm2d(after))
        widths = [[shape[0], *channels][-1] * prod(side), *hidden]
        for number, (before, after) in enumerate(pairwise(widths), start=1):
            self.add_module(f"hidden{number}", GrowLinear(before, after))
        self.output = GrowLinear(widths[-1], outputs)
        self.convolutions, self.depth = len(channels), len(hidden)

    @property
    def hidden(self) -> list[Hidden]:
        names = [f"conv{number}" for number in range(1, self.convolutions + 1)]
        names += [f"hidden{number}" for number in range(1, self.depth + 1)]
        found = []
        for name, reader in zip(names, [*names[1:], "output"], strict=True):
            norms = (getattr(self, name.replace("conv", "norm")),) if name.startswith("conv") else ()
            found.append(Hidden(name, (getattr(self, name),), norms, (getattr(self, reader),)))
        return found

    def config(self) -> dict:
        """The arguments that would build this network as it is now."""
        widths = [hidden.width for hidden in self.hidden]
        channels, hidden = widths[: self.convolutions], widths[self.convolutions :]
        return {
            "shape": list(self.input_shape),
            "channels": channels,
            "hidden": hidden,
            "outputs": self.output.out_features,
        }

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[1:] != self.input_shape:
            raise ValueError(f"this ConvNet takes images {self.input_shape}, and got {tuple(images.shape[1:])}")
        units = images
        for number in range(1, self.convolutions + 1):
            units = getattr(self, f"norm{number}")(getattr(self, f"conv{number}")(units))
            units = max_pool2d(relu(units), 2)  # (B, channels, H / 2, W / 2)
        units = units.flatten(1)  # (B, channels x H x W)
        for number in range(1, self.depth + 1):
            units = relu(getattr(self, f"hidden{number}")(units))  # (B, width)
        return self.output(units)  # (B, outputs)


KNOWN = {"MLP": MLP, "ConvNet": ConvNet}  # what a checkpoint may name


def _positive(name: str, *widths: int) -> tuple[int, ...]:
    if not all(isinstance(width, int) and width > 0 for width in widths):
        raise ValueError(f"{name} needs whole, positive sizes, and got {list(widths)}")
    return widths
