"""SynapticNet: the network that part III began with, as it was published, and its recipe with test data beside.

One wide network holds all tasks. A mask lets a task use its own units only, growing builds every layer anew, and the
classes of other tasks keep logits of zero that take part in the softmax. What such a network computes for a task is
what a network of this task's units alone computes, at a fraction of the work: `train` trains that one.

Source: Harsha Vardhan Reddy M, SynapticNet: a continual learning architecture with dynamic growth (2025), notebook.
"""

from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy, dropout, interpolate, max_pool2d, pad, relu

from growlib import costs, parallel
from growlib.data import refuse_namesakes
from growlib.layers import evaluating
from growlib.trainer import derive_seed

SIDE, BATCH, RATE, DROPPED = 32, 64, 1e-3, 0.2  # the published recipe: pixels, examples, Adam's rate, dropout
RECIPE = ((0, 3), (1, 10), (2, 10), (3, 10))  # visits in the README's order: the position of a data set, and epochs
REVISITS = ((1, 10), (2, 10), (3, 10))  # what the notebook's execution counts add, once everything has grown


class _Masked:
    """A layer whose units belong to tasks: those of other tasks give zeros."""

    def start(self, owners: Tensor):
        self.register_buffer("owners", owners)  # (units,): the task of each
        nn.init.normal_(self.weight, std=0.01), nn.init.normal_(self.bias, std=0.01)

    def forward(self, inputs: Tensor, task: int) -> Tensor:
        outputs, own = super().forward(inputs), self.owners == task  # (B, units, ...) of every task; (units,)
        return outputs if own.all() else outputs * own.view(-1, *[1] * (outputs.ndim - 2))

    def mask_gradients(self, task: int):
        if (others := self.owners != task).any():
            self.weight.grad[others], self.bias.grad[others] = 0, 0


class MaskedLinear(_Masked, nn.Linear):
    """A linear layer over all tasks' units.

    Args:
        inputs: Values that come in.
        owners: The task of every unit, (units,).
    """

    def __init__(self, inputs: int, owners: Tensor):
        super().__init__(inputs, len(owners))
        self.start(owners)


class MaskedConv2d(_Masked, nn.Conv2d):
    """A 3 x 3 convolution over all tasks' filters.

    Args:
        inputs: Channels that come in.
        owners: The task of every filter, (filters,).
    """

    def __init__(self, inputs: int, owners: Tensor):
        super().__init__(inputs, len(owners), 3, padding=1)
        self.start(owners)


class SynapticNet(nn.Module):
    """Four masked convolutions and two masked linear layers, for images of three channels; it starts with task 0.

    Args:
        channels: Filters of every convolution.
        hidden: Units of the hidden linear layer.
        classes: Of the first task.
    """

    def __init__(self, channels: int = 64, hidden: int = 512, classes: int = 10):
        super().__init__()
        self.tasks = 0
        self._build(*(torch.zeros(count, dtype=torch.long) for count in (channels, hidden, classes)))
        self.tasks = 1

    def _build(self, channels: Tensor, hidden: Tensor, classes: Tensor):
        inputs = [3, *[len(channels)] * 3]
        self.convs = nn.ModuleList(MaskedConv2d(count, channels) for count in inputs)
        self.hidden = MaskedLinear(16 * len(channels), hidden)
        self.output = MaskedLinear(len(hidden), classes)

    @property
    def layers(self) -> list[nn.Module]:
        return [*self.convs, self.hidden, self.output]

    @torch.no_grad()
    def grow(self, channels: int = 64, hidden: int = 512, classes: int = 10):
        """Builds every layer anew, wider for one more task, and copies the old values into its corner."""
        old, like = self.layers, self.output.weight
        groups = [(self.convs[0], channels), (self.hidden, hidden), (self.output, classes)]
        self._build(*(torch.cat([part.owners.cpu(), torch.full((by,), self.tasks)]) for part, by in groups))
        self.to(like)
        for new, layer in zip(self.layers, old, strict=True):
            new.weight[tuple(map(slice, layer.weight.shape))] = layer.weight
            new.bias[: len(layer.bias)] = layer.bias
        self.tasks += 1

    def forward(self, images: Tensor, task: int) -> Tensor:
        units = images  # (B, 3, H, W)
        for number, conv in enumerate(self.convs):
            units = conv(units, task)  # (B, channels, H, W)
            units = relu(max_pool2d(units, 2) if number < 3 else units)  # the same as pooling after ReLU, for less work
        units = adaptive_avg_pool2d(units, 4)  # (B, channels, 4, 4)
        units = relu(self.hidden(units.flatten(1), task))  # (B, hidden)
        return self.output(dropout(units, DROPPED, self.training), task)  # (B, classes of all tasks)

    def mask_gradients(self, task: int):
        """Zeroes the gradients of the units of other tasks, as the published loop does before a step."""
        for layer in self.layers:
            layer.mask_gradients(task)

    def alone(self, task: int) -> "SynapticNet":
        """A small network of the units of one task alone: the same function, without the zeros."""
        sizes = [int((part.owners == task).sum()) for part in (self.convs[0], self.hidden, self.output)]
        small = SynapticNet(*sizes).to(self.output.weight)
        _copy(self._own(task), small._own(0))
        return small.train(self.training)

    def put_back(self, small: "SynapticNet", task: int):
        """Takes over what a network from `alone` has learned."""
        _copy(small._own(0), self._own(task))

    def padded(self, logits: Tensor, task: int) -> Tensor:
        """Logits of a network from `alone` (B, classes of the task) with zeros for the classes of the others."""
        own = (self.output.owners == task).nonzero().flatten()
        return pad(logits, (int(own[0]), len(self.output.owners) - 1 - int(own[-1])))

    def _own(self, task: int) -> list[tuple]:
        """Of every layer: itself, and the slices of its weights that a task's units and their inputs have."""
        found, columns = [], slice(None)
        for layer in self.layers:
            own = (layer.owners == task).nonzero().flatten()
            rows = slice(int(own[0]), int(own[-1]) + 1)  # a task's units lie side by side
            found.append((layer, rows, columns))
            spread = 16 if layer is self.convs[-1] else 1  # every channel is 4 x 4 inputs of the linear layer
            columns = slice(rows.start * spread, rows.stop * spread)
        return found


