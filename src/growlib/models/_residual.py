"""ResNet: a residual network that knows its hidden layers."""

from itertools import count, pairwise

from torch import Tensor, nn
from torch.nn.functional import relu

from growlib.layers import GrowBatchNorm2d, GrowConv2d, GrowLinear, Hidden, TakesOnWidths
from growlib.models._plain import channels_last, numbered, positive


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut: relu(shortcut(stream) + convolutions(stream)).

    Args:
        before: The width of the stream that comes in.
        inner: The width between the two convolutions.
        after: The width of the stream that goes out.
        stride: 2 halves the image. The shortcut is the identity, unless the width or the image changes.
    """

    def __init__(self, before: int, inner: int, after: int, stride: int = 1):
        super().__init__()
        self.conv1 = GrowConv2d(before, inner, 3, stride, padding=1, bias=False)
        self.norm1 = GrowBatchNorm2d(inner)
        self.conv2 = GrowConv2d(inner, after, 3, padding=1, bias=False)
        self.norm2 = GrowBatchNorm2d(after)
        self.shortcut = self.shortcut_norm = None
        if stride > 1 or before != after:
            self.shortcut = GrowConv2d(before, after, 1, stride, bias=False)
            self.shortcut_norm = GrowBatchNorm2d(after)

    def silence(self):
        """Makes the branch zero, so that the block passes on its stream."""
        nn.init.zeros_(self.norm2.weight), nn.init.zeros_(self.norm2.bias)

    def forward(self, stream: Tensor) -> Tensor:
        units = relu(self.norm1(self.conv1(stream)))  # (B, inner, H / stride, W / stride)
        units = self.norm2(self.conv2(units))  # (B, after, H / stride, W / stride)
        if self.shortcut is not None:
            stream = self.shortcut_norm(self.shortcut(stream))
        return relu(stream + units)


class ResNet(TakesOnWidths, nn.Module):
    """A residual network: a stem, stages of residual blocks on ever smaller images, their mean, a linear layer.

    What is added up shares a width, so all that add to the stream of a stage grow together: this width is the Hidden
    "stage1"; the width inside a block is the Hidden "stage1.block1".

    Args:
        shape: Of one image, (C, H, W). Every stage after the first halves it.
        widths: Of the stream, for every stage.
        blocks: For every stage their number, all as wide inside as the stream, or a dict from name to inner width.
        outputs: Classes.
        stride: Of the stem: 2 halves the image before the first stage, for a quarter of the work.

    Source: He et al., "Deep Residual Learning for Image Recognition" (2016), section 4.2, with projection shortcuts.
    """

    def __init__(self, shape: tuple[int, int, int], widths: list[int], blocks: list, outputs: int, stride: int = 1):
        super().__init__()
        if len(widths) != len(blocks) or not widths:
            raise ValueError(f"a ResNet needs stages, each with a width and its blocks, and got {widths} and {blocks}")
        blocks = [
            [width] * entry if isinstance(entry, int) else entry for entry, width in zip(blocks, widths, strict=True)
        ]
        stages = [numbered("block", entry) for entry in blocks]
        inner = [size for stage in stages for size in (len(stage), *stage.values())]
        positive("ResNet", *shape, *widths, *inner, outputs, stride)
        self.input_shape, self.stride = tuple(shape), stride
        self.stem = GrowConv2d(shape[0], widths[0], 3, stride, padding=1, bias=False)
        self.stem_norm = GrowBatchNorm2d(widths[0])
        self.stages = {}  # the names of a stage's blocks, in the order in which they run
        for number, (before, after) in enumerate(pairwise([widths[0], *widths]), start=1):
            name, sizes = f"stage{number}", stages[number - 1]
            self.stages[name] = list(sizes)
            self.add_module(name, nn.ModuleDict())
            for block, width in sizes.items():
                first = number > 1 and block == self.stages[name][0]
                getattr(self, name)[block] = ResidualBlock(before if first else after, width, after, 1 + first)
        self.output = GrowLinear(widths[-1], outputs)

    @property
    def blocks(self) -> dict[str, ResidualBlock]:
        """All blocks in the order in which they run, by names such as "stage1.block1"."""
        return {f"{stage}.{name}": getattr(self, stage)[name] for stage, names in self.stages.items() for name in names}

    @property
    def hidden(self) -> list[Hidden]:
        streams = [([self.stem], [self.stem_norm], [])]
        for block in self.blocks.values():
            streams[-1][2].append(block.conv1)
            if block.shortcut is not None:
                streams[-1][2].append(block.shortcut)
                streams.append(([block.shortcut], [block.shortcut_norm], []))
            streams[-1][0].append(block.conv2)
            streams[-1][1].append(block.norm2)
        streams[-1][2].append(self.output)
        found = [Hidden(stage, *map(tuple, parts)) for stage, parts in zip(self.stages, streams, strict=True)]
        return found + [Hidden(n, (b.conv1,), (b.norm1,), (b.conv2,)) for n, b in self.blocks.items()]

    def config(self) -> dict:
        """The arguments that would build this network as it is now."""
        widths = {hidden.name: hidden.width for hidden in self.hidden}
        return {
            "shape": list(self.input_shape),
            "widths": [widths[stage] for stage in self.stages],
            "blocks": [{name: widths[f"{stage}.{name}"] for name in names} for stage, names in self.stages.items()],
            "outputs": self.output.out_features,
            "stride": self.stride,
        }

    def insert_layer(self, after: str) -> tuple[str, ResidualBlock]:
        """Puts a new block behind a block, or behind the last one of a stage: its name, and the block."""
        stage, _, block = after.partition(".")
        names = self.stages.get(stage, [])
        if block not in ("", *names) or not names:
            known = ", ".join(map(repr, [*self.stages, *self.blocks]))
            raise ValueError(f"no block or stage {after!r}: the model has {known}")
        number = next(number for number in count(1 + len(names)) if f"block{number}" not in names)
        blocks, width = getattr(self, stage), len(getattr(self, stage)[names[0]].conv2.weight)
        new = ResidualBlock(width, width, width).to(self.stem.weight).train(self.training)
        names.insert(names.index(block or names[-1]) + 1, f"block{number}")
        modules = {**blocks, f"block{number}": new}
        blocks.clear()
        blocks.update({name: modules[name] for name in names})
        return f"{stage}.block{number}", new

    def remove_layer(self, name: str):
        """Takes a block out that `insert_layer` put in."""
        stage, _, block = name.partition(".")
        self.stages[stage].remove(block)
        del getattr(self, stage)[block]

    def forward(self, images: Tensor) -> Tensor:
        stream = relu(self.stem_norm(self.stem(channels_last(images))))  # (B, widths[0], H / stride, W / stride)
        for block in self.blocks.values():
            stream = block(stream)  # (B, widths[stage], H / stride / 2 ** (stage - 1), ...)
        return self.output(stream.mean((2, 3)))  # (B, outputs)
