"""What augmentation costs of a training step of SpeedNet 32/128/128, part by part: CPU time of one thread, in turn."""

import time
from collections.abc import Callable

import torch
from torch.nn.functional import cross_entropy

from growlib import SpeedNet, load, results

ARMS = {
    "nothing": {},
    "flip": {"flip": "alternating"},
    "shift": {"shift": 2},
    "shift_reflected": {"shift": 2, "border": "reflect"},
    "cutout": {"cutout": 8},
    "recipe": {"shift": 2, "border": "reflect", "flip": "alternating"},
}


def milliseconds(act: Callable) -> float:
    began = time.process_time()
    act()
    return 1000 * (time.process_time() - began)


def measure(seed: int, width: int, batch_size: int, rounds: int) -> tuple[dict, list]:
    """The fastest of some rounds: all else on the machine only adds to it."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    data, model = load("cifar10"), SpeedNet((3, 32, 32), [width, 4 * width, 4 * width], 10)
    optimizer, noise = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.85, nesterov=True), torch.Generator()
    index, mirrored = torch.randperm(len(data.train))[:batch_size], torch.rand(batch_size) < 0.5
    inputs, labels = data.batch("train", index)

    def step():
        optimizer.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        optimizer.step()

    kinds = {name: data.augmented(**settings) for name, settings in ARMS.items()}
    times = {name: [] for name in [*kinds, "step"]}
    for _ in range(rounds):
        for name, kind in kinds.items():
            times[name].append(milliseconds(lambda kind=kind: kind.batch("train", index, noise, mirrored)))
        times["step"].append(milliseconds(step))
    fastest = {name: min(found) for name, found in times.items()}
    metrics = {f"milliseconds_{name}": value for name, value in fastest.items()}
    shares = {name: (fastest[name] - fastest["nothing"]) / fastest["step"] for name in ARMS if name != "nothing"}
    return metrics | {f"share_of_a_step_{name}": share for name, share in shares.items()}, []


if __name__ == "__main__":
    settings = {"width": 32, "batch_size": 500, "rounds": 12}
    about = {"chapter": "benchmarks", "profile": "full", "device": "cpu", "data": load("cifar10")}
    (found,) = results.grid(measure, {"augmentation": settings}, [0], **about)
    for name, value in found["metrics"].items():
        print(f"{name:40} {value:.4g}")
