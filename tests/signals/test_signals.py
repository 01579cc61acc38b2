"""Signals against loops over units."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import convnet, inputs_for, mlp, resnet
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from growlib.callbacks import EVERYTHING
from growlib.growth import prune, widen
from growlib.layers import GrowLinear, Hidden
from growlib.signals import (
    Probe,
    activation,
    activation_mean,
    activation_variance,
    binned,
    dead,
    dormancy,
    effective_rank,
    gradient_norm,
    gradmax_gain,
    input_information,
    ksg,
    magnitude,
    mutual_information,
    natural_gain,
    orthogonality_gap,
    relative_gradient,
    saturation,
    stable_rank,
    taylor,
    update_ratio,
    weight_effective_rank,
    weight_stable_rank,
)
from growlib.signals._patches import growth_matrix


@pytest.mark.parametrize("build", [mlp, convnet])
def test_magnitude_is_the_product_of_two_norms(build):
    model = build()
    for hidden in model.hidden:
        worth = magnitude(None, hidden)
        producer, consumer = hidden.producers[0], hidden.consumers[0]
        spread = hidden.spread(consumer)
        for unit in range(hidden.width):
            driven = producer.weight[unit].square().sum().sqrt()
            read = consumer.weight[:, unit * spread : (unit + 1) * spread].square().sum().sqrt()
            assert worth[unit].item() == pytest.approx((driven * read).item(), rel=1e-5)


def batch_for(model):
    torch.manual_seed(1)
    return inputs_for(model), torch.randint(4, (16,))


@pytest.mark.parametrize("build", [mlp, convnet])
def test_activation_is_the_mean_of_what_is_read(build):
    torch.manual_seed(0)
    model = build().eval()
    inputs, labels = batch_for(model)
    read = []
    for hidden in model.hidden:
        hidden.consumers[0].register_forward_pre_hook(lambda module, arguments: read.append(arguments[0].detach()))
    probe = Probe(model, inputs, labels)
    loudness = [activation(probe, hidden) for hidden in model.hidden]
    for values, hidden, found in zip(read, model.hidden, loudness, strict=True):
        spread = hidden.spread(hidden.consumers[0])
        for unit in range(hidden.width):
            mine = values[:, unit * spread : (unit + 1) * spread]
            assert found[unit].item() == pytest.approx(mine.abs().mean().item(), rel=1e-5)


def losses_with(model, hidden, unit, share, inputs, labels):
    """The loss of every example if a unit is read with a share of its weights."""
    weight = hidden.consumers[0].weight
    old = weight.detach().clone()
    with torch.no_grad():
        weight[:, hidden.columns(hidden.consumers[0])[unit]] *= share
        losses = cross_entropy(model(inputs), labels, reduction="none")
        weight.copy_(old)
    return losses


@pytest.mark.parametrize("build", [mlp, convnet])
def test_taylor_is_the_slope_of_every_example_towards_the_network_without_the_unit(build):
    torch.manual_seed(0)
    model = build(torch.float64).eval()
    inputs, labels = batch_for(model)
    for hidden in model.hidden:
        worth = taylor(Probe(model, inputs, labels), hidden)
        for unit in range(hidden.width):
            above, below = (losses_with(model, hidden, unit, share, inputs, labels) for share in (1 + 1e-5, 1 - 1e-5))
            slope = (above - below) / 2e-5
            assert worth[unit].item() == pytest.approx(slope.abs().mean().item(), rel=1e-5, abs=1e-9)


def test_taylor_predicts_the_losses_without_a_unit_that_says_little():
    """And, the negative control, not without one that says much."""
    torch.manual_seed(0)
    model = mlp(torch.float64)
    inputs, labels = batch_for(model)
    unit = int(taylor(Probe(model, inputs, labels), model.hidden[0]).argmax())
    errors = []
    for scale in (1.0, 1e-3):
        shrunk = copy.deepcopy(model)
        with torch.no_grad():
            shrunk.hidden2.weight[:, unit] *= scale
        worth = taylor(Probe(shrunk, inputs, labels), shrunk.hidden[0])[unit].item()
        whole = cross_entropy(shrunk(inputs), labels, reduction="none")
        prune(shrunk, "hidden1", [unit])
        change = (cross_entropy(shrunk(inputs), labels, reduction="none") - whole).abs().mean().item()
        errors.append(abs(change / worth - 1))
    assert errors[1] < 1e-2 < errors[0]


def test_taylor_adds_up_what_all_consumers_read():
    """A unit whose two readers cancel each other is worth nothing."""
    torch.manual_seed(0)
    first, left, right = GrowLinear(6, 3), GrowLinear(3, 4), GrowLinear(3, 4)

    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.left, self.right = first, left, right

        def forward(self, inputs):
            units = first(inputs).relu()
            return left(units) + right(units)

    with torch.no_grad():
        right.weight[:, 1] = -left.weight[:, 1]
    worth = taylor(
        Probe(Two(), torch.randn(9, 6), torch.randint(4, (9,))), Hidden("first", (first,), (), (left, right))
    )
    assert worth[1] < 1e-7 < 1e-3 < worth[0]


def test_a_dead_unit_is_worth_nothing_to_those_who_look():
    torch.manual_seed(0)
    model = mlp()
    with torch.no_grad():
        model.hidden1.bias[2] = -1e3  # never above zero
    probe = Probe(model, *batch_for(model))
    hidden = model.hidden[0]
    assert activation(probe, hidden)[2] == taylor(probe, hidden)[2] == 0
    assert magnitude(probe, hidden)[2] > 0


def probe_of(model, **named):
    torch.manual_seed(0)
    return Probe(model, *batch_for(model), **named)


def layer_alone(values, labels=None):
    """A hidden layer whose units are, on the batch, just these values (B, width)."""
    width = values.shape[1]
    first, last = GrowLinear(width, width), GrowLinear(width, 4)
    with torch.no_grad():
        first.weight.copy_(torch.eye(width)), first.bias.zero_()
    labels = torch.arange(len(values)) % 4 if labels is None else labels
    return Probe(nn.Sequential(first, last), values, labels), Hidden("units", (first,), (), (last,))


@pytest.mark.parametrize("build", [mlp, convnet])
def test_gradient_norm_is_that_of_backward(build):
    model = build().eval()
    inputs, labels = batch_for(model)
    probe = Probe(model, inputs, labels)
    found = [(gradient_norm(probe, h).item(), relative_gradient(probe, h).item()) for h in model.hidden]
    cross_entropy(model(inputs), labels).backward()
    for hidden, (absolute, relative) in zip(model.hidden, found, strict=True):
        weight = hidden.producers[0].weight
        assert absolute == pytest.approx(weight.grad.norm().item(), rel=1e-4)
        assert relative == pytest.approx((weight.grad.norm() / weight.norm()).item(), rel=1e-4)


@pytest.mark.parametrize("build", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop])
def test_update_ratio_is_the_step_that_the_optimizer_takes_then(build):
    model = mlp()
    optimizer = build(model.parameters(), lr=0.01, weight_decay=0.1)
    inputs, labels = batch_for(model)
    for _ in range(3):  # there is a state
        optimizer.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    probe = Probe(model, inputs, labels, optimizer=optimizer)
    state = copy.deepcopy(optimizer.state_dict())
    foretold = [update_ratio(probe, hidden).item() for hidden in model.hidden]
    assert str(optimizer.state_dict()) == str(state)  # nobody has stepped
    before = [hidden.producers[0].weight.detach().clone() for hidden in model.hidden]
    optimizer.zero_grad()
    cross_entropy(model(inputs), labels).backward()
    optimizer.step()
    for hidden, old, ratio in zip(model.hidden, before, foretold, strict=True):
        step = (hidden.producers[0].weight - old).norm() / old.norm()
        assert ratio == pytest.approx(step.item(), rel=1e-4)


def test_update_ratio_without_an_optimizer_says_what_to_do():
    model = mlp()
    with pytest.raises(ValueError, match="Probe.*optimizer=optimizer"):
        update_ratio(probe_of(model), model.hidden[0])


@pytest.mark.parametrize("build", [mlp, convnet])
def test_activity_against_loops_over_units(build):
    model = build().eval()
    probe = probe_of(model)
    for hidden in model.hidden:
        units = probe.post(hidden).transpose(0, 1).flatten(1)  # (width, everything)
        means, variances = activation_mean(probe, hidden), activation_variance(probe, hidden)
        loud = [unit.abs().mean().item() for unit in units]
        for unit in range(hidden.width):
            assert means[unit].item() == pytest.approx(units[unit].mean().item(), abs=1e-6)
            assert variances[unit].item() == pytest.approx(units[unit].var(correction=0).item(), abs=1e-6)
        silent = sum(value <= 0.025 * sum(loud) / len(loud) for value in loud)
        assert dormancy(probe, hidden).item() == pytest.approx(silent / hidden.width)
        assert dead(probe, hidden).item() == pytest.approx(sum(not unit.any() for unit in units) / hidden.width)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh()])
def test_saturation_counts_what_lets_no_gradient_through(activation):
    first, last = GrowLinear(2, 2, bias=False), GrowLinear(2, 3)
    with torch.no_grad():
        first.weight.copy_(torch.eye(2))
        last.weight.fill_(0.0)
        last.weight[0] = 1.0  # both units are read alike
    hidden = Hidden("units", (first,), (), (last,))
    closed = -9.0  # of a ReLU, and the flat end of tanh
    inputs = torch.tensor([[0.5, closed], [0.4, 0.3], [closed, 0.2], [0.5, 0.5]])
    probe = Probe(nn.Sequential(first, activation, last), inputs, torch.zeros(4, dtype=torch.long))
    assert saturation(probe, hidden).item() == pytest.approx(2 / 8)


def test_ranks_of_matrices_that_one_knows():
    probe, hidden = layer_alone(torch.eye(6)[:, :5])
    assert effective_rank(probe, hidden).item() == pytest.approx(1)
    assert stable_rank(probe, hidden).item() == pytest.approx(1)
    assert orthogonality_gap(probe, hidden).item() == pytest.approx(0, abs=1e-6)
    probe, hidden = layer_alone(torch.randn(8, 1) @ torch.randn(1, 4))
    assert effective_rank(probe, hidden).item() == pytest.approx(1 / 4, rel=1e-4)
    assert stable_rank(probe, hidden).item() == pytest.approx(1 / 4, rel=1e-4)
    probe, hidden = layer_alone(torch.ones(8, 4))  # every unit says the same
    assert orthogonality_gap(probe, hidden).item() == pytest.approx((1 - 1 / 4) ** 0.5)
    two = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    probe, hidden = layer_alone(two)
    shares = [0.75, 0.25]
    assert effective_rank(probe, hidden).item() == pytest.approx(math.exp(-sum(s * math.log(s) for s in shares)) / 2)
    assert stable_rank(probe, hidden).item() == pytest.approx((9 + 1) / 9 / 2)
    assert weight_effective_rank(None, hidden).item() == weight_stable_rank(None, hidden).item() == pytest.approx(1)


@given(width=st.integers(1, 6), batch=st.integers(1, 7), kind=st.sampled_from(["random", "zero", "constant", "equal"]))
@settings(max_examples=40, deadline=None)
def test_every_signal_is_finite_and_in_its_range_whatever_the_batch(width, batch, kind):
    torch.manual_seed(width * batch)
    values = torch.randn(batch, width)
    values = {
        "random": values,
        "zero": 0 * values,
        "constant": 0 * values + 2,
        "equal": values[:, :1].expand(-1, width),
    }
    probe, hidden = layer_alone(values[kind].clone())
    for signal in EVERYTHING:
        if signal is not update_ratio:
            reading = signal(probe, hidden)
            assert reading.shape in ((), (width,)) and reading.isfinite().all(), signal.__name__
            assert signal is activation_mean or (reading >= -1e-9).all(), signal.__name__
    least = 1 / min(width, batch)
    for rank in (effective_rank, stable_rank):
        assert least - 1e-6 <= rank(probe, hidden) <= 1 + 1e-6
    if kind in ("zero", "constant") or batch == 1:
        assert effective_rank(probe, hidden).item() == pytest.approx(least, rel=1e-5)
        assert mutual_information(probe, hidden).eq(0).all() and input_information(probe, hidden).eq(0).all()


@pytest.mark.parametrize("estimator", [binned, ksg])
def test_information_is_that_of_every_unit_by_itself(estimator):
    torch.manual_seed(0)
    labels = torch.arange(300) % 4
    values = torch.stack([3 * labels + 0.1 * torch.randn(300), torch.randn(300)], 1)
    probe, hidden = layer_alone(values, labels)
    told = mutual_information(probe, hidden, estimator)
    for unit in range(2):
        assert told[unit].item() == pytest.approx(estimator(values[:, unit], labels).item(), rel=1e-5)
    assert told[0] > 0.9 * math.log(4) and told[1] < 0.1
    about = input_information(probe, hidden, estimator)
    assert about[0] > 5 * about[1]  # the first unit is the direction in which the inputs differ most


def test_maps_are_averaged_over_their_positions():
    model = convnet().eval()
    probe = probe_of(model)
    hidden = model.hidden[0]
    means = probe.post(hidden).flatten(2).mean(2)
    assert torch.allclose(mutual_information(probe, hidden), binned(means, probe.labels))


def test_gradmax_gain_is_the_best_of_many_units():
    model = mlp().double()
    inputs, labels = batch_for(model)
    hidden = model.hidden[0]
    consumer = hidden.consumers[0]
    best = gradmax_gain(Probe(model, inputs, labels), hidden).item()

    def gain(outgoing):
        """The gradient of a new unit's incoming weights, by backward through a widened network."""
        wider = copy.deepcopy(model)
        widen(wider, wider.hidden[0], 1)
        producer, consumer = wider.hidden[0].producers[0], wider.hidden[0].consumers[0]
        with torch.no_grad():
            producer.weight[-1], producer.bias[-1] = 0, 1e-9
            consumer.weight[:, -1] = outgoing
        cross_entropy(wider(inputs), labels).backward()
        return producer.weight.grad[-1].norm().item()

    torch.manual_seed(0)
    tried = [gain(normalize(torch.randn(len(consumer.weight), dtype=torch.float64), dim=0)) for _ in range(50)]
    assert 0.5 * best < max(tried) <= best * (1 + 1e-6)
    left = torch.linalg.svd(growth_matrix(hidden, consumer, Probe(model, inputs, labels)))[0][:, 0]
    assert gain(left) == pytest.approx(best, rel=1e-5)


