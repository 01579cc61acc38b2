"""What Diagnostics adds to the training of 784-n-n-10 with Adam at batch 128: its time beside that of the steps.

Two runs train in turn, an epoch each: one with the usual signals, one with all. Of every reading and of every step the
median counts, so that what else the machine does hardly does. Validation is left out, which would lower the share. Then
every signal by itself, on a fresh probe that has gathered: those that share work pay for it here.
"""

import time
from statistics import median

import torch

from growlib import MLP, Diagnostics, Trainer, load, results
from growlib.callbacks import EVERYTHING
from growlib.callbacks.diagnostics import USUAL

PERIOD = 100  # the default of Diagnostics, in steps


class Timed(Diagnostics):
    """Keeps the milliseconds of all readings, of the calls in which nothing is due, and of the steps."""

    def __init__(self, signals):
        super().__init__(signals)
        self.readings, self.idle, self.steps, self._end = [], [], [], None

    def after_step(self, trainer):
        start = time.perf_counter()
        if self._end is not None:
            self.steps.append(1000 * (start - self._end))
        super().after_step(trainer)
        end = time.perf_counter()
        (self.idle if trainer.step % PERIOD else self.readings).append(1000 * (end - start))
        self._end = end

    def after_epoch(self, trainer):
        super().after_epoch(trainer)
        self._end = None  # the validation was no step


def a_trainer(data, width: int, batch_size: int, signals) -> Trainer:
    torch.manual_seed(0)
    model = MLP(data.train.images[0].numel(), [width, width], 10)
    adam = torch.optim.Adam(model.parameters())
    return Trainer(model, adam, [Timed(signals)], batch_size=batch_size, device="cpu")


def alone(trainer: Trainer, signal, tries: int = 7) -> float:
    """Milliseconds of one signal for all layers, the median of some tries."""
    times = []
    for _ in range(tries):
        trainer._probe = None, None
        probe = trainer.probe()
        assert probe.loss > 0  # gathered
        start = time.perf_counter()
        for hidden in trainer.model.hidden:
            signal(probe, hidden)
        times.append(1000 * (time.perf_counter() - start))
    return median(times)


def measure(seed: int, width: int, batch_size: int, epochs: int) -> tuple[dict, list]:
    """The share of the training time that looking adds, and every signal's own time."""
    torch.set_num_threads(1)
    data, sets = load("fashion_mnist", seed=seed), {"usual": USUAL, "everything": EVERYTHING}
    trainers = {name: a_trainer(data, width, batch_size, signals) for name, signals in sets.items()}
    for _ in range(epochs):
        for trainer in trainers.values():
            trainer.fit(data, epochs=1)
    found = {"threads": 1}
    for name, trainer in trainers.items():
        looking = trainer.callbacks[0]
        step, idle, reading = (median(times) for times in (looking.steps, looking.idle, looking.readings))
        found |= {f"step_milliseconds_{name}": step, f"reading_milliseconds_{name}": reading}
        found[f"share_{name}"] = (reading + (PERIOD - 1) * idle) / (PERIOD * step)
    rows = [
        {"signal": signal.__name__, "usual": signal in USUAL, "milliseconds": alone(trainers["usual"], signal)}
        for signal in EVERYTHING
    ]
    return found, rows


if __name__ == "__main__":
    settings = {"batch_size": 128, "epochs": 4}
    runs = {f"probe-{width}-{width}": {"width": width} | settings for width in (128, 512)}
    for found in results.grid(measure, runs, [0], chapter="benchmarks", profile="full", device="cpu"):
        print(found["run"], {name: round(value, 3) for name, value in found["metrics"].items()})
