"""What a step of Trainer costs: the milliseconds of a step of a small MLP on one thread, beside another version's.

    python benchmarks/trainer_step.py                  this checkout
    python benchmarks/trainer_step.py --against TREE   and, in turn, the growlib of another worktree

Every side runs five times in a process of its own, and the median counts. Nothing is recorded.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
from torch.optim import AdamW

from growlib import MLP, Callback, Trainer, load

ROUNDS, EPOCHS, WARM_UP = 5, 20, 100
HERE = Path(__file__).parents[1]


class Clock(Callback):
    """Keeps the CPU seconds of all steps, from the end of one to the end of the next."""

    def __init__(self):
        self.steps, self.end = [], None

    def after_step(self, trainer):
        now = time.process_time()
        if self.end is not None:
            self.steps.append(now - self.end)
        self.end = now

    def after_epoch(self, trainer):
        self.end = None  # the validation was no step


def milliseconds() -> float:
    """The median step of a run."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, clock = MLP(64, [32], 10), Clock()
    trainer = Trainer(model, AdamW(model.parameters()), [clock], batch_size=32, device="cpu")
    trainer.fit(load("digits"), epochs=EPOCHS)
    return 1000 * median(clock.steps[WARM_UP:])


def elsewhere(tree: Path) -> float:
    """The same, by the growlib of a worktree, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(tree.resolve() / "src")}
    done = subprocess.run(
        [sys.executable, __file__, "--once"], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout)


def main() -> None:
    """Measure this checkout, and what it is compared with."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, metavar="TREE", help="a git worktree of another commit")
    parser.add_argument("--once", action="store_true", help="one run, in this process")
    options = parser.parse_args()
    if options.once:
        print(milliseconds())
        return
    trees = [HERE, *([options.against] if options.against else [])]
    rounds = [[elsewhere(tree) for tree in trees] for _ in range(ROUNDS)]
    medians = [median(times) for times in zip(*rounds, strict=True)]
    for tree, found in zip(trees, medians, strict=True):
        print(f"{found:.3f} ms a step, {tree}")
    if options.against:
        print(f"ratio {medians[0] / medians[1]:.3f}")


if __name__ == "__main__":
    main()
