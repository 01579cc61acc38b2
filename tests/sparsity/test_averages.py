"""Averages of weights over sparse layers: exact where the connections move, or refused."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from growlib import MLP, at_random, rewire, smallest_magnitude, sparse_layers, sparsify
from growlib.sparsity import CsrLinear


def rewired(backend, averaging, moves=6):
    """The average of a run whose connections move, and what it should be: the average of the dense weights."""
    torch.manual_seed(0)
    model = sparsify(MLP(12, [9, 8], 4), 0.4, backend=backend)
    optimizer = torch.optim.AdamW(model.parameters(), 0.05)
    average = averaging(model)
    wanted = {}
    for move in range(moves):
        inputs, labels = torch.randn(16, 12), torch.randint(4, (16,))
        optimizer.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        average.update_parameters(model)
        for name, layer in sparse_layers(model).items():
            now = layer.weight.detach().clone()
            wanted[name] = torch.lerp(now, wanted[name], 0.9) if move else now
        rewire(model, smallest_magnitude, at_random, 0.3, None, optimizer)
    return average, wanted


def ema(model):
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))


def test_the_average_of_a_masked_model_is_that_of_its_weights():
    average, wanted = rewired("masked", ema)
    for name, weight in wanted.items():
        torch.testing.assert_close(average.module.get_submodule(name).weight, weight)


@pytest.mark.parametrize("averaging", [ema, AveragedModel, lambda model: ema(nn.Sequential(model))])
def test_the_average_of_a_csr_model_is_refused_before_anything_is_wrong(averaging):
    with pytest.raises(TypeError, match="AveragedModel can't average .*hidden1, .*backend='masked'"):
        rewired("csr", averaging)
    with pytest.raises(TypeError, match="AveragedModel can't average the layer"):
        AveragedModel(CsrLinear.of(nn.Linear(4, 4), torch.rand(4, 4) < 0.5))


def test_without_the_refusal_other_connections_would_be_averaged():
    """The negative control: an average by hand, number by number."""

    class ByHand:
        def __init__(self, model):
            self.module = None

        def update_parameters(self, model):
            now = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
            old = self.module or now
            self.module = {name: torch.lerp(value, old[name], 0.9) for name, value in now.items()}

    average, wanted = rewired("csr", ByHand)
    weight = wanted["hidden1"]
    assert abs(float(average.module["hidden1.values"].sum() - weight.sum())) < 1e-4  # the same numbers, elsewhere
    assert len(average.module["hidden1.values"]) < int(weight.count_nonzero())
