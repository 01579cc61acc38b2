"""An epoch of SpeedNet on CIFAR-10: with growlib, with torchvision's data and a DataLoader, with airbench's own step.

python benchmarks/cifar.py --airbench airbench94.py

The last one is legacy/airbench94.py of https://github.com/KellerJordan/cifar10-airbench, which whoever runs this
fetches. It is written for a GPU: its network and its augmentation run here on the CPU, in float32, in the loop of its
`main`.
"""

import argparse
import importlib.util
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from statistics import median

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from growlib import Callback, SpeedNet, Split, Trainer, costs, load, norm_biases_apart, results

IMAGES = 50_000  # of an epoch
RATE, MOMENTUM, DECAY = 11.5 / (1 + 1 / (1 - 0.85)) / 1024, 0.85, 0.0153 / 11.5  # the rate is that of one example
SMOOTH = partial(cross_entropy, label_smoothing=0.2)


class Pictures(datasets.CIFAR10):
    """torchvision's CIFAR10, of arrays that are there already."""

    def __init__(self, data, transform):
        self.data, self.targets = data.train.images.permute(0, 2, 3, 1).numpy(), data.train.labels.tolist()
        self.transform, self.target_transform = transform, None


class Stopwatch(Callback):
    """The seconds from the start of an epoch to its last step, without the validation that follows."""

    def before_epoch(self, trainer):
        self.began = time.perf_counter()

    def after_step(self, trainer):
        self.seconds = time.perf_counter() - self.began


def started(width: int, batch_size: int):
    model = SpeedNet((3, 32, 32), [width, 4 * width, 4 * width], 10)
    groups = norm_biases_apart(model, lr=RATE * batch_size, weight_decay=DECAY)
    return model, torch.optim.SGD(groups, lr=RATE, momentum=MOMENTUM, nesterov=True)


def growlib_epoch(data, width: int, batch_size: int) -> float:
    """The seconds of an epoch of ours."""
    watch, (model, optimizer) = Stopwatch(), started(width, batch_size)
    moved = data.augmented(shift=2, flip="alternating", border="reflect")
    Trainer(model, optimizer, [watch], loss=SMOOTH, batch_size=batch_size, device="cpu").fit(moved, epochs=1)
    return watch.seconds


def loader_epoch(data, width: int, batch_size: int, workers: int) -> float:
    """The seconds of an ordinary epoch with the same network: the loop of a tutorial, without validation."""
    steps = [transforms.RandomCrop(32, 2, padding_mode="reflect"), transforms.RandomHorizontalFlip()]
    steps += [transforms.ToTensor(), transforms.Normalize(data.mean.tolist(), data.std.tolist())]
    pictures = Pictures(data, transforms.Compose(steps))
    loader = DataLoader(pictures, batch_size, shuffle=True, num_workers=workers)
    model, optimizer = started(width, batch_size)
    began = time.perf_counter()
    for images, labels in loader:
        optimizer.zero_grad()
        SMOOTH(model(images), labels).backward()
        optimizer.step()
    return time.perf_counter() - began


@contextmanager
def on_the_cpu():
    """Lets a script that says .half().cuda() stay where it is."""
    kept = nn.Module.half, nn.Module.cuda
    nn.Module.half = nn.Module.cuda = lambda module: module
    try:
        yield
    finally:
        nn.Module.half, nn.Module.cuda = kept


def airbench_epoch(script, data, width: int, batch_size: int) -> float:
    """The seconds of an epoch of airbench's network, augmentation and step."""
    script.hyp["net"]["widths"] = {"block1": width, "block2": 4 * width, "block3": 4 * width}
    with on_the_cpu():
        model = script.make_net()
    if (theirs := costs.parameters(model)) != (ours := costs.parameters(started(width, batch_size)[0])):
        raise ValueError(f"airbench's network has {theirs:,} parameters, and ours {ours:,}: fetch legacy/airbench94.py")
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    apart = [[parameter for name, parameter in named if ("norm" in name) is norm] for norm in (True, False)]
    groups = [{"params": part, "lr": RATE * factor} for part, factor in zip(apart, (64, 1), strict=True)]
    optimizer = torch.optim.SGD(groups, momentum=MOMENTUM, nesterov=True)
    images = data.normalize(data.train.images).to(memory_format=torch.channels_last)
    padded = nn.functional.pad(script.batch_flip_lr(images), (2,) * 4, "reflect")  # before its first epoch
    loss = nn.CrossEntropyLoss(label_smoothing=0.2, reduction="none")
    began = time.perf_counter()
    moved = script.batch_crop(padded, 32)
    for index in torch.randperm(len(moved)).split(batch_size):
        optimizer.zero_grad(set_to_none=True)
        loss(model(moved[index]), data.train.labels[index]).sum().backward()
        optimizer.step()
    return time.perf_counter() - began


def measure(seed: int, width: int, batch_size: int, images: int, rounds: int, airbench: str | None):
    """The median seconds of an epoch, all ways in turn in every round, scaled from some images to all."""
    torch.manual_seed(seed)
    data = load("cifar10")
    data = replace(data, train=Split(data.train.images[:images], data.train.labels[:images]))
    ways = {"growlib": growlib_epoch} | {
        f"torchvision_{workers}_workers": partial(loader_epoch, workers=workers) for workers in (0, 2)
    }
    if airbench:
        found = importlib.util.spec_from_file_location("airbench", airbench)
        found.loader.exec_module(script := importlib.util.module_from_spec(found))
        ways["airbench"] = partial(airbench_epoch, script)
    seconds = {name: [] for name in ways}
    for number in range(rounds + 1):  # round 0 warms up
        for name, epoch in ways.items():
            taken = epoch(data, width=width, batch_size=batch_size) * IMAGES / images
            seconds[name] += [taken] if number else []
    metrics = {f"seconds_{name}": median(taken) for name, taken in seconds.items()}
    for name in list(ways)[1:]:  # in each round, then the median: a busy moment hits both sides
        ratios = [slow / fast for slow, fast in zip(seconds[name], seconds["growlib"], strict=True)]
        metrics[f"speedup_over_{name}"] = median(ratios)
    return metrics | {"threads": torch.get_num_threads()}, []


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--airbench", help="airbench94.py, if it is to be compared with")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--images", type=int, default=5_000)
    given = parser.parse_args()
    settings = {"width": given.width, "batch_size": 500, "images": given.images, "rounds": 3}
    about = {"chapter": "benchmarks", "profile": "full", "device": "cpu", "data": load("cifar10")}
    (found,) = results.grid(partial(measure, airbench=given.airbench), {"cifar": settings}, [0], **about)
    for name, value in found["metrics"].items():
        print(f"{name:40} {value:.4g}")
