"""The triangle of rates, step by step."""

import pytest
import torch

from growlib import MLP, Callback, LRSchedule, Trainer, load, triangle
from growlib.trainer import norm_biases_apart


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


def test_norm_biases_learn_apart_and_decay_alike():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.GroupNorm(1, 2))
    model[1].weight.requires_grad_(False)
    rest, biases = norm_biases_apart(model, lr=0.1, weight_decay=0.02, factor=8)
    assert [id(p) for p in biases["params"]] == [id(model[1].bias), id(model[2].bias)]
    assert [id(p) for p in rest["params"]] == [id(p) for p in (model[0].weight, model[0].bias, model[2].weight)]
    assert biases["lr"] == 8 * rest["lr"] and biases["lr"] * biases["weight_decay"] == pytest.approx(0.1 * 0.02)
