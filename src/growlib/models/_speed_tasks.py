"""TaskSpeedNet: SpeedNet's blocks, in which every task has units of its own."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import gelu

from growlib.layers import GrowBatchNorm2d, GrowConv2d
from growlib.models._speed import KERNEL, NORM, SCALE, unscaled
from growlib.models._starts import dirac
from growlib.models._tagged import INPUTS, Tagged, TaskBatchNorm2d, TaskConv2d, TaskLinear
from growlib.models._tasks import TaskNet


class TaskStem(Tagged):
    """For every task a small convolution whose filters never learn; its biases do."""

    def add(self, task: int, channels: int) -> GrowConv2d:
        """Gives a task its filters, two for every value of a patch."""
        block = GrowConv2d(channels, 2 * channels * KERNEL**2, KERNEL)
        block.weight.requires_grad_(False)
        return self.put(task, block, [INPUTS])


class TaskDiracConv2d(TaskConv2d):
    """A convolution whose filters belong to tasks, and begin by passing on the units of their own task."""

    def add(self, task: int, units: int, sources: dict) -> GrowConv2d:
        block = super().add(task, units, sources)
        return dirac(block, sum(sources.values()) - sources[task])


class TaskUnscaledBatchNorm2d(TaskBatchNorm2d):
    """A batch normalisation for every task, with biases only."""

    def add(self, task: int, units: int) -> GrowBatchNorm2d:
        return self.put(task, unscaled(GrowBatchNorm2d(units, **NORM)), [task])


class TaskSpeedNet(TaskNet):
    """SpeedNet, in which every task has a stem, units, normalisations and a head of its own.

    Units of later tasks read those of the tasks before in all convolutions but the first, which reads its own stem.
    `Whiten` behind NeuronGenesis gives the stem of every task its filters.

    Args:
        shape: Of one image, (C, H, W).
        task: The name of the first task: that of its data set.
        classes: How many it has.
        channels: The number of its filters in every convolution: conv1, conv2, ...
        pools: The numbers of the convolutions that halve the image, or None for every other one, from the first on.
        transfer, further, closed: As in TaskNet.
    """

    activation = staticmethod(gelu)

    def __init__(
        self,
        shape: Sequence[int],
        task: str,
        classes: int,
        channels: Sequence[int],
        pools: Sequence[int] | None = None,
        transfer: bool | Sequence[str] = True,
        further: Sequence[dict] = (),
        closed: Sequence[str] = (),
    ):
        pools = range(1, len(channels) + 1, 2) if pools is None else pools
        super().__init__(shape, task, classes, channels, pools=pools, transfer=transfer, further=further, closed=closed)

    def _make_layers(self):
        self.stem = TaskStem()
        for name in self.convolutions:
            self.add_module(name, TaskDiracConv2d(3, bias=False))
            self.add_module(name.replace("conv", "norm"), TaskUnscaledBatchNorm2d())
        self.output = TaskLinear(bias=False)

    def _start(self, number: int, new: list) -> dict:
        new.append(self.stem.add(number, self.input_shape[0]))
        return {number: self.stem.widths[number]}

    def _begun(self, inputs: Tensor, tasks) -> dict:
        return {task: gelu(units) for task, units in self.stem({INPUTS: inputs}, tasks).items()}

    def config(self) -> dict:
        """The arguments that would build this network as it is now."""
        return {name: value for name, value in super().config().items() if name not in ("hidden", "norm")}

    def forward(self, inputs: Tensor, task: str | int | Sequence | None = None) -> Tensor | list[Tensor]:
        logits = super().forward(inputs, task)
        return [one * SCALE for one in logits] if isinstance(logits, list) else logits * SCALE
