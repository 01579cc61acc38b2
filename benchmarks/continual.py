"""EWC, GEM, Replay, PackNet and progressive networks of Avalanche 0.6, on the streams and tensors of chapter 23.

    pip install -e ".[continual-peers]"     installs Avalanche and its solver
    python benchmarks/continual.py          needs MNIST and CIFAR-100 (GROWLIB_DATA, or a connection)
    python benchmarks/continual.py sweep    prints what the strengths of EWC were chosen by: validation data, seed 100

Splits, network, optimizer, schedule, epochs, batches and memory are those of the chapter; every task has a head, and is
told. PackNet packs all layers before the heads and prunes after whole epochs. Avalanche's progressive network has dense
layers only, and each of its columns reads the images and all columns before it, so on photographs it is another
network, and a larger one.
Runs go to data/results/continual_peers, their means to data/results/benchmarks/continual.json.
"""

import sys
import time
from dataclasses import replace
from statistics import mean

import torch
from avalanche.benchmarks import tensors_benchmark
from avalanche.core import SupervisedPlugin
from avalanche.models import PNN, MultiHeadClassifier, MultiTaskModule
from avalanche.models.packnet import PackNetModel
from avalanche.training import EWC, GEM, PackNet, PNNStrategy, Replay
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from growlib import load, results
from growlib.continual import accuracy_matrix, average_accuracy, forgetting
from growlib.data import Split, split_by_class

STREAMS = {  # pnn: units of each of two layers in every column; gem: images kept of every task
    "split-mnist": {
        "data": "mnist",
        "tasks": 5,
        "channels": [],
        "hidden": [256, 256],
        "epochs": 2,
        "pnn": 51,
        "gem": 50,
    },
    "split-cifar": {
        "data": "cifar100",
        "tasks": 10,
        "channels": [16, 32, 128],
        "hidden": [],
        "epochs": 3,
        "pnn": 32,
        "gem": 20,
    },
}
BATCH, RATE, MEMORY = 64, 2e-3, 200  # examples, the highest learning rate of a task, images of all earlier tasks
CHOSEN = {"split-mnist": 10000.0, "split-cifar": 10000.0}  # the strength of EWC, by `sweep`
SWEPT = [100.0, 1000.0, 10000.0]
METHODS = ["ewc", "gem", "replay", "packnet", "pnn"]


def halved(data):
    """The same images with the means of 2 x 2 pixels."""
    parts = {}
    for name in ("train", "val", "test"):
        split = getattr(data, name)
        images = split.images.float().unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5)).round().to(torch.uint8)
        parts[name] = Split(images, split.labels)
    return replace(data, **parts)


def tasks_of(name: str, seed: int = 0) -> list:
    """The tasks."""
    data = load(STREAMS[name]["data"], seed=seed)
    return split_by_class(halved(data) if name == "split-cifar" else data, STREAMS[name]["tasks"])


class Normalized(nn.Module):
    """Makes floats of bytes, as the chapter's batches are."""

    def __init__(self, data):
        super().__init__()
        self.data = data

    def forward(self, images):
        return self.data.normalize(images)


