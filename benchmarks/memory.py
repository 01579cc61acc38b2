"""The memory bill of `costs.memory` against the memory that a process really takes, for two kinds of Adam."""

import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import median

import psutil
import torch
from torch.nn.functional import cross_entropy

from growlib import MLP, costs, results


class Watch(threading.Thread):
    """Reads this process's resident memory every half millisecond and keeps the largest value."""

    def __init__(self):
        super().__init__(daemon=True)
        self.process, self.most = psutil.Process(), 0

    def run(self):
        while True:
            self.most = max(self.most, self.process.memory_info().rss)
            time.sleep(0.0005)


def train(width: int, batch_size: int, fused: bool) -> int:
    """Makes a few training steps and returns the bill in bytes."""
    model = MLP(784, [width, width], 10)
    optimizer = torch.optim.Adam(model.parameters(), fused=fused)
    labels = torch.zeros(batch_size, dtype=torch.int64)
    for _ in range(5):
        cross_entropy(model(torch.randn(batch_size, 784)), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    return costs.memory(model, optimizer, batch_size)["total"]


def peaks(widths: list[int], batch_size: int, fused: bool) -> list[dict]:
    """The bill and the largest resident memory above that of a tiny network, for rising widths, in this process."""
    watch = Watch()
    watch.start()
    train(16, batch_size, fused)  # threads, libraries and their buffers
    base = watch.most
    return [
        {"width": width, "bill": train(width, batch_size, fused) / 2**20, "taken": (watch.most - base) / 2**20}
        for width in widths
    ]


def fresh(*settings) -> list[dict]:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(peaks, *settings).result()


def measure(seed: int, widths: list[int], batch_size: int, rounds: int) -> tuple[dict, list]:
    """The bill and the medians of what fresh processes took, in MB by width."""
    taken = {fused: [fresh(widths, batch_size, fused) for _ in range(rounds)] for fused in (False, True)}
    rows = [
        {
            "width": width,
            "bill_mb": taken[False][0][place]["bill"],
            "fused_mb": median(run[place]["taken"] for run in taken[True]),
            "adam_mb": median(run[place]["taken"] for run in taken[False]),
        }
        for place, width in enumerate(widths)
    ]
    last = rows[-1]
    return {f"{kind}_to_bill": last[f"{kind}_mb"] / last["bill_mb"] for kind in ("fused", "adam")}, rows


if __name__ == "__main__":
    settings = {"widths": [256, 512, 1024, 1536, 2048], "batch_size": 128, "rounds": 3}
    (found,) = results.grid(measure, {"memory": settings}, [0], chapter="benchmarks", profile="full", device="cpu")
    for row in found["history"]:
        print({name: round(value, 1) for name, value in row.items()})
