"""How new units start: what each init promises."""

import copy

import pytest
import torch
from networks import convnet, inputs_for, mlp, relative, train
from torch import nn
from torch.nn.functional import cross_entropy, relu

from growlib.growth import check_growth, widen
from growlib.inits import gradmax, north, orthogonal, random, split, variance_transfer, zero_out
from growlib.layers import GrowConv2d, Hidden
from growlib.models import MLP
from growlib.signals import Probe
from growlib.signals._patches import growth_matrix


class Stream(nn.Module):
    """A convolution and a depthwise one behind it, whose outputs are added; two layers read the sum."""

    input_shape = (2, 6, 6)

    def __init__(self):
        super().__init__()
        self.first, self.depthwise = GrowConv2d(2, 5, 3), GrowConv2d(5, 5, 3, padding=1, groups=5, bias=False)
        self.left, self.right = GrowConv2d(5, 4, 1), GrowConv2d(5, 4, 3, padding=1)

    @property
    def hidden(self):
        return [Hidden("stream", (self.first, self.depthwise), (), (self.left, self.right))]

    def forward(self, images):
        units = self.first(images)
        units = relu(units + self.depthwise(units))
        return (self.left(units) + self.right(units)).mean((2, 3))


@pytest.mark.parametrize("build", [mlp, convnet])
def test_random_changes_the_function_and_says_so(build):
    torch.manual_seed(0)
    model = build().eval()
    inputs = inputs_for(model)
    before = model(inputs)
    change = widen(model, model.hidden[0], 4, init=random)
    assert not random.preserves
    assert relative(model(inputs), before) > 1e-3
    assert check_growth(model, change, inputs)["moved"] == pytest.approx(relative(model(inputs), before))


def test_split_divides_unevenly_and_copies_the_norm():
    torch.manual_seed(0)
    model = convnet().eval()
    change = widen(model, "conv1", 4, init=split)
    found = check_growth(model, change, inputs_for(model))
    assert found["twins"] == []  # read unevenly
    sources = [(model.conv1.weight[:4] == row).flatten(1).all(1).nonzero().item() for row in model.conv1.weight[4:]]
    assert sorted(sources) == [0, 1, 2, 3]
    for name in ("weight", "bias", "running_mean", "running_var"):
        tensor = getattr(model.norm1, name)
        assert torch.equal(tensor[4:], tensor[sources])


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam], ids=["SGD", "Adam"])
@pytest.mark.parametrize("even", [False, True], ids=["uneven", "even"])
def test_twins_of_an_uneven_split_part_and_those_of_an_even_one_never_do(optimizer, even):
    torch.manual_seed(0)
    model = MLP(12, [3], 4).double()
    widen(model, "hidden1", 3, init=split)
    if even:  # the negative control
        with torch.no_grad():
            for new in range(3, 6):
                old = (model.hidden1.weight[:3] == model.hidden1.weight[new]).all(1).nonzero().item()
                total = model.output.weight[:, old] + model.output.weight[:, new]
                model.output.weight[:, old] = model.output.weight[:, new] = total / 2
    train(model, optimizer(model.parameters(), lr=1e-2), 200)
    distances = torch.cdist(model.hidden1.weight, model.hidden1.weight) + torch.eye(6)
    parted = distances.min().item() > 1e-3
    assert parted is not even


def test_orthogonal_units_are_orthogonal_while_there_is_room():
    torch.manual_seed(0)
    model = MLP(12, [7], 4)
    widen(model, "hidden1", 5, init=orthogonal)
    new = model.hidden1.weight[7:]
    assert (model.hidden1.weight[:7] @ new.T).abs().max() < 1e-5
    gram = new @ new.T
    assert (gram - gram.diag().diag()).abs().max() < 1e-5
    widen(model, "hidden1", 30, init=orthogonal)  # no room left: still works
    assert model.hidden1.weight.shape == (42, 12)


# ------------------------------------------------------------------------------------- inits that look at a batch