def test_natural_gain_tells_whether_the_inputs_know_more_than_the_units():
    torch.manual_seed(0)
    inputs = torch.randn(400, 3)
    labels = (inputs[:, 2] > 0).long()
    gains = []
    for seen in ([0, 1], [0, 2]):  # the units show two of three inputs
        first, last = GrowLinear(3, 2), GrowLinear(2, 2)
        with torch.no_grad():
            first.weight.copy_(torch.eye(3)[seen])
            last.weight.zero_()
        probe = Probe(nn.Sequential(first, last), inputs, labels)
        gains.append(natural_gain(probe, Hidden("units", (first,), (), (last,))).item())
    assert gains[0] > 0.9 and gains[1] < 0.3


def test_natural_gain_against_regressions_one_by_one():
    model = mlp().double()
    probe = probe_of(model)
    hidden = model.hidden[0]
    producer, consumer = hidden.producers[0], hidden.consumers[0]
    target = probe.gradient_of(consumer)
    white = target @ torch.linalg.inv(torch.linalg.cholesky(target.T @ target).T)
    read, heard = (part / part.norm() for part in (probe.inputs_of(producer), probe.inputs_of(consumer)))

    def explained(features):
        fit = features.T @ features + 0.01 * torch.eye(features.shape[1], dtype=torch.float64)
        return sum(column @ features @ torch.linalg.solve(fit, features.T @ column) for column in white.T)

    wanted = 1 - explained(heard) / explained(torch.cat([heard, read], 1))
    assert natural_gain(probe, hidden).item() == pytest.approx(wanted.item(), rel=1e-6)