@torch.no_grad()
def _copy(sources: list[tuple], targets: list[tuple]):
    for (source, rows, columns), (target, to_rows, to_columns) in zip(sources, targets, strict=True):
        target.weight[to_rows, to_columns] = source.weight[rows, columns]
        target.bias[to_rows] = source.bias[rows]


def prepared(images: Tensor) -> Tensor:
    """Images as the recipe has them: grey repeated, scaled to 32 x 32, pixels from -1 to 1.

    Args:
        images: (B, 1 or 3, H, W) of uint8.

    Returns:
        (B, 3, 32, 32) of float32.
    """
    pixels = images.float() / 255
    if pixels.shape[2:] != (SIDE, SIDE):
        pixels = interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True)
    return (2 * pixels - 1).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def everything(data, split: str) -> tuple[Tensor, Tensor]:
    """Images and labels of "test", or of all that is not: the recipe lays nothing aside for validation."""
    parts = [data.test] if split == "test" else [data.train, data.val]
    return torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts])


def train(net: SynapticNet, data, task: int, epochs: int, seed: int = 0, alone: bool = True, bfloat16: bool = False):
    """Trains one task with a fresh Adam.

    Args:
        net: Has grown for the task.
        data: The task's Dataset.
        task: From 0 on.
        epochs: Over all that is not test data.
        seed: Of dropout and shuffling.
        alone: Trains the task's own units only; else the whole network under masks, which is the same at more work.
        bfloat16: Computes so; the weights stay in float32.
    """
    images, labels = everything(data, "train")
    learner, number = (net.alone(task), 0) if alone else (net, task)
    learner.to(memory_format=torch.channels_last).train()
    torch.manual_seed(seed)  # of dropout
    order = torch.Generator().manual_seed(seed)
    offset = int((net.output.owners < task).sum())
    optimizer = torch.optim.Adam(learner.parameters(), lr=RATE, fused=True)
    for _ in range(epochs):
        for index in torch.randperm(len(labels), generator=order).to(labels.device).split(BATCH):
            with _precision(images, bfloat16):
                logits = learner(prepared(images[index]), number)
            logits = net.padded(logits, task) if alone else logits
            cross_entropy(logits.float(), labels[index] + offset).backward()
            learner.mask_gradients(number)
            optimizer.step()
            optimizer.zero_grad()
    if alone:
        net.put_back(learner, task)


@torch.no_grad()
def answers(net: SynapticNet, data, task: int, split: str, bfloat16: bool = False) -> Tensor:
    """The logits of a task's own classes, (N, classes), for "train" (all that is not test data) or "test"."""
    images, _ = everything(data, split)
    small = net.alone(task).to(memory_format=torch.channels_last)
    with evaluating(small), _precision(images, bfloat16):
        return torch.cat([small(prepared(part), 0).float() for part in images.split(1000)])


