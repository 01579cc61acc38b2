"""SpeedNet: the small convolutional network that learns CIFAR-10 in minutes on a CPU."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import gelu, max_pool2d

from growlib.layers import GrowBatchNorm2d, GrowConv2d, GrowLinear, Hidden
from growlib.models._plain import channels_last, positive
from growlib.models._starts import dirac

KERNEL = 2  # the side of the stem's filters
SCALE = 1 / 9  # of the logits
NORM = {"momentum": 0.4}  # the running statistics follow fast, since runs are short


class SpeedBlock(nn.Module):
    """Convolutions (3 x 3), each followed by its normalisation and GELU; the first one is pooled before that.

    Args:
        before: Channels that come in.
        widths: Of every convolution: conv1, conv2, ...
    """

    def __init__(self, before: int, widths: list[int]):
        super().__init__()
        for number, (channels, width) in enumerate(pairwise([before, *widths]), start=1):
            self.add_module(f"conv{number}", dirac(GrowConv2d(channels, width, 3, padding=1, bias=False)))
            self.add_module(f"norm{number}", unscaled(GrowBatchNorm2d(width, **NORM)))

    @property
    def layers(self) -> list[tuple[GrowConv2d, GrowBatchNorm2d]]:
        """The convolutions with their normalisations, in the order in which they run."""
        number = len(self._modules) // 2
        return [(getattr(self, f"conv{n}"), getattr(self, f"norm{n}")) for n in range(1, number + 1)]

    def forward(self, units: Tensor) -> Tensor:
        for number, (conv, norm) in enumerate(self.layers):
            units = conv(units)  # (B, width, H, W)
            units = units if number else max_pool2d(units, 2)  # (B, width, H / 2, W / 2)
            units = gelu(norm(units))
        return units


class SpeedNet(nn.Module):
    """A frozen stem, blocks of two convolutions on ever smaller images, the strongest answers, a linear layer.

    The stem (2 x 2) keeps the filters it has: `whiten(model.stem, images)` gives it good ones. Its bias learns, which
    the first epochs are enough for, see Freeze. Normalisations have a bias and no scale of their own. The widths of
    the convolutions can change: "block1.conv1", "block1.conv2", "block2.conv1", ...

    Args:
        shape: Of one image, (C, H, W). Every block halves it.
        widths: For every block one width for its two convolutions, or a list with the width of each.
        outputs: Classes.

    Source: Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (2024), airbench94 with widths [64, 256, 256].
    """

    def __init__(self, shape: tuple[int, int, int], widths: list, outputs: int):
        super().__init__()
        widths = [[entry, entry] if isinstance(entry, int) else list(entry) for entry in widths]
        positive("SpeedNet", *shape, *(width for block in widths for width in block or [0]), outputs)
        side = min(shape[1:]) - KERNEL + 1
        if not widths or side >> len(widths) < 1:
            raise ValueError(
                f"SpeedNet: {len(widths)} blocks leave nothing of images {tuple(shape)}, or change nothing"
            )
        self.input_shape, channels = tuple(shape), 2 * shape[0] * KERNEL**2
        self.stem = GrowConv2d(shape[0], channels, KERNEL)
        self.stem.weight.requires_grad_(False)
        self.names = [f"block{number}" for number in range(1, len(widths) + 1)]  # in the order in which they run
        for name, before, block in zip(self.names, [[channels], *widths], widths, strict=False):
            self.add_module(name, SpeedBlock(before[-1], block))
        self.output = GrowLinear(widths[-1][-1], outputs, bias=False)

    @property
    def blocks(self) -> dict[str, SpeedBlock]:
        """The blocks by name."""
        return {name: getattr(self, name) for name in self.names}

    @property
    def hidden(self) -> list[Hidden]:
        made = {
            f"{name}.conv{number}": layers
            for name, block in self.blocks.items()
            for number, layers in enumerate(block.layers, start=1)
        }
        readers = [*[conv for conv, _ in made.values()][1:], self.output]
        pairs = zip(made.items(), readers, strict=True)
        return [Hidden(name, (conv,), (norm,), (reader,)) for (name, (conv, norm)), reader in pairs]

    def config(self) -> dict:
        """The arguments that would build this network as it is now."""
        widths = [[len(conv.weight) for conv, _ in block.layers] for block in self.blocks.values()]
        return {"shape": list(self.input_shape), "widths": widths, "outputs": self.output.out_features}

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[1:] != self.input_shape:
            raise ValueError(f"this SpeedNet takes images {self.input_shape}, and got {tuple(images.shape[1:])}")
        units = gelu(self.stem(channels_last(images)))  # (B, 8 C, H - 1, W - 1)
        for block in self.blocks.values():
            units = block(units)  # (B, width, H / 2, W / 2)
        return self.output(units.amax((2, 3))) * SCALE  # (B, outputs)


def unscaled(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """A normalisation whose scale stays 1."""
    norm.weight.requires_grad_(False)
    return norm
