"""widen and prune against rebuilt networks, for every init, norm and optimizer."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import OPTIMIZERS, convnet, inputs_for, mlp, net, relative, train
from torch import nn

from growlib import Probe, costs
from growlib.growth import check_growth, deepen, growable, lost_tensors, prune, widen
from growlib.inits import gradmax, orthogonal, random, split, zero_out
from growlib.layers import hidden_of
from growlib.models import ConvNet

PRESERVING = [zero_out, orthogonal, split]


@given(
    build=st.sampled_from([mlp, convnet]),
    init=st.sampled_from(PRESERVING),
    dtype=st.sampled_from([(torch.float32, 1e-5), (torch.float64, 1e-10)]),
    position=st.integers(0, 2),
    by=st.integers(1, 20),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_preserving_inits_keep_the_function(build, init, dtype, position, by, seed):
    torch.manual_seed(seed)
    model = build(dtype[0]).eval()
    inputs = inputs_for(model)
    before = model(inputs)
    hidden = model.hidden[position % len(model.hidden)]
    change = widen(model, hidden, by, init=init)
    assert init.preserves
    assert relative(model(inputs), before) <= dtype[1]
    assert (change.kind, change.layer, change.after - change.before) == ("widen", hidden.name, by)
    assert change.parameters == costs.parameters(model)


def test_a_layer_after_flatten_reads_the_channels_it_read_before():
    """Against the same network with the new channels cut out by hand."""
    torch.manual_seed(0)
    model = convnet().eval()
    old = model.hidden1.weight.clone()
    widen(model, "conv2", 2, init=random)
    assert model.hidden1.weight.shape == (6, (3 + 2) * 2 * 2)
    assert torch.equal(model.hidden1.weight[:, :12], old)


# ------------------------------------------------------------------------------------------------------ optimizers


def fresh_value(name, key, rows):
    """What a state entry of a new weight must be, written down by hand from each optimizer's definition."""
    if name == "Rprop" and key == "step_size":
        return 1e-3
    if name == "Adagrad" and key == "sum":
        return 0.1
    return rows.detach() if key == "ax" else 0.0


def rebuilt(model, optimizer, make, name, grown):
    """A network of the grown size built anew, weights and optimizer state moved over by hand."""
    twin = copy.deepcopy(grown)
    new = make(list(twin.parameters()))
    for old_p, new_p in zip(model.parameters(), twin.parameters(), strict=True):
        if old_p not in optimizer.state:
            continue
        for key, value in optimizer.state[old_p].items():
            moved = value
            if torch.is_tensor(value) and value.ndim:
                target = [*new_p.shape]
                if key == "row_var":
                    target[-1] = 1
                if key == "col_var":
                    target[-2] = 1
                start = fresh_value(name, key, new_p)
                moved = torch.zeros(target, dtype=value.dtype) + start
                moved[tuple(slice(n) for n in value.shape)] = value
            new.state[new_p][key] = copy.deepcopy(moved)
    return twin, new


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_after_growth_equals_a_rebuilt_network_with_hand_moved_state(name):
    torch.manual_seed(0)
    make = OPTIMIZERS[name]
    model = mlp(torch.float64)
    optimizer = make(list(model.parameters()))
    train(model, optimizer, 6)
    before, before_optimizer = copy.deepcopy((model, optimizer))
    # deepcopy keeps the optimizer on the copied parameters, as they are copied together
    torch.manual_seed(1)
    change = widen(model, "hidden1", 3, optimizer=optimizer)
    if name != "Muon":
        assert check_growth(model, change, inputs_for(model))["lost"] == []
    twin, twin_optimizer = rebuilt(before, before_optimizer, make, name, model)
    train(model, optimizer, 6, seed=2)
    train(twin, twin_optimizer, 6, seed=2)
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pruning_what_was_just_grown_gives_everything_back(name):
    torch.manual_seed(0)
    model = mlp(torch.float64)
    optimizer = OPTIMIZERS[name](list(model.parameters()))
    train(model, optimizer, 4)
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    widen(model, "hidden2", 4, optimizer=optimizer)
    prune(model, "hidden2", range(5, 9), optimizer=optimizer)
    after = model.state_dict(), optimizer.state_dict()
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=0)
    torch.testing.assert_close(after[1]["state"], before[1]["state"], rtol=0, atol=0)


def test_a_rebuilt_optimizer_does_not_train_the_same():
    """The negative control of the law above: a state that starts anew is noticed."""
    torch.manual_seed(0)
    model = mlp(torch.float64)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    train(model, optimizer, 6)
    widen(model, "hidden1", 3, optimizer=optimizer)
    twin = copy.deepcopy(model)
    train(model, optimizer, 1, seed=2)
    train(twin, torch.optim.Adam(twin.parameters(), lr=1e-2), 1, seed=2)
    assert (model.hidden2.weight - twin.hidden2.weight).abs().max() > 1e-4


