"""Reports of how connections lie, against counting by hand."""

import pytest
import torch
from networks import convnet, mlp
from torch import nn

from growlib import budget_report, cut_off, degrees, sparsify


def test_the_report_counts_what_is_there():
    model = sparsify(convnet(), 0.4)
    model.conv1.register_buffer("signs", torch.ones_like(model.conv1.weight, dtype=torch.int8))
    report = budget_report(model)
    weights = [model.conv1, model.conv2, model.hidden1, model.output]
    assert report.connections["all sparse layers"] == sum(int(layer.weight.count_nonzero()) for layer in weights)
    assert (report.outside == 0).all()
    assert report["signs, bytes"]["conv1"] == model.conv1.weight.numel() == report["mask, bytes"]["conv1"]
    everything = sum(p.numel() for p in model.parameters())
    assert report.weights.iloc[-1] + report.weights["all sparse layers"] == everything
    assert report.density["all sparse layers"] == pytest.approx(0.4, abs=0.002)


def test_a_weight_where_no_connection_is_shows_up():
    """The negative control."""
    model = sparsify(mlp(), 0.5)
    with torch.no_grad():
        model.hidden1.weight[~model.hidden1.mask] = 1.0
    report = budget_report(model)
    assert report.outside["hidden1"] == 42 and report.outside["hidden2"] == 0


def test_a_dense_model_has_no_budget():
    with pytest.raises(ValueError, match="this Linear has no sparse layers: call sparsify"):
        budget_report(nn.Linear(3, 2))


def test_degrees_are_counted_by_hand():
    model = sparsify(convnet(), 0.4)
    for layer in (model.conv2, model.hidden1):
        outputs, inputs = degrees(layer)
        for unit in range(len(layer.mask)):
            assert outputs[unit] == sum(bool(there) for there in layer.mask[unit].flatten())
        for unit in range(layer.mask.shape[1]):
            assert inputs[unit] == sum(bool(there) for there in layer.mask[:, unit].flatten())


def test_units_that_are_cut_off_cannot_matter():
    torch.manual_seed(0)
    model = sparsify(convnet(), 0.9)
    with torch.no_grad():
        for layer, index in ((model.conv1, (2,)), (model.conv2, (slice(None), 1)), (model.hidden1, (slice(None), 4))):
            mask = layer.mask.clone()
            mask[index] = False
            layer.wire(mask)
    found = cut_off(model)
    assert found == {"conv1": [1, 2], "conv2": [], "hidden1": []}  # one of 4 positions of conv2's unit 1 is not read
    mask = model.hidden1.mask.clone()
    mask[:, 4:8] = False
    model.hidden1.wire(mask)
    assert cut_off(model)["conv2"] == [1]
    images = torch.randn(4, 2, 8, 8)
    before = model.eval()(images)
    with torch.no_grad():
        model.norm1.weight[1] += 1.0  # nothing reads it
        model.norm2.bias[1] += 1.0
    assert torch.equal(model(images), before)
