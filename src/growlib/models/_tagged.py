"""Layers whose units belong to tasks: TaskLinear, TaskConv2d and TaskBatchNorm2d.

Every task has a block of parameters of its own, which is computed by itself: never concatenated with the others', since
a matrix of another shape sums in another order, and the answers of old tasks would move by rounding.
"""

import torch
from torch import Tensor, nn

from growlib.layers import GrowBatchNorm2d, GrowConv2d, GrowLinear

INPUTS = "inputs"  # what comes from outside, belongs to no task and may be read by all


class Tagged(nn.Module):
    """A layer made of one block a task. A block that is closed keeps its values and stays in eval mode for ever."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleDict()  # by the number of the task, as text
        self.sources = {}  # for every task, whose units its block reads, in this order
        self.closed = set()

    def put(self, task: int, block: nn.Module, sources) -> nn.Module:
        if str(task) in self.blocks:
            raise ValueError(f"task {task} has a block in this layer already")
        self.blocks[str(task)], self.sources[task] = block, list(sources)
        return block

    def block(self, task: int) -> nn.Module | None:
        """The block of a task, or None."""
        return self.blocks._modules.get(str(task))

    @property
    def widths(self) -> dict[int, int]:
        """The number of units of every task."""
        return {int(task): len(block.weight) for task, block in self.blocks.items()}

    @property
    def task_ids(self) -> Tensor:
        """The task that every unit belongs to, (units,) of int64."""
        return torch.cat([torch.full((width,), task) for task, width in self.widths.items()])

    def close(self, task: int):
        """Freezes the block of a task, if it has one."""
        self.closed.add(task)
        if block := self.block(task):
            block.requires_grad_(False).eval()

    def train(self, mode: bool = True):
        super().train(mode)
        for task in self.closed:
            if block := self.block(task):
                block.eval()
        return self

    def forward(self, parts: dict, tasks) -> dict[int, Tensor]:
        """What the blocks of some tasks put out.

        Args:
            parts: The units that can be read, (B, units, ...) for every task, or for INPUTS.
            tasks: The numbers of the tasks that are asked for; those that have no block here are passed over.
        """
        found = {}
        for task in tasks:
            if block := self.block(task):
                read = [parts[source] for source in self.sources[task]]
                found[task] = block(read[0] if len(read) == 1 else torch.cat(read, 1))
        return found


class TaskLinear(Tagged):
    """A linear layer whose units belong to tasks.

    Args:
        bias: Whether units have one.
    """

    def __init__(self, bias: bool = True):
        super().__init__()
        self.bias = bias

    def add(self, task: int, units: int, sources: dict) -> GrowLinear:
        """Gives a task its units.

        Args:
            task: Its number.
            units: How many.
            sources: What they read: the task that owns it, or INPUTS, and its width.
        """
        return self.put(task, GrowLinear(sum(sources.values()), units, self.bias), sources)


class TaskConv2d(Tagged):
    """A convolution whose filters belong to tasks.

    Args:
        kernel: The side of a filter, odd: the image keeps its size.
        bias: False where a normalisation follows.
    """

    def __init__(self, kernel: int = 3, bias: bool = True):
        super().__init__()
        self.kernel, self.bias = kernel, bias

    def add(self, task: int, units: int, sources: dict) -> GrowConv2d:
        """Gives a task its filters; the arguments are those of TaskLinear."""
        size = sum(sources.values())
        return self.put(task, GrowConv2d(size, units, self.kernel, padding=self.kernel // 2, bias=self.bias), sources)


class TaskBatchNorm2d(Tagged):
    """A batch normalisation for every task: its own weights, and its own running statistics."""

    def add(self, task: int, units: int) -> GrowBatchNorm2d:
        """Gives a task the normalisation of its units."""
        return self.put(task, GrowBatchNorm2d(units), [task])