def test_growing_without_the_optimizer_loses_tensors_and_check_growth_names_them():
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    widen(model, "hidden1", 2)
    assert set(lost_tensors(model, optimizer)) == {"hidden1.weight", "hidden1.bias", "hidden2.weight"}


def test_lbfgs_is_refused_and_nothing_has_changed():
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters())
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(TypeError, match="one flat vector"):
        widen(model, "hidden1", 2, optimizer=optimizer)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_optimizer_with_an_unknown_state_is_refused():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.state[model.hidden1.weight]["sketch"] = torch.zeros(3)
    with pytest.raises(TypeError, match="'sketch' of SGD"):
        widen(model, "hidden1", 2, optimizer=optimizer)
    assert model.hidden[0].width == 7


def test_schedulers_groups_and_gradients_live_on():
    torch.manual_seed(0)
    model = mlp()
    groups = [{"params": model.hidden1.parameters(), "lr": 0.5}, {"params": model.hidden2.parameters()}]
    optimizer = torch.optim.SGD([*groups, {"params": model.output.parameters(), "lr": 0.1}], lr=0.2, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    train(model, optimizer, 2, scheduler=scheduler)
    held, gradient = optimizer.param_groups[0], model.hidden2.weight.grad.clone()
    widen(model, "hidden1", 3, optimizer=optimizer)
    assert optimizer.param_groups[0] is held and held["params"][0] is model.hidden1.weight
    assert torch.equal(model.hidden2.weight.grad[:, :7], gradient)
    assert not model.hidden2.weight.grad[:, 7:].any()
    train(model, optimizer, 2, scheduler=scheduler)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5 / 16, 0.2 / 16, 0.1 / 16])


def test_frozen_tensors_stay_frozen():
    model = mlp()
    model.hidden1.requires_grad_(False)
    widen(model, "hidden1", 2)
    assert not model.hidden1.weight.requires_grad and model.output.weight.requires_grad


# ---------------------------------------------------------------------------------------------------------- prune


@given(position=st.integers(0, 2), units=st.sets(st.integers(0, 3), min_size=1, max_size=3), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_pruning_equals_a_network_whose_units_are_not_read(position, units, seed):
    torch.manual_seed(seed)
    model = ConvNet((2, 8, 8), [4, 5], [6], 4).double().eval()
    inputs = inputs_for(model)
    hidden = model.hidden[position]
    silent = copy.deepcopy(model)
    consumer = silent.hidden[position].consumers[0]
    spread = hidden.spread(hidden.consumers[0])
    with torch.no_grad():
        for unit in units:
            consumer.weight[:, unit * spread : (unit + 1) * spread] = 0
    change = prune(model, hidden.name, units)
    torch.testing.assert_close(model(inputs), silent(inputs), rtol=1e-12, atol=1e-12)
    assert change.kind == "prune" and change.before - change.after == len(units)


# ------------------------------------------------------------------------------------------------- foot-guns, errors


def test_check_growth_sees_units_that_are_dead_at_birth():
    def dead(hidden, by, probe):
        incoming, bias, outgoing = zero_out(hidden, by, probe)
        return [rows.zero_() for rows in incoming], bias, outgoing

    torch.manual_seed(0)
    model = mlp()
    inputs = inputs_for(model)
    assert check_growth(model, widen(model, "hidden1", 2), inputs)["dead"] == []
    assert check_growth(model, widen(model, "hidden1", 2, init=dead), inputs)["dead"] == [9, 10]


def test_check_growth_sees_twins_that_never_part():
    def clone(hidden, by, probe):  # copies, read exactly as the originals
        producer, consumer = hidden.producers[0], hidden.consumers[0]
        return producer.weight[:by].clone(), producer.bias[:by].clone(), consumer.weight[:, :by].clone()

    model = mlp()
    assert check_growth(model, widen(model, "hidden1", 2, init=clone), inputs_for(model))["twins"] == [(0, 7), (1, 8)]


def test_check_growth_leaves_the_model_as_it_was():
    model = convnet()
    change = widen(model, "conv1", 1)
    model.norm2.eval()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    check_growth(model, change, inputs_for(model).detach())
    assert model.training and model.norm1.training and not model.norm2.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not torch.equal(state, torch.zeros_like(state)) and model.hidden1.weight.grad is None


@pytest.mark.parametrize("by", [0, -3, 2.5])
def test_growing_by_nothing_is_an_error(by):
    with pytest.raises(ValueError, match=r"cannot widen layer 'hidden1' \(7 units\) by"):
        widen(mlp(), "hidden1", by)


def test_unknown_layers_and_units_are_errors():
    with pytest.raises(ValueError, match="no hidden layer 'hidden9': the model has 'hidden1', 'hidden2'"):
        widen(mlp(), "hidden9", 2)
    with pytest.raises(ValueError, match="cannot prune unit 12: layer 'hidden1' has 7 units"):
        prune(mlp(), "hidden1", [12])
    with pytest.raises(ValueError, match="cannot prune all 7 units"):
        prune(mlp(), "hidden1", range(7))
    with pytest.raises(TypeError, match="Linear has no hidden layers"):
        hidden_of(nn.Linear(2, 2))


def test_a_copied_or_pickled_model_grows_by_itself():
    model = mlp()
    twin = copy.deepcopy(model)
    widen(twin, "hidden1", 2)
    assert (model.hidden[0].width, twin.hidden[0].width) == (7, 9)


# -------------------------------------------------------------------------------------- units, by number and by mask


@pytest.mark.parametrize("mask", [torch.tensor, np.array, list])
def test_a_mask_of_the_width_removes_what_it_marks(mask):
    torch.manual_seed(0)
    model = mlp()
    old = model.hidden1.weight.clone()
    change = prune(model, "hidden1", mask([False, True, False, False, True, False, False]))
    assert change.units == [1, 4] and torch.equal(model.hidden1.weight, old[[0, 2, 3, 5, 6]])


@pytest.mark.parametrize("units", [torch.rand(7), [0.0, 2.0], np.array([1.0]), [True, 2], [None], ["0"], None, 1.0])
def test_what_is_neither_units_nor_a_mask_is_refused(units):
    model = mlp()
    with pytest.raises(ValueError, match=r"cannot prune unit .* of layer 'hidden1': give the indices"):
        prune(model, "hidden1", units)
    assert model.hidden[0].width == 7


@pytest.mark.parametrize("mask", [[True], [False] * 5 + [True], torch.ones(8, dtype=torch.bool)])
def test_a_mask_of_another_length_is_refused(mask):
    with pytest.raises(ValueError, match="of 7 units by a mask of"):
        prune(mlp(), "hidden1", mask)


def test_numbers_of_numpy_and_torch_are_numbers_and_booleans_are_none():
    model = mlp()
    assert widen(model, "hidden1", np.int64(2)).units == [7, 8]
    assert prune(model, "hidden1", torch.tensor([8, 7])).units == [7, 8]
    assert prune(model, "hidden1", [np.int64(6), torch.tensor(5)]).units == [5, 6]
    assert [prune(model, "hidden1", one).units for one in (4, np.int64(3), torch.tensor(2))] == [[4], [3], [2]]
    with pytest.raises(ValueError, match="by True: give a positive number"):
        widen(model, "hidden1", True)


# --------------------------------------------------------------------------------------------------- memory, modes


@pytest.mark.parametrize("build", [convnet, net])
def test_channels_last_is_kept(build):
    torch.manual_seed(0)
    model = build().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer, 1)
    name = hidden_of(model)[0].name
    widen(model, name, 3, optimizer=optimizer), prune(model, name, [0], optimizer)
    deepen(model, name, optimizer=optimizer)
    maps = [parameter for parameter in model.parameters() if parameter.ndim == 4]
    assert len(maps) > 1 and all(p.is_contiguous(memory_format=torch.channels_last) for p in maps)
    assert not any(p.is_contiguous() for p in maps)
    plain = build()
    widen(plain, name, 3)
    assert all(parameter.is_contiguous() for parameter in plain.parameters())