@pytest.mark.parametrize("build", [mlp, convnet])
def test_signals_that_share_work_say_what_they_say_alone(build):
    model = build().eval()
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=0.1)
    shared = probe_of(model, optimizer=optimizer)
    for signal in [s for s in EVERYTHING if build is mlp or s not in (gradmax_gain, natural_gain)]:
        for hidden in model.hidden:
            alone = signal(probe_of(model, optimizer=optimizer), hidden)
            assert torch.equal(signal(shared, hidden), alone), signal.__name__


def test_ranks_are_those_of_singular_values():
    torch.manual_seed(0)
    for shape in ((9, 5), (5, 9)):
        values = torch.randn(shape) @ torch.diag(torch.logspace(0, -3, shape[1]))
        probe, hidden = layer_alone(values)
        sizes = torch.linalg.svdvals(values.double())
        shares = sizes / sizes.sum()
        wanted = math.exp(-sum(share * math.log(share) for share in shares.tolist())) / min(shape)
        assert effective_rank(probe, hidden).item() == pytest.approx(wanted, rel=1e-6)
        wanted = (sizes.square().sum() / sizes[0] ** 2 / min(shape)).item()
        assert stable_rank(probe, hidden).item() == pytest.approx(wanted, rel=1e-6)
        gram = (values.T @ values).double()
        wanted = (gram / gram.trace() - torch.eye(shape[1]) / shape[1]).norm().item()
        assert orthogonality_gap(probe, hidden).item() == pytest.approx(wanted, rel=1e-5)


def test_natural_gain_refuses_what_it_cannot_see():
    model = resnet()
    with pytest.raises(ValueError, match="consumers, and needs one of each"):
        natural_gain(probe_of(model), model.hidden[0])
