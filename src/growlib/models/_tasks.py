"""TaskNet: a network in which every task gets units of its own, which may read those of the tasks before."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

from growlib.growth import Change, widen
from growlib.growth.journal import all_or_nothing
from growlib.growth.optimizers import add_parameters, lay_out_alike
from growlib.growth.width import described
from growlib.layers import Hidden
from growlib.models._plain import channels_last, positive
from growlib.models._tagged import INPUTS, TaskBatchNorm2d, TaskConv2d, TaskLinear
from growlib.models._task_model import TaskModel


class TaskNet(TaskModel):
    """Convolutions, then dense layers, in which every task has units, normalisations and a head of its own.

    A convolution (3 x 3) is followed by pooling where `pools` says so, its normalisation and ReLU; behind the last one
    the strongest answer of every filter is kept; a dense layer is followed by ReLU.

    Args:
        shape: Of one example: (C, H, W), or anything without convolutions.
        task: The name of the first task: that of its data set.
        classes: How many it has.
        channels: The number of its filters in every convolution: conv1, conv2, ...
        hidden: The number of its units in every dense layer: hidden1, hidden2, ...
        pools: The numbers of the convolutions that halve the image, or None for all.
        transfer: Whether units of later tasks read those of the tasks before, or the names of the tasks that are read.
            Old units never read new ones.
        norm: Without it, convolutions have biases.
        further: The arguments of `grow` for each task after the first.
        closed: The names of the tasks that are closed.
    """

    activation = staticmethod(relu)

    def __init__(
        self,
        shape: Sequence[int],
        task: str,
        classes: int,
        channels: Sequence[int] = (),
        hidden: Sequence[int] = (),
        pools: Sequence[int] | None = None,
        transfer: bool | Sequence[str] = True,
        norm: bool = True,
        further: Sequence[dict] = (),
        closed: Sequence[str] = (),
    ):
        super().__init__(shape, [])
        self.transfer, self.norm = transfer, norm
        self.pools = list(range(1, len(channels) + 1) if pools is None else pools)
        positive("TaskNet", *shape, *channels, *hidden)
        self._refuse_pools(len(channels))
        self.convolutions = [f"conv{number}" for number in range(1, len(channels) + 1)]
        self.dense = [f"hidden{number}" for number in range(1, len(hidden) + 1)]
        self._make_layers()
        self.grow(task, list(channels), list(hidden), classes)
        for settings in further:
            self.grow(**settings)
        for name in closed:
            self.close(name)

    def _make_layers(self):
        for name in self.convolutions:
            self.add_module(name, TaskConv2d(3, bias=not self.norm))
            if self.norm:
                self.add_module(name.replace("conv", "norm"), TaskBatchNorm2d())
        for name in [*self.dense, "output"]:
            self.add_module(name, TaskLinear())

    def _refuse_pools(self, convolutions: int):
        if not set(self.pools) <= set(range(1, convolutions + 1)):
            raise ValueError(f"pools={self.pools} must be numbers of the {convolutions} convolutions, from 1")
        if self.pools and min(self.input_shape[1:]) >> len(self.pools) < 1:
            raise ValueError(f"{len(self.pools)} poolings leave nothing of images {self.input_shape}")

    def grow(
        self, task: str, channels=0, hidden=0, classes: int | None = None, optimizer=None, transfer=None
    ) -> Change:
        """Gives a new task its units and its head, or the newest task more units.

        New units of a task that is being learned read nothing that they would change: it answers as before (zero_out).

        Args:
            task: Its name.
            channels: The number of new filters: of every convolution, or one number for each. Without any units a new
                task gets a head only, which reads the units that are there.
            hidden: The number of new units: of every dense layer, or one number for each.
            classes: Of a new task.
            optimizer: The optimizer in use; the new tensors join its groups, with an empty state.
            transfer: As in TaskNet, for this task; None as the model says.

        Returns:
            The Change; its widths are the numbers of the task's units.
        """
        plan = self.plan(channels, hidden)
        if task not in self.tasks:
            return self._begin(task, plan, classes, optimizer, transfer)
        if task in self.closed:
            raise ValueError(f"task {task!r} is closed: its units keep their values for ever. Grow a new task")
        if self.number(task) != self.growing:
            raise ValueError(f"only the newest task with units of its own can grow, and that is not {task!r}")
        before = sum(hidden.width for hidden in self.hidden)
        with all_or_nothing(self, optimizer):
            for name, by in plan.items():
                if by:
                    widen(self, name, by, optimizer=optimizer)
            return described(self, "grow", task, before, before + sum(plan.values()))

    def plan(self, channels, hidden) -> dict[str, int]:
        """How many units `grow` adds to every layer."""
        found = {}
        for name, units, layers in (("channels", channels, self.convolutions), ("hidden", hidden, self.dense)):
            numbers = [units] * len(layers) if isinstance(units, int) else list(units)
            if len(numbers) != len(layers) or not all(isinstance(n, int) and n >= 0 for n in numbers):
                raise ValueError(f"{name}={units!r}: give a whole number, or one for each of the {len(layers)} layers")
            found |= zip(layers, numbers, strict=True)
        return found

    def _begin(self, task: str, plan: dict[str, int], classes, optimizer, transfer) -> Change:
        if not isinstance(classes, int) or classes < 1:
            raise ValueError(f"the new task {task!r} needs its number of classes, and got classes={classes!r}")
        if any(plan.values()) and not all(plan.values()):
            raise ValueError(f"task {task!r} needs units in every layer, or in none for a head only, and got {plan}")
        read = self._read(transfer, head_only=not any(plan.values()))
        with all_or_nothing(self, optimizer):
            new = self._put_blocks(task, plan, classes, read)
            add_parameters(optimizer, self, new)
            return described(self, "task", task, 0, sum(plan.values()))

    def _put_blocks(self, task: str, plan: dict[str, int], classes: int, read: list[int]) -> list[nn.Module]:
        """The blocks of a new task, in their places."""
        number = len(self.tasks)
        self.tasks.append(task)
        new = []
        sources = self._start(number, new) if any(plan.values()) else {}
        for name, units in plan.items():
            layer = getattr(self, name)
            if units:
                new.append(layer.add(number, units, sources))
                if name in self.convolutions and self.norm:
                    new.append(self.norm_of(name).add(number, units))
            widths = layer.widths
            sources = {source: widths[source] for source in (*read, number) if source in widths}
        new.append(self.output.add(number, classes, sources or self._inputs))
        for module in new:
            module.to(next(self.parameters())).train(self.training)
        lay_out_alike(self, new)
        return new

    @property
    def _inputs(self) -> dict:
        return {INPUTS: self.input_shape[0] if self.convolutions else prod(self.input_shape)}

    def _start(self, number: int, new: list) -> dict:
        """What the first layer of a task reads, and how wide that is; `new` takes the blocks that this needs."""
        return self._inputs

    def _read(self, transfer, head_only: bool) -> list[int]:
        """The numbers of the earlier tasks whose units a new task reads."""
        transfer = self.transfer if transfer is None else transfer
        if isinstance(transfer, bool):
            return list(range(len(self.tasks))) if transfer or head_only else []
        return [number for number, name in enumerate(self.tasks) if name in transfer]

    def norm_of(self, name: str) -> TaskBatchNorm2d:
        """The normalisations of a convolution."""
        return getattr(self, name.replace("conv", "norm"))

    @property
    def growing(self) -> int | None:
        """The number of the newest task with units of its own, if it is open."""
        owner = max((max(getattr(self, name).widths) for name in [*self.convolutions, *self.dense][:1]), default=None)
        return None if owner is None or self.tasks[owner] in self.closed else owner

    @property
    def hidden(self) -> list[Hidden]:
        """The widths of that task: what `widen` and `prune` may change."""
        names, owner, found = [*self.convolutions, *self.dense], self.growing, []
        if owner is None:
            return []
        for name, reader in zip(names, [*names[1:], "output"], strict=True):
            layer, reader = getattr(self, name), getattr(self, reader)
            norms = (self.norm_of(name).block(owner),) if name in self.convolutions and self.norm else ()
            consumers, reads = [], {}
            for number, sources in reader.sources.items():
                if owner in sources:
                    consumers.append(reader.block(number))
                    reads[consumers[-1]] = tuple(
                        (layer.block(owner), 1) if source == owner else (None, layer.widths[source])
                        for source in sources
                    )
            found.append(Hidden(name, (layer.block(owner),), norms, tuple(consumers), reads=reads))
        return found

    def config(self) -> dict:
        """The arguments that would build this network as it is now."""
        tasks = [self._settings(number) for number in range(len(self.tasks))]
        first = {key: value for key, value in tasks[0].items() if key != "transfer"}
        return {
            "shape": list(self.input_shape),
            **first,
            "pools": self.pools,
            "transfer": self.transfer,
            "norm": self.norm,
            "further": tasks[1:],
            "closed": [task for task in self.tasks if task in self.closed],
        }

    def _settings(self, number: int) -> dict:
        read = [self.tasks[source] for source in self.sources_of(number) if source != number]
        return {
            "task": self.tasks[number],
            "classes": self.output.widths[number],
            "channels": [getattr(self, name).widths.get(number, 0) for name in self.convolutions],
            "hidden": [getattr(self, name).widths.get(number, 0) for name in self.dense],
            "transfer": read,
        }

    def sources_of(self, number: int) -> list[int]:
        """The numbers of the tasks whose units a task reads, itself included if it has any."""
        return [source for source in self.output.sources[number] if source != INPUTS]

    def needed(self, number: int) -> list[int]:
        """The numbers of the tasks whose blocks have to run for a task: those it reads, and those that they read."""
        found, new = set(), {number}
        while new:
            found |= new
            new = {source for task in new for source in self.sources_of(task)} - found
        return sorted(found)

    def features(self, inputs: Tensor, task: str | int | None = None) -> Tensor:
        """What the head of a task reads, (B, features)."""
        number = self.number(task)
        parts = self._run(inputs, number)
        return torch.cat([parts[source].flatten(1) for source in self.output.sources[number]], 1)

    def _run(self, inputs: Tensor, *numbers: int) -> dict:
        if tuple(inputs.shape[1:]) != self.input_shape:
            raise ValueError(
                f"this TaskNet takes examples of shape {self.input_shape}, and got {tuple(inputs.shape[1:])}: "
                "images of other sizes go through data.reshaped(...)"
            )
        tasks = sorted({task for number in numbers for task in self.needed(number)})
        parts = self._begun(channels_last(inputs) if self.convolutions else inputs.flatten(1), tasks)
        for position, name in enumerate(self.convolutions, 1):
            parts = getattr(self, name)(parts, tasks)  # (B, channels, H, W) of every task
            if position in self.pools:
                parts = {task: max_pool2d(units, 2) for task, units in parts.items()}
            parts = self.norm_of(name)(parts, tasks) if self.norm else parts
            parts = {task: self.activation(units) for task, units in parts.items()}
        if self.convolutions:
            parts = {task: units.amax((2, 3)) for task, units in parts.items()}  # (B, channels)
        for name in self.dense:
            layer = getattr(self, name)
            parts = {task: self.activation(units) for task, units in layer(parts, tasks).items()}  # (B, units)
        return parts

    def _begun(self, inputs: Tensor, tasks) -> dict:
        """What the first layers of some tasks read."""
        return {INPUTS: inputs}

    def forward(self, inputs: Tensor, task: str | int | Sequence | None = None) -> Tensor | list[Tensor]:
        if isinstance(task, list | tuple):  # what they share is computed once
            numbers = [self.number(one) for one in task]
            found = self.output(self._run(inputs, *numbers), numbers)
            return [found[number] for number in numbers]
        number = self.number(task)
        return self.output(self._run(inputs, number), [number])[number]  # (B, classes of the task)
