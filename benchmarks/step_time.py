"""The time of a training step of 784-n-n-10 with Adam at batch 128, for rising n, all widths measured in turn.

It is the CPU time of one thread, so that what else the machine does hardly counts.
"""

import time

import torch
from torch.nn.functional import cross_entropy

from growlib import MLP, results


def fastest(width: int, batch_size: int, steps: int) -> float:
    """Milliseconds of the fastest of some steps: all else on the machine only adds to it."""
    torch.manual_seed(0)
    images, labels = torch.randn(batch_size, 784), torch.randint(0, 10, (batch_size,))
    model = MLP(784, [width, width], 10)
    optimizer, times = torch.optim.Adam(model.parameters()), []
    for _ in range(steps):
        start = time.process_time()
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()
        times.append(1000 * (time.process_time() - start))
    return min(times)


def measure(seed: int, widths: list[int], batch_size: int, steps: int, rounds: int) -> tuple[dict, list]:
    """The time by width."""
    torch.set_num_threads(1)
    times = {width: [] for width in widths}
    for _ in range(rounds):
        for width in widths:
            times[width].append(fastest(width, batch_size, steps))
    rows = [{"width": width, "milliseconds": min(found)} for width, found in times.items()]
    return {"threads": torch.get_num_threads()}, rows


if __name__ == "__main__":
    settings = {"widths": [16, 32, 64, 128, 256, 512, 1024], "batch_size": 128, "steps": 20, "rounds": 4}
    (found,) = results.grid(measure, {"step_time": settings}, [0], chapter="benchmarks", profile="full", device="cpu")
    print([round(row["milliseconds"], 2) for row in found["history"]])
