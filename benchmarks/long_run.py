"""Whether an epoch costs the same late in a long run: twenty tiny epochs at the start, and after two thousand.

It is the CPU time of one thread, records, losses and progress included; the median of twenty epochs counts.
"""

import time
from statistics import median

import torch

from growlib import MLP, Callback, Trainer, load, results


class Clock(Callback):
    """Keeps the CPU milliseconds of all epochs but the first, from the end of one to the end of the next."""

    def __init__(self):
        self.epochs, self.end = [], None

    def after_epoch(self, trainer):
        now = time.process_time()
        if self.end is not None:
            self.epochs.append(1000 * (now - self.end))
        self.end = now


def measure(seed: int, epochs: int, some: int) -> tuple[dict, list]:
    """The time of an epoch, early and late."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model, clock = MLP(64, [8], 10), Clock()
    trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.01), [clock], batch_size=512, device="cpu")
    trainer.fit(load("digits"), epochs=epochs + 2 * some)
    early, late = median(clock.epochs[some : 2 * some]), median(clock.epochs[-some:])  # the first ones warm up
    return {"milliseconds_early": early, "milliseconds_late": late, "late_to_early": late / early}, []


if __name__ == "__main__":
    settings = {"epochs": 2000, "some": 20}
    (found,) = results.grid(measure, {"long_run": settings}, [0], chapter="benchmarks", profile="full", device="cpu")
    print({name: round(number, 3) for name, number in found["metrics"].items()})
