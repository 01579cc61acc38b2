"""The triangle of rates, step by step."""

import pytest
import torch

from growlib import MLP, Callback, LRSchedule, Trainer, load, triangle


class Rates(Callback):
    def __init__(self):
        self.seen = []

    def before_step(self, trainer):
        self.seen.append([group["lr"] for group in trainer.optimizer.param_groups])


def test_a_triangle_goes_up_and_down_in_every_task_and_keeps_the_ratio_of_rates():
    rates, digits = Rates(), load("digits")
    model = MLP(64, [4], 10)
    groups = [{"params": model.hidden1.parameters(), "lr": 0.5}, {"params": model.output.parameters(), "lr": 0.1}]
    schedule = LRSchedule(triangle, per="step", peak=0.25)
    trainer = Trainer(model, torch.optim.SGD(groups), [schedule, rates], device="cpu", batch_size=68)
    trainer.fit(digits, epochs=2)
    trainer.fit(digits, epochs=1)
    assert len(rates.seen) == 60 and trainer.steps == 20
    for total, seen in ((40, rates.seen[:40]), (20, rates.seen[40:])):
        for step, (one, other) in enumerate(seen):
            up, down = 0.2 + 0.8 * step / (0.25 * total), 1 - 0.93 * (step / total - 0.25) / 0.75
            assert one == pytest.approx(0.5 * min(up, down)) and other == pytest.approx(one / 5)