def probed(model, size=32):
    torch.manual_seed(1)
    return Probe(model, inputs_for(model, size), torch.randint(4, (size,)))


@pytest.mark.parametrize("init", [gradmax, north])
def test_an_init_that_looks_at_data_says_so_when_there_are_none(init):
    model = mlp()
    with pytest.raises(ValueError, match=rf"{init.__name__} looks at a batch of data: .*probe=Probe\(model, inputs"):
        widen(model, "hidden1", 2, init=init)
    assert model.hidden[0].width == 7


def new_gradient(model, probe, before):
    """The gradient of the new units' incoming weights on the batch, with unit length of all they are read with."""
    cross_entropy(model(probe.inputs), probe.labels).backward()
    return model.hidden1.weight.grad[before:] / model.hidden2.weight[:, before:].norm()


def test_gradmax_starts_with_the_largest_gradient_and_it_is_that_of_the_singular_values():
    torch.manual_seed(0)
    model = MLP(12, [7, 9], 4).double()
    values = torch.linalg.svdvals(growth_matrix(model.hidden[0], model.hidden2, probed(model)))[:3]
    best = copy.deepcopy(model)
    widen(best, "hidden1", 3, init=gradmax, probe=(probe := probed(best)))
    read = best.hidden2.weight[:, 7:]
    torch.testing.assert_close(read.T @ read, torch.eye(3).double() * model.hidden2.weight.norm(dim=0).mean() ** 2)
    largest = new_gradient(best, probe, 7).norm()
    assert largest.item() == pytest.approx((values.square().sum() / 3).sqrt().item(), rel=1e-9)

    def at_random(hidden, by, probe):
        incoming, bias, outgoing = gradmax(hidden, by, probe)
        return incoming, bias, [torch.linalg.qr(columns.normal_())[0] for columns in outgoing]

    for seed in range(100):
        other = copy.deepcopy(model)
        looked = probed(other)
        torch.manual_seed(seed)
        widen(other, "hidden1", 3, init=at_random, probe=looked)
        assert new_gradient(other, probe, 7).norm() < largest


def test_a_bias_of_zero_would_leave_gradmax_without_a_gradient():
    """The negative control of its tiny biases."""

    def without_bias(hidden, by, probe):
        incoming, bias, outgoing = gradmax(hidden, by, probe)
        return incoming, [b.zero_() for b in bias], outgoing

    found = []
    for init in (gradmax, without_bias):
        torch.manual_seed(0)
        model = mlp()
        probe = probed(model)
        before = model(probe.inputs)
        change = widen(model, "hidden1", 2, init=init, probe=probe)
        assert relative(model(probe.inputs), before) < 1e-6
        found.append(
            (new_gradient(model, probe, 7).norm().item() > 0, check_growth(model, change, probe.inputs)["dead"])
        )
    assert found == [(True, []), (False, [7, 8])]


def test_gradmax_adds_more_units_than_there_are_directions_and_no_twins():
    torch.manual_seed(0)
    model = mlp()
    probe = probed(model)
    change = widen(model, "hidden2", 10, init=gradmax, probe=probe)
    found = check_growth(model, change, probe.inputs)
    assert found["dead"] == found["twins"] == [] and found["moved"] < 1e-6
    lengths = model.output.weight[:, 5:].norm(dim=0)
    torch.testing.assert_close(lengths, lengths[:1].expand(10))


def test_gradmax_refuses_what_it_cannot_do():
    model = convnet()
    with pytest.raises(ValueError, match="gradmax cannot widen layer 'conv1': .*normalisation"):
        widen(model, "conv1", 2, init=gradmax, probe=probed(model))
    assert model.hidden[0].width == 4


