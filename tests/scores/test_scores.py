"""Scores against loops over examples, weights and paths."""

import copy
import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from networks import convnet, inputs_for, mlp, resnet
from torch import nn
from torch.nn.functional import cross_entropy

from growlib import MLP, Probe, at_random, gradient_importance, largest_gradient, smallest_magnitude, sparsify
from growlib.layers import Attention
from growlib.scores import attention, hebbian, sign_flip, stdp, topological, weight_gradient
from growlib.scores._activity import CLOCK, DEPRESSION, FADING, latency, timing
from growlib.signals._patches import patches

LAYERS = {
    "linear": (lambda: nn.Linear(6, 4), (6,)),
    "tokens": (lambda: nn.Linear(6, 4), (3, 6)),
    "convolution": (lambda: nn.Conv2d(2, 4, 3, padding=1), (2, 5, 4)),
    "strides": (lambda: nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0)), (2, 7, 5)),
    "same": (lambda: nn.Conv2d(2, 4, 3, padding="same", dilation=2, bias=False), (2, 5, 5)),
    "reflected": (lambda: nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), (2, 5, 4)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), (4, 5, 5)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4, padding=1), (4, 5, 5)),
}


class Averaged(nn.Module):
    """A layer whose outputs are averaged over positions, through the activation that a score takes for granted."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, inputs):
        outputs = self.layer(inputs).relu()
        axes = [axis for axis in range(1, outputs.ndim) if axis != unit_axis(self.layer, outputs)]
        return outputs.mean(axes) if axes else outputs


def unit_axis(layer, outputs):
    return 1 if isinstance(layer, nn.Conv2d) else outputs.ndim - 1


def probed(case, examples=9):
    torch.manual_seed(0)
    build, shape = LAYERS[case]
    model = Averaged(build().double())
    probe = Probe(model, torch.randn(examples, *shape, dtype=torch.float64), torch.randint(4, (examples,)))
    return model.layer, probe


def pairs(layer, inputs, outputs):
    """For every weight, what it reads and what its unit says, example by example and position by position: vectors."""
    read = patches(layer, inputs).flatten(0, 1)
    said = outputs.movedim(unit_axis(layer, outputs), -1).flatten(0, -2)
    rows = len(layer.weight) // getattr(layer, "groups", 1)
    fan_in = layer.weight[0].numel()
    for unit, place in product(range(len(layer.weight)), range(fan_in)):
        yield unit, place, read[:, unit // rows * fan_in + place], said[:, unit]


@pytest.mark.parametrize("case", LAYERS)
def test_hebbian_is_the_covariance_of_what_is_read_and_what_is_said(case):
    layer, probe = probed(case)
    worth = hebbian(layer, probe).flatten(1)
    assert hebbian(layer, probe).shape == layer.weight.shape
    for unit, place, read, said in pairs(layer, probe.inputs_of(layer), probe.outputs_of(layer).relu()):
        covariance = ((read - read.mean()) * (said - said.mean())).mean()
        assert worth[unit, place].item() == pytest.approx(covariance.abs().item(), abs=1e-12)


@given(some.lists(some.floats(-50, 50), min_size=6, max_size=6), some.floats(0.1, 10))
@settings(max_examples=25, deadline=None)
def test_hebbian_does_not_see_what_is_always_there(shifts, scale):
    """Shifted activations covary as before; and, the negative control, their mean product does not stay."""
    layer, probe = probed("linear")
    shifts = torch.tensor(shifts, dtype=torch.float64)
    moved = copy.deepcopy(probe.model)
    with torch.no_grad():
        moved.layer.bias -= moved.layer.weight @ shifts  # the unit says what it said
    other = Probe(moved, probe.inputs + shifts, probe.labels)
    worth, again = hebbian(layer, probe), hebbian(moved.layer, other)
    torch.testing.assert_close(again, worth, rtol=1e-9, atol=1e-9)

    def uncentred(probe, layer):
        return probe.outputs_of(layer).relu().T @ probe.inputs_of(layer)

    if shifts.abs().max() > 1:
        assert (uncentred(other, moved.layer) - uncentred(probe, layer)).abs().max() > 1e-3


def test_hebbian_prefers_what_the_unit_reads_already():
    """Label-free scores favour redundant edges: a copy of an input that is read, not one that would be news."""
    torch.manual_seed(0)
    inputs = torch.randn(500, 3)
    inputs[:, 1] = inputs[:, 0] + 0.1 * torch.randn(500)
    layer = nn.Linear(3, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.0, 0.0]]))
    probe = Probe(Averaged(layer), inputs, torch.zeros(500, dtype=torch.long))
    worth = hebbian(layer, probe)[0]
    assert worth[1] > 5 * worth[2]


def slow_stdp(times):
    """Over all examples and all pairs of spikes: what the window adds."""
    total = 0.0
    for before, after in times:
        if before < CLOCK and after < CLOCK:
            apart = after - before
            total += FADING**apart if apart >= 0 else -DEPRESSION * FADING**-apart
    return total / len(times)


@pytest.mark.parametrize("case", ["linear", "tokens", "strides", "grouped"])
def test_stdp_is_its_window_over_all_pairs_of_spikes(case):
    layer, probe = probed(case, examples=5)
    worth = stdp(layer, probe).flatten(1)
    read, said = latency(probe.inputs_of(layer)), latency(probe.outputs_of(layer).relu())
    if isinstance(layer, nn.Conv2d):  # what is padded never fires
        layer = copy.deepcopy(layer)
        padding = layer._reversed_padding_repeated_twice
        read, layer.padding = nn.functional.pad(read, padding, value=CLOCK), (0, 0)
        layer._reversed_padding_repeated_twice = [0] * 4
    signs = set()
    for unit, place, before, after in pairs(layer, read, said):
        slow = slow_stdp(list(zip(before.tolist(), after.tolist(), strict=True)))
        signs.add(math.copysign(1, slow))
        assert worth[unit, place].item() == pytest.approx(slow, abs=1e-12)
    assert signs == {1.0, -1.0}


def test_the_strongest_value_of_an_example_fires_first_and_the_weakest_never():
    assert latency(torch.tensor([[0.0, 10.0, 5.0, 0.2], [3.0, 3.0, 3.0, 3.0]])).tolist() == [
        [CLOCK, 0, CLOCK / 2, 19],
        [CLOCK] * 4,
    ]


@given(some.lists(some.floats(0.1, 10), min_size=9, max_size=9), some.floats(-5, 5))
@settings(max_examples=25, deadline=None)
def test_spike_times_do_not_depend_on_the_scale_of_an_example(scales, shift):
    values = torch.randn(9, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved = latency(values * torch.tensor(scales, dtype=torch.float64)[:, None] + shift)
    assert (moved != latency(values)).float().mean() < 0.01  # rounding at the edge of a step
    assert not torch.equal(latency(values**3), latency(values))  # a negative control


def test_spikes_of_rates_give_hebb_times_the_area_of_the_window():
    """Kempter et al. (1999): independent Poisson spikes leave nothing but the product of the rates."""
    generator, steps = torch.Generator().manual_seed(0), 4000
    layer = nn.Linear(3, 2, dtype=torch.float64)
    read = torch.tensor([[0.1, 0.3, 0.5]], dtype=torch.float64)
    said = torch.tensor([[0.2, 0.4]], dtype=torch.float64)

    def fire(rates):
        return torch.rand(rates.shape, generator=generator, dtype=torch.float64) < rates

    drift = timing(layer, ((fire(read), fire(said)) for _ in range(steps))) / steps
    area = 1 / (1 - FADING) - DEPRESSION * FADING / (1 - FADING)
    torch.testing.assert_close(drift, area * said.T @ read, rtol=0.2, atol=0.01)
    again = [(fire(read), fire(said)) for _ in range(steps)]
    backwards = timing(layer, reversed(again)) / steps  # a negative control: nothing was in the order of the spikes
    torch.testing.assert_close(backwards, area * said.T @ read, rtol=0.2, atol=0.01)
    led = timing(layer, ((a, a[:, :2]) for a, _ in again)) / steps  # now something is
    assert (led.diagonal() > 1.2 * area * read[0, :2] ** 2).all()


class Reader(nn.Module):
    def __init__(self, heads):
        super().__init__()
        self.block, self.output = Attention(6, heads), nn.Linear(6, 3)

    def forward(self, tokens):
        return self.output(self.block(tokens).mean(1))


def slow_attention(block, name, tokens):
    """The definition, link by link."""
    width, heads = tokens.shape[2], block.heads
    size = width // heads
    rows = []
    for example in tokens:
        query, key, value = block.query(example), block.key(example), block.value(example)
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            logits = torch.tensor([[q @ k for k in key[:, part]] for q in query[:, part]]) / math.sqrt(size)
            mass = torch.stack([row.exp() / row.exp().sum() for row in logits])
            for token in range(len(example)):
                looked, looking = mass[token], mass[:, token]
                read, met = {
                    "query": (example[token], sum(m * k for m, k in zip(looked, key[:, part], strict=True))),
                    "key": (example[token], sum(m * q for m, q in zip(looking, query[:, part], strict=True))),
                    "value": (
                        sum(m * x for m, x in zip(looked, example, strict=True)),
                        sum(m * v for m, v in zip(looked, value[:, part], strict=True)),
                    ),
                }[name]
                rows.append((head, read, met))
    found = []
    for head in range(heads):
        read = torch.stack([row[1] for row in rows if row[0] == head])
        met = torch.stack([row[2] for row in rows if row[0] == head])
        found.append(((met - met.mean(0)).T @ (read - read.mean(0)) / len(read)).abs())
    return torch.cat(found)


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_is_the_covariance_across_its_links(heads):
    torch.manual_seed(0)
    model = Reader(heads).double()
    tokens = torch.randn(4, 5, 6, dtype=torch.float64)
    probe = Probe(model, tokens, torch.randint(3, (4,)))
    with torch.no_grad():
        for name in ("query", "key", "value"):
            layer = getattr(model.block, name)
            torch.testing.assert_close(attention(layer, probe), slow_attention(model.block, name, tokens))
        project = model.block.project
        read, said = probe.inputs_of(project).flatten(0, 1), probe.outputs_of(project).flatten(0, 1)
        covariance = (said - said.mean(0)).T @ (read - read.mean(0)) / len(read)
        torch.testing.assert_close(attention(project, probe), covariance.abs())


def test_attention_follows_the_mass():
    """The negative control: a block that looks elsewhere has another worth, with the same tokens, keys and values."""
    torch.manual_seed(0)
    model = Reader(1)
    tokens, labels = torch.randn(4, 5, 6), torch.randint(3, (4,))
    before = attention(model.block.value, Probe(model, tokens, labels))
    with torch.no_grad():
        model.block.query.weight *= 8
    assert not torch.allclose(attention(model.block.value, Probe(model, tokens, labels)), before, rtol=0.1)


def test_attention_refuses_layers_outside_of_blocks():
    model = Reader(2)
    with pytest.raises(ValueError, match="none of them"):
        attention(model.output, Probe(model, torch.randn(4, 5, 6), torch.randint(3, (4,))))
    with pytest.raises(ValueError, match="4 heads cannot share a token of width 6"):
        Attention(6, 4)


def slow_topological(mask):
    """CH3-L3 by its definition on the graph: every path, then of each inner node the links that leave the paths."""
    units, inputs = mask.shape
    near = {("unit", u): {("input", i) for i in range(inputs) if mask[u, i]} for u in range(units)}
    near |= {("input", i): {("unit", u) for u in range(units) if mask[u, i]} for i in range(inputs)}
    worth = torch.zeros(mask.shape)
    for u, i in product(range(units), range(inputs)):
        start, end = ("input", i), ("unit", u)
        paths = [
            (first, second) for first in near[start] - {end} for second in near[first] - {start} if second in near[end]
        ]
        inside = {node for path in paths for node in path} | {start, end}
        for path in paths:
            leaving = [len(near[node] - inside) for node in path]
            worth[u, i] += 1 / math.sqrt((1 + leaving[0]) * (1 + leaving[1]))
    return worth


@given(some.integers(1, 7), some.integers(1, 7), some.floats(0.1, 0.9), some.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_topological_is_the_sum_over_all_paths(units, inputs, density, seed):
    torch.manual_seed(seed)
    layer = nn.Linear(inputs, units)
    layer.register_buffer("mask", torch.rand(units, inputs) < density)
    slow, tie = slow_topological(layer.mask), 1 / (1000 * max(units, inputs))
    worth = topological(layer)
    assert ((worth - slow).abs() <= tie + 1e-5).all()
    assert (slow[slow > 0] >= 1 / max(units, inputs) - 1e-6).all()  # ties are broken below any path


def test_topological_sees_the_wiring_only():
    """A complete community misses one link: that one is the worthiest of all absent ones."""
    layer = nn.Linear(8, 8)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:4, :4] = mask[4:, 4:] = True
    mask[1, 2] = False
    layer.register_buffer("mask", mask)
    worth = topological(layer)
    assert worth.masked_fill(mask, 0).argmax() == 1 * 8 + 2
    with torch.no_grad():
        layer.weight.normal_()
    assert (topological(layer) - worth).abs().max() < 1e-3


def test_topological_says_what_it_refuses():
    model = sparsify(MLP(784, [300, 100], 10), 0.5)
    with pytest.raises(ValueError, match=r"would follow 6\.\de\+09 paths .* 117,600 connections.* limit is 1e\+09"):
        topological(model.hidden1)
    with pytest.raises(ValueError, match="is a GrowLinear"):
        topological(MLP(6, [4], 3).hidden1)
    with pytest.raises(ValueError, match="is a SparseConv2d"):
        topological(sparsify(convnet(), 0.5).conv1)


def test_sign_flip_counts_what_has_crossed_zero():
    torch.manual_seed(0)
    layer = sparsify(mlp(), 0.5).hidden1
    with pytest.raises(ValueError, match="does not know the signs"):
        sign_flip(layer)
    sign_flip.begin(layer)
    there = layer.mask
    assert sign_flip.count(sign_flip(layer)[there]) == 0
    assert torch.equal(sign_flip(layer), layer.weight.detach().abs())
    crossed = there.nonzero()[[1, 4, 5]]
    with torch.no_grad():
        for row, column in crossed.tolist():
            layer.weight[row, column] *= -0.1
    sign_flip.begin(layer)  # once is enough: what it remembers stays
    assert sign_flip.count(sign_flip(layer)[there]) == 3
    lowest = sign_flip(layer).masked_fill(~there, math.inf).flatten().topk(3, largest=False).indices
    assert set(lowest.tolist()) == {row * layer.weight.shape[1] + column for row, column in crossed.tolist()}
    with torch.no_grad():
        layer.weight.view(-1)[lowest] = 0.0
    sign_flip.born(layer, lowest)
    assert sign_flip.count(sign_flip(layer)[there]) == 0  # nobody has crossed who has not moved
    assert set(layer.signs.unique().tolist()) == {-1, 1}


def test_new_signs_are_drawn():
    torch.manual_seed(0)
    layer = sparsify(MLP(200, [50], 3), 0.5).hidden1
    sign_flip.begin(layer)
    born = torch.arange(4000)
    sign_flip.born(layer, born)
    assert abs(layer.signs.view(-1)[born].float().mean()) < 0.1


# ---------------------------------------------------------------------------------------- weights and gradients

LABELS = torch.arange(16) % 4


def probed_network(make):
    torch.manual_seed(0)
    model = sparsify(make(torch.float64), 0.5).eval()
    return model, Probe(model, inputs_for(model), LABELS)


@pytest.mark.parametrize("make, name", [(mlp, "hidden2"), (convnet, "conv2"), (resnet, "stage2.block1.shortcut")])
def test_the_gradient_is_that_of_the_dense_layer_by_finite_differences(make, name):
    model, probe = probed_network(make)
    layer = model.get_submodule(name)
    found, small = weight_gradient(layer, probe), 1e-6
    layer.mask.fill_(True)  # as if all connections were there
    for index in range(0, layer.weight.numel(), 7):
        ends = []
        for side in (small, -small):
            with torch.no_grad():
                layer.weight.view(-1)[index] += side
                ends.append(cross_entropy(model(probe.inputs), LABELS).item())
                layer.weight.view(-1)[index] -= side
        assert found.reshape(-1)[index].item() == pytest.approx((ends[0] - ends[1]) / 2 / small, abs=1e-7)


@pytest.mark.parametrize("make, name", [(mlp, "hidden1"), (convnet, "conv1")])
def test_scores_see_what_they_say(make, name):
    model, probe = probed_network(make)
    layer = model.get_submodule(name)
    gradient = weight_gradient(layer, probe)
    torch.testing.assert_close(largest_gradient(layer, probe), gradient.abs())
    torch.testing.assert_close(gradient_importance(layer, probe), (gradient * layer.weight).abs())
    torch.testing.assert_close(smallest_magnitude(layer), layer.weight.abs())
    assert largest_gradient(layer, probe)[~layer.mask].any()  # RigL sees what is not there
    assert not gradient_importance(layer, probe)[~layer.mask].any()  # SNIP does not


def test_at_random_draws_from_torchs_generator():
    layer = nn.Linear(50, 40)
    torch.manual_seed(3)
    first, second = at_random(layer), at_random(layer)
    torch.manual_seed(3)
    assert torch.equal(at_random(layer), first) and not torch.equal(first, second)


@pytest.mark.parametrize("score", [hebbian, stdp, topological, sign_flip])
def test_scores_do_not_care_how_a_layer_is_stored(score):
    found = []
    for backend in ("masked", "csr"):
        torch.manual_seed(0)
        model = sparsify(MLP(40, [20], 4), 0.2, backend=backend)
        sign_flip.begin(model.hidden1)
        torch.manual_seed(1)  # of ties
        found.append(score(model.hidden1, Probe(model, torch.randn(30, 40), torch.randint(4, (30,)))))
    torch.testing.assert_close(*found)
