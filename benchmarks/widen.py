"""`widen` of a 784-512-512-10 MLP with Adam state, against a training step at batch 128, measured in turn."""

import time
from statistics import median

import torch
from torch.nn.functional import cross_entropy

from growlib import MLP, check_growth, results, widen


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(seed: int, batch_size: int, by: int, rounds: int) -> tuple[dict, list]:
    """The median times of a step, of widening a layer, and of looking at the outcome as Widen does."""
    torch.manual_seed(seed)
    images, labels = torch.randn(batch_size, 784), torch.randint(0, 10, (batch_size,))
    times = {"step": [], "widen": [], "check": []}
    for number in range(rounds + 5):
        model = MLP(784, [512, 512], 10)  # a fresh one every time: the widths stay those of the claim
        optimizer = torch.optim.Adam(model.parameters())

        def step(model=model, optimizer=optimizer):
            optimizer.zero_grad()
            cross_entropy(model(images), labels).backward()
            optimizer.step()

        step()  # makes Adam's state
        round_times = {"step": seconds(step)}
        start = time.perf_counter()
        change = widen(model, f"hidden{1 + number % 2}", by, optimizer=optimizer)
        round_times["widen"] = time.perf_counter() - start
        round_times["check"] = seconds(lambda model=model, change=change: check_growth(model, change, images))
        if number >= 5:  # the first rounds warm up
            for name, value in round_times.items():
                times[name].append(value)
    middle = {f"{name}_milliseconds": 1000 * median(values) for name, values in times.items()}
    ratios = [w / s for w, s in zip(times["widen"], times["step"], strict=True)]
    return {**middle, "widen_in_steps": median(ratios), "threads": torch.get_num_threads()}, []


if __name__ == "__main__":
    settings = {"batch_size": 128, "by": 8, "rounds": 60}
    (found,) = results.grid(measure, {"widen": settings}, [0], chapter="benchmarks", profile="full", device="cpu")
    print({name: round(value, 2) for name, value in found["metrics"].items()}, found["device"])