@pytest.mark.parametrize("build, name", [(mlp, "hidden1"), (mlp, "hidden2"), (convnet, "conv1"), (convnet, "conv2")])
@pytest.mark.parametrize("init, close", [(north, True), (orthogonal, False)])
def test_what_new_units_say_is_orthogonal_to_what_is_said(build, name, init, close):
    """Before the norm, over the batch and all positions; `orthogonal` is the negative control."""
    torch.manual_seed(0)
    model = build(torch.float64)
    probe = probed(model, 64)
    hidden = next(hidden for hidden in model.hidden if hidden.name == name)
    before, by = hidden.width, 2
    change = widen(model, name, by, init=init, probe=probe)
    said = Probe(model, probe.inputs, probe.labels).outputs_of(hidden.producers[0]).transpose(0, 1).flatten(1)
    said = torch.nn.functional.normalize(said, dim=1)
    cosines = (said[:before] @ said[before:].T).abs().max().item()
    among = (said[before:] @ said[before:].T - torch.eye(by)).abs().max().item()
    assert (max(cosines, among) < 1e-6) is close
    found = check_growth(model, change, probe.inputs)
    assert found["moved"] < 1e-10 and found["twins"] == []
    assert init is orthogonal or found["dead"] == []  # north chooses the sign for which a unit says something


def test_north_still_works_where_there_is_no_room_and_where_inputs_never_change():
    torch.manual_seed(0)
    model = MLP(12, [20], 4)
    inputs = torch.randn(64, 12)
    inputs[:, :5] = 0  # as the border of an image
    probe = Probe(model, inputs, torch.randint(4, (64,)))
    widen(model, "hidden1", 6, init=north, probe=probe)
    new = model.hidden1.weight[20:]
    assert new.isfinite().all() and not new[:, :5].any()
    torch.testing.assert_close(new.norm(dim=1), model.hidden1.weight[:20].norm(dim=1).mean().expand(6))


@pytest.mark.parametrize("init", [north, variance_transfer, random, zero_out, orthogonal, split])
def test_several_producers_and_consumers_and_groups(init):
    """A stream with two producers, one of them depthwise, that two layers read."""
    torch.manual_seed(0)
    model = Stream().double()
    probe = probed(model)
    before = model(probe.inputs)
    change = widen(model, "stream", 4, init=init, probe=probe)
    assert (relative(model(probe.inputs), before) < 1e-10) is init.preserves
    assert change.after == 9
    with pytest.raises(ValueError, match="it has 2 producers"):
        widen(model, "stream", 4, init=gradmax, probe=probed(model))


def test_variance_transfer_keeps_the_variance_of_what_reads_it():
    torch.manual_seed(0)
    model = MLP(50, [200, 100], 4)
    model.hidden1.bias.data.zero_()
    (
        torch.nn.init.normal_(model.hidden1.weight, std=50**-0.5),
        torch.nn.init.normal_(model.hidden2.weight, std=200**-0.5),
    )
    old = model.hidden2.weight.detach().clone()
    widen(model, "hidden1", 200, init=variance_transfer)
    made, read = model.hidden1.weight, model.hidden2.weight
    assert torch.equal(made[200:300], made[300:]) and torch.equal(read[:, 200:300], -read[:, 300:])
    torch.testing.assert_close(read[:, :200], old * 0.5**0.5)
    assert read.var().item() == pytest.approx(1 / 400, rel=0.05)
    assert made.var().item() == pytest.approx(1 / 50, rel=0.05)
    with pytest.raises(ValueError, match="adds pairs of units, and cannot add 3 to layer 'hidden1'"):
        widen(model, "hidden1", 3, init=variance_transfer)


def test_the_pairs_of_variance_transfer_part():
    torch.manual_seed(0)
    model = MLP(12, [3], 4)
    change = widen(model, "hidden1", 4, init=variance_transfer)
    assert check_growth(model, change, inputs_for(model))["twins"] == []
    train(model, torch.optim.SGD(model.parameters(), lr=0.05), 50)
    assert (model.hidden1.weight[3:5] - model.hidden1.weight[5:]).abs().amax(1).min() > 1e-3
