"""One epoch of 784-64-10 on MNIST: growlib's device-resident batches against torchvision's MNIST and a DataLoader."""

import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from growlib import MLP, Callback, Trainer, load, results


def as_idx(folder: Path, data) -> None:
    """Write a data set's training and test split in the raw format that torchvision reads."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, split in (("train", data.train), ("t10k", data.test)):
        for kind, values in (("images-idx3", split.images[:, 0]), ("labels-idx1", split.labels.to(torch.uint8))):
            head = bytes([0, 0, 8, values.ndim]) + b"".join(side.to_bytes(4, "big") for side in values.shape)
            (raw / f"{prefix}-{kind}-ubyte").write_bytes(head + values.numpy().tobytes())


class Stopwatch(Callback):
    """The seconds from the start of an epoch to its last step, without the validation that follows."""

    def before_epoch(self, trainer):
        self.began = time.perf_counter()

    def after_step(self, trainer):
        self.seconds = time.perf_counter() - self.began


def start(seed: int, hidden: int):
    torch.manual_seed(seed)
    model = MLP(784, [hidden], 10)
    return model, torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)


def loader_epoch(loader: DataLoader, model, optimizer) -> float:
    """The seconds of an ordinary epoch: the loop of a tutorial, without validation."""
    began = time.perf_counter()
    for images, labels in loader:
        loss = cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - began


def measure(seed: int, hidden: int, batch_size: int, rounds: int) -> tuple[dict, list]:
    """The median seconds of an epoch, the three ways in turn, and the accuracies reached."""
    data = load("mnist")
    seconds = {"growlib": [], "torchvision_0_workers": [], "torchvision_2_workers": []}
    accuracy = {name: [] for name in seconds}
    with tempfile.TemporaryDirectory() as folder:
        as_idx(Path(folder), data)
        steps = [transforms.ToTensor(), transforms.Normalize(data.mean.tolist(), data.std.tolist())]
        dataset = datasets.MNIST(folder, train=True, transform=transforms.Compose(steps))
        for number in range(rounds + 1):  # round 0 warms up
            spent = {}
            model, optimizer = start(seed + number, hidden)
            watch = Stopwatch()
            Trainer(model, optimizer, [watch], batch_size=batch_size, device="cpu", seed=seed + number).fit(
                data, epochs=1
            )
            spent["growlib"] = watch.seconds, model
            for workers in (0, 2):
                model, optimizer = start(seed + number, hidden)
                loader = DataLoader(dataset, batch_size, shuffle=True, num_workers=workers)
                spent[f"torchvision_{workers}_workers"] = loader_epoch(loader, model, optimizer), model
            for name, (taken, model) in spent.items() if number else ():
                seconds[name].append(taken)
                judge = Trainer(model, torch.optim.SGD(model.parameters(), lr=0), device="cpu")
                accuracy[name].append(judge.evaluate(data, "test")["accuracy"])
    ours, *theirs = seconds
    metrics = {f"seconds_{name}": median(taken) for name, taken in seconds.items()}
    metrics |= {f"test_accuracy_{name}": sum(reached) / rounds for name, reached in accuracy.items()}
    for name in theirs:  # in each round, then the median: a busy moment hits both sides
        ratios = [slow / fast for slow, fast in zip(seconds[name], seconds[ours], strict=True)]
        metrics[f"speedup_over_{name}"] = median(ratios)
    return metrics | {"threads": torch.get_num_threads()}, []


if __name__ == "__main__":
    arms = {"data_loading": {"hidden": 64, "batch_size": 128, "rounds": 3}}
    about = {"chapter": "benchmarks", "profile": "full", "device": "cpu", "data": load("mnist")}
    (found,) = results.grid(measure, arms, [0], **about)
    for name, value in found["metrics"].items():
        print(f"{name:40} {value:.4g}")