def trunk(data, channels: list[int], hidden: list[int]) -> tuple[nn.Sequential, int]:
    """What all heads of a shared network read, and how many values that are."""
    layers, width = [Normalized(data)], data.shape[0]
    for filters in channels:
        layers += [nn.Conv2d(width, filters, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()]
        width = filters
    layers += [nn.AdaptiveMaxPool2d(1)] if channels else []
    width = width if channels else data.train.images[0].numel()
    layers += [nn.Flatten()]
    for units in hidden:
        layers += [nn.Linear(width, units), nn.ReLU()]
        width = units
    return nn.Sequential(*layers), width


class Shared(MultiTaskModule):
    """A trunk, and a head for every task."""

    def __init__(self, trunk: nn.Module, width: int):
        super().__init__()
        self.trunk, self.heads = trunk, MultiHeadClassifier(width)

    def forward(self, images, task_labels):
        return self.heads(self.trunk(images), task_labels)


class Packed(PackNetModel):
    """The same with a packed trunk."""

    def __init__(self, trunk: nn.Module, width: int):
        super().__init__(trunk)
        self.heads = MultiHeadClassifier(width)

    def forward(self, images, task_labels):
        return self.heads(super().forward(images, task_labels), task_labels)


class Progressive(PNN):
    """Two dense layers in every column."""

    def __init__(self, data, units: int):
        super().__init__(2, data.train.images[0].numel(), units)
        self.normalized = Normalized(data)

    def forward(self, images, task_labels):
        return super().forward(self.normalized(images), task_labels)


class OneCycle(SupervisedPlugin):
    """A schedule of its own for every task."""

    def before_training_exp(self, strategy, **_):
        steps = strategy.train_epochs * len(strategy.dataloader)
        self.schedule = OneCycleLR(strategy.optimizer, RATE, total_steps=steps)

    def after_training_iteration(self, strategy, **_):
        self.schedule.step()


def learner(method: str, setting: dict, data, strength: float | None):
    """A model, and the strategy that trains it. Margins and widths are Avalanche's defaults where none is given."""
    count = setting["tasks"]
    kinds = {
        "ewc": (EWC, {"ewc_lambda": strength}),
        "gem": (GEM, {"patterns_per_exp": setting["gem"]}),
        "replay": (Replay, {"mem_size": MEMORY}),
        "packnet": (  # of the weights that are free a task gives on all but its share
            PackNet,
            {"post_prune_epochs": 1, "prune_proportion": [1 - 1 / (count - number) for number in range(count)]},
        ),
        "pnn": (PNNStrategy, {}),
    }
    if method == "pnn":
        model = Progressive(data, setting["pnn"])
    else:
        model = (Packed if method == "packnet" else Shared)(*trunk(data, setting["channels"], setting["hidden"]))
    kind, named = kinds[method]
    named |= {"criterion": nn.CrossEntropyLoss(), "train_mb_size": BATCH, "train_epochs": setting["epochs"]}
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    strategy = kind(model=model, optimizer=optimizer, evaluator=None, **named)
    strategy.plugins.append(OneCycle())
    return model, strategy


@torch.no_grad()
def accuracy(model: nn.Module, data, task: int, split: str) -> float:
    model.eval()
    part = getattr(data, split)
    pairs = zip(part.images.split(1000), part.labels.split(1000), strict=True)
    return sum((model(x, torch.full((len(x),), task)).argmax(1) == y).sum().item() for x, y in pairs) / len(part)


def measure(seed: int, stream: str, method: str, strength: float | None = None, split: str = "test"):
    torch.manual_seed(seed)
    tasks = tasks_of(stream, seed)
    train, val = (
        [(part.images, part.labels) for part in (getattr(t, name) for t in tasks)] for name in ("train", "val")
    )
    benchmark = tensors_benchmark(train, val, task_labels=range(len(tasks)))
    model, strategy = learner(method, STREAMS[stream], tasks[0], strength)
    seconds, history = 0.0, []
    for number, experience in enumerate(benchmark.train_stream):
        start = time.perf_counter()
        strategy.train(experience)
        seconds += time.perf_counter() - start
        found = {
            f"{split}_accuracy_{data.name}": accuracy(model, data, task, split)
            for task, data in enumerate(tasks[: number + 1])
        }
        history.append({"step": number, "learned": tasks[number].name, **found})
    matrix = accuracy_matrix(history, split)
    metrics = {f"{split}_accuracy": average_accuracy(matrix), "forgetting": forgetting(matrix), "seconds": seconds}
    return {**metrics, "parameters": sum(parameter.numel() for parameter in model.parameters())}, history


def sweep():
    for stream in STREAMS:
        for strength in SWEPT:
            print(stream, strength, measure(100, stream, "ewc", strength, split="val")[0], flush=True)


def record(seeds: range):
    """Every method on every stream, seed by seed, and then the means."""
    for seed in seeds:
        for stream, setting in STREAMS.items():
            arms = {f"{stream}-{method}": {"stream": stream, "method": method} for method in METHODS}
            arms[f"{stream}-ewc"]["strength"] = CHOSEN[stream]
            given = {"profile": "full", "device": "cpu", "data": [load(setting["data"])]}
            results.grid(measure, arms, [seed], chapter="continual_peers", **given)
    summarize()


def summarize():
    """Means over the seeds that are recorded, in one file."""
    means, spent = {}, 0.0
    for stream in STREAMS:
        for method in METHODS:
            found = results.read("continual_peers", f"{stream}-{method}")
            spent += sum(run["wall_time_s"] for run in found)
            name = f"{stream}-{method}".replace("-", "_")
            means[f"{name}_seeds"] = len(found)
            means |= {
                f"{name}_{key}": mean(run["metrics"][key] for run in found)
                for key in ("test_accuracy", "forgetting", "parameters")
            }
    given = {"profile": "full", "seed": 0, "device": "cpu", "data": [load(s["data"]) for s in STREAMS.values()]}
    parameters = {"streams": STREAMS, "ewc": CHOSEN, "batch_size": BATCH, "max_lr": RATE, "memory": MEMORY}
    results.record(
        "benchmarks", "continual", parameters=parameters, metrics=means, history=[], wall_time_s=spent, **given
    )


if __name__ == "__main__":
    if "sweep" in sys.argv:
        sweep()
    else:
        record(range(3))
        print(results.table("continual_peers", ["test_accuracy", "forgetting", "seconds", "parameters"]))
