"""Parameter groups: which parameters are in which, and at which rate."""

import pytest
import torch

from growlib.trainer import norm_biases_apart


def test_norm_biases_learn_apart_and_decay_alike():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.GroupNorm(1, 2))
    model[1].weight.requires_grad_(False)
    rest, biases = norm_biases_apart(model, lr=0.1, weight_decay=0.02, factor=8)
    assert [id(p) for p in biases["params"]] == [id(model[1].bias), id(model[2].bias)]
    assert [id(p) for p in rest["params"]] == [id(p) for p in (model[0].weight, model[0].bias, model[2].weight)]
    assert biases["lr"] == 8 * rest["lr"] and biases["lr"] * biases["weight_decay"] == pytest.approx(0.1 * 0.02)