def judged(net: SynapticNet, data, task: int, split: str, logits: Tensor) -> dict[str, float]:
    """The accuracy among the classes of all tasks, as published, and the share of guesses of another task's class.

    Args:
        net, data, task, split: As in `answers`.
        logits: From there.
    """
    labels = everything(data, split)[1]
    guesses = net.padded(logits, task).argmax(1) - int((net.output.owners < task).sum())
    absent = (guesses < 0) | (guesses >= logits.shape[1])
    return {"accuracy": int((guesses == labels).sum()) / len(labels), "absent": int(absent.sum()) / len(labels)}


@contextmanager
def _precision(images: Tensor, bfloat16: bool):
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
        yield


class Rerun:
    """The recipe, visit by visit, with what the published run did not measure.

    Args:
        data: Datasets, in the order of their tasks.
        channels: The filters that each task adds to every convolution.
        hidden: The hidden units that it adds.
        seed: Of weights, dropout and shuffling.
        device: "auto" (CUDA, else CPU), or what torch calls it.
        bfloat16: Computes so when it trains and evaluates; the weights, and what growth does, are in float32.

    Attributes:
        net: The SynapticNet.
        history: One record a visit: its task and epochs; train_accuracy_NAME and test_accuracy_NAME of every data set
            seen so far; absent_NAME, the share of test images taken for a class of another task; growth_drift, the
            largest change of an old logit by the growth before it.
    """

    def __init__(
        self, *data, channels=(64, 64, 64, 128), hidden=(512, 512, 512, 1024), seed=0, device="auto", bfloat16=False
    ):
        device = parallel.device() if device == "auto" else torch.device(device)
        torch.manual_seed(seed)
        refuse_namesakes(*data)
        self.data, self.seed, self.bfloat16 = [part.to(device) for part in data], seed, bfloat16
        self.sizes = [(c, h, len(part.classes)) for c, h, part in zip(channels, hidden, data, strict=True)]
        self.net, self.history = SynapticNet(*self.sizes[0]).to(device), []
        self.answers = {}  # logits by task and split: growing adds zeros to them, and only a visit changes them

    def visit(self, task: int, epochs: int) -> dict:
        """Trains a task, for which the network grows if it is new, and measures all that it knows.

        Args:
            task: The position of its data set; a new one comes after those before it.
            epochs: Over its data.

        Returns:
            The record of the visit.
        """
        if task > self.net.tasks:
            raise ValueError(f"task {task} comes after task {self.net.tasks}, which the network has not grown for")
        moved = self._grow() if task == self.net.tasks else 0.0
        train(
            self.net, self.data[task], task, epochs, derive_seed(self.seed, len(self.history)), bfloat16=self.bfloat16
        )
        record = {"step": len(self.history), "task": self.data[task].name, "epochs": epochs, "growth_drift": moved}
        for number, data in enumerate(self.data[: self.net.tasks]):
            for split in ("train", "test"):
                if number == task:
                    self.answers[number, split] = answers(self.net, data, number, split, self.bfloat16)
                found = judged(self.net, data, number, split, self.answers[number, split])
                record[f"{split}_accuracy_{data.name}"] = found["accuracy"]
            record[f"absent_{data.name}"] = found["absent"]
        self.history.append(record)
        return record

    @torch.no_grad()
    def _grow(self) -> float:
        """Grows for the next task: the largest change of a logit of 256 test images of every old one."""
        torch.manual_seed(derive_seed(self.seed, 1000 + self.net.tasks))
        before = self._old_logits(tasks := self.net.tasks)
        self.net.grow(*self.sizes[tasks])
        pairs = zip(before, self._old_logits(tasks), strict=True)
        return max(float((old - new[:, : old.shape[1]]).abs().max()) for old, new in pairs)

    def _old_logits(self, tasks: int) -> list[Tensor]:
        with evaluating(self.net):
            return [self.net(prepared(data.test.images[:256]), task) for task, data in enumerate(self.data[:tasks])]

    @property
    def metrics(self) -> dict[str, float]:
        """What the last visit found, the largest drift by growth, and the parameters: all, and those that can act."""
        found = {
            name: value for name, value in self.history[-1].items() if name.startswith(("train_", "test_", "absent_"))
        }
        live = sum(costs.parameters(self.net.alone(task)) for task in range(self.net.tasks))
        drift = max(record["growth_drift"] for record in self.history)
        return {**found, "growth_drift": drift, "parameters": costs.parameters(self.net), "live_parameters": live}