def test_what_changed_in_inference_mode_can_be_trained():
    model = mlp()
    with torch.inference_mode():
        check_growth(model, widen(model, "hidden1", 2), torch.randn(4, 12))
        prune(model, "hidden1", [0]), deepen(model, "hidden1")
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), 1)


def test_gradmax_of_an_encoder_that_is_called_twice():
    """Inside of it, where maker and reader are called alike, it works; at its end it is refused."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.out = nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 3)

        def encode(self, inputs):
            return self.two(self.one(inputs).relu())

        def forward(self, inputs):
            return self.out((self.encode(inputs[:, 0]) - self.encode(inputs[:, 1])).relu())

    model = growable(Twice(), torch.randn(4, 2, 6))
    probe = Probe(model, torch.randn(16, 2, 6), torch.randint(3, (16,)))
    assert {hidden.name for hidden in hidden_of(model)} == {"one", "two"}
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="gradmax cannot widen layer 'two': it is called several times"):
        widen(model, "two", 2, gradmax, probe=probe)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    outputs = model(probe.inputs)
    widen(model, "one", 2, gradmax, probe=probe)
    assert relative(model(probe.inputs), outputs) < 1e-5


def test_an_averaged_model_says_what_to_do():
    averaged = torch.optim.swa_utils.AveragedModel(mlp())
    with pytest.raises(TypeError, match="change the model, then average the new one"):
        widen(averaged, "hidden1", 2)
    widen(averaged.module, "hidden1", 2)
    assert averaged(torch.randn(2, 12)).shape == (2, 4)


def test_a_change_holds_the_tensors_that_it_replaced_and_nothing_else_beside_them():
    """What hands their state over by hand relies on it."""
    model = mlp()
    old = {name: parameter for name, parameter in model.named_parameters()}
    change = widen(model, "hidden1", 2)
    assert set(change.previous) == {"hidden1.weight", "hidden1.bias", "hidden2.weight"}
    assert all(change.previous[name] is old[name] for name in change.previous)
