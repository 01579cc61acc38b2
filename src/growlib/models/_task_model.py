"""TaskModel: what all networks of tagged layers can do."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from growlib.growth.journal import all_or_nothing
from growlib.growth.optimizers import remove_parameters
from growlib.layers import TakesOnWidths
from growlib.models._tagged import INPUTS, Tagged


class TaskModel(TakesOnWidths, nn.Module):
    """A model of tagged layers that is called as model(inputs, task); a task is named, or numbered as it came.

    Args:
        inputs: The shape of one example.
        tasks: The names of the tasks, in the order in which they came.
    """

    def __init__(self, inputs: Sequence[int], tasks: Sequence[str]):
        super().__init__()
        self.input_shape, self.tasks = tuple(inputs), list(tasks)
        self.learned = {}  # by task: the identity of the data that it was learned from

    @property
    def layers(self) -> dict[str, Tagged]:
        """The tagged layers, by name, in the order in which they were made."""
        return {name: module for name, module in self.named_modules() if isinstance(module, Tagged)}

    @property
    def closed(self) -> set[str]:
        """The names of the tasks that can't be changed any more."""
        return {self.tasks[number] for layer in self.layers.values() for number in layer.closed}

    def number(self, task: str | int | None) -> int:
        """The number of a task; without one, of the newest."""
        if task is None:
            return len(self.tasks) - 1
        if isinstance(task, str) and task in self.tasks:
            return self.tasks.index(task)
        if isinstance(task, int) and 0 <= task < len(self.tasks):
            return task
        known = ", ".join(f"{name!r} ({number})" for number, name in enumerate(self.tasks))
        raise ValueError(f"unknown task {task!r}: the model has learned {known}. grow(...) gives it another one")

    def owner(self, name: str) -> str | None:
        """The task that a parameter or buffer belongs to, by its name in the state_dict, or None."""
        layer, found, rest = name.partition(".blocks.")
        return self.tasks[int(rest.split(".")[0])] if found and layer in self.layers else None

    def task_parameters(self, task: str | int) -> dict[str, nn.Parameter]:
        """The parameters of a task, by name."""
        name = self.tasks[self.number(task)]
        return {path: tensor for path, tensor in self.named_parameters() if self.owner(path) == name}

    def task_buffers(self, task: str | int) -> dict[str, Tensor]:
        """The running statistics of a task's normalisations, by name."""
        name = self.tasks[self.number(task)]
        return {path: tensor for path, tensor in self.named_buffers() if self.owner(path) == name}

    def close(self, task: str | int, optimizer=None):
        """Ends a task: its blocks keep their values, leave the optimizer and stay in eval mode for ever.

        Args:
            task: Name or number; what its units read must belong to closed tasks, or to itself.
            optimizer: The optimizer in use.
        """
        number = self.number(task)
        read = {source for layer in self.layers.values() for source in layer.sources.get(number, ())}
        if still := [self.tasks[s] for s in sorted(read - {INPUTS, number}) if self.tasks[s] not in self.closed]:
            raise ValueError(f"{self.tasks[number]!r} reads units of {', '.join(map(repr, still))}: close these first")
        with all_or_nothing(self, optimizer):
            remove_parameters(optimizer, self.task_parameters(number).values())
            for layer in self.layers.values():
                layer.close(number)

    def apply_task_gradient_mask(self, task: str | int | None = None):
        """Sets the gradients of all units that are not of this task to zero: call it after backward().

        By itself it does not protect them: weight decay and momentum move weights without a gradient, and running
        statistics have none. `close` does.
        """
        name = self.tasks[self.number(task)]
        for path, parameter in self.named_parameters():
            if parameter.grad is not None and self.owner(path) not in (name, None):
                parameter.grad.zero_()

    @torch.no_grad()
    def all_logits(self, inputs: Tensor) -> Tensor:
        """What the heads of all tasks say: (B, tasks, most classes), -inf where a task has fewer classes."""
        heads = [self(inputs, number) for number in range(len(self.tasks))]  # (B, classes)
        most = max(logits.shape[1] for logits in heads)
        rows = [nn.functional.pad(logits, (0, most - logits.shape[1]), value=-torch.inf) for logits in heads]
        return torch.stack(rows, 1)
