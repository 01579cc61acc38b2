"""deepen against the function before it, for every model, optimizer and schedule."""

import copy

import pytest
import torch
import torchvision
from found import Tokens
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from networks import OPTIMIZERS, convnet, inputs_for, mlp, net, relative, resnet, shaken, train
from torch import nn
from torch.nn.functional import gelu, relu

from growlib import Deepen, Trainer, Widen, costs, every, growable, load, shallower_than
from growlib.growth import Change, check_growth, deepen, identity, lost_tensors, prune, residual, untrained, widen
from growlib.growth.inserted import insertions
from growlib.layers import Hidden, hidden_of
from growlib.models import KNOWN, MLP, ConvNet

DTYPES = st.sampled_from([(torch.float32, 1e-5), (torch.float64, 1e-10)])


@given(
    build=st.sampled_from([mlp, convnet, resnet]),
    dtype=DTYPES,
    places=st.lists(st.integers(0, 9), min_size=1, max_size=3),
    seed=st.integers(0, 1000),
)
@settings(max_examples=30, deadline=None)
def test_a_new_layer_keeps_the_function_and_the_configuration_builds_it(build, dtype, places, seed):
    torch.manual_seed(seed)
    model = build(dtype[0])
    inputs = inputs_for(model)
    names = [hidden.name for hidden in model.hidden]
    modes = [model.train(mode)(inputs) for mode in (True, False)]
    model.eval()
    before = model(inputs)
    for place in places:
        hidden = model.hidden[place % len(model.hidden)]
        change = deepen(model, hidden)
        assert (change.kind, change.before, change.cause, change.step) == ("deepen", 0, "", None)
        assert change.layer not in names and change.parameters == costs.parameters(model)
        assert change.units == list(range(change.after))
        names.append(change.layer)
    assert relative(model(inputs), before) <= dtype[1]
    assert relative(model.train()(inputs), modes[0]) <= dtype[1]  # norms that look at the batch notice nothing either
    assert {hidden.name for hidden in model.hidden} == set(names)
    twin = KNOWN[type(model).__name__](**model.config()).to(dtype[0])
    assert [name for name, _ in twin.named_modules()] == [name for name, _ in model.named_modules()]
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(inputs), model(inputs))


@pytest.mark.parametrize("build", [mlp, convnet, resnet])
def test_a_random_new_layer_moves_the_outputs(build):
    """The negative control of the law above."""
    torch.manual_seed(0)
    model = build().eval()
    inputs = inputs_for(model)
    before = model(inputs)
    change = deepen(model, model.hidden[-1], init=untrained)
    assert relative(model(inputs), before) > 1e-3 and check_growth(model, change, inputs)["moved"] > 1e-3


def test_an_identity_layer_is_the_identity_matrix_between_its_neighbours():
    model = MLP(12, [7, 5], 4)
    old = model.hidden2.weight
    change = deepen(model, "hidden1")
    assert [(hidden.name, hidden.width) for hidden in model.hidden] == [("hidden1", 7), ("hidden3", 7), ("hidden2", 5)]
    assert change.layer == "hidden3" and model.hidden2.weight is old
    assert torch.equal(model.hidden3.weight, torch.eye(7)) and not model.hidden3.bias.any()
    assert [name for name, _ in model.named_children()] == ["hidden1", "hidden3", "hidden2", "output"]
    deepen(model, "hidden2"), deepen(model, "hidden1")
    assert model.names == ["hidden1", "hidden5", "hidden3", "hidden2", "hidden4"]


def test_a_new_convolution_passes_every_channel_on_and_pools_nothing():
    model = ConvNet((2, 8, 8), [4, 3], [6], 4)
    deepen(model, "conv2")
    assert torch.equal(model.conv3(images := torch.randn(2, 3, 2, 2)), images)
    assert model.hidden1.in_features == 3 * 2 * 2 and model.config()["plain"] == ["conv3"]


def test_check_growth_knows_a_new_layer():
    torch.manual_seed(0)
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    inputs = inputs_for(model, 200)
    change = deepen(model, "hidden1", optimizer=optimizer)
    assert check_growth(model, change, inputs) == {"moved": 0.0, "dead": [], "twins": [], "lost": []}
    with torch.no_grad():
        model.hidden1.bias[2] = -100  # what is dead upstream is dead here
    assert check_growth(model, change, inputs)["dead"] == [2]
    change = deepen(model, "hidden2")
    assert lost_tensors(model, optimizer) == ["hidden4.weight", "hidden4.bias"]
    block = resnet()
    change = deepen(block, "stage1")
    assert check_growth(block, change, inputs_for(block, 50))["dead"] == []  # behind a gamma of zero, which learns
    assert not block.stage1[change.layer.removeprefix("stage1.")].norm2.weight.any()


@pytest.mark.parametrize("build", [mlp, convnet, resnet])
def test_a_new_layer_is_widened_and_pruned_like_any_other(build):
    torch.manual_seed(0)
    model = build(torch.float64).eval()
    inputs = inputs_for(model)
    before = model(inputs)
    for hidden in model.hidden:
        layer = deepen(model, hidden).layer
        widen(model, layer, 3)
        assert check_growth(model, widen(model, layer, 2), inputs)["moved"] <= 1e-10
        width = next(hidden.width for hidden in model.hidden if hidden.name == layer)
        prune(model, layer, range(width - 5, width))
    assert relative(model(inputs), before) <= 1e-10


# ------------------------------------------------------------------------------------------------------ optimizers


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_with_every_optimizer_as_in_a_network_built_so(name):
    """Against an optimizer that is built over the deeper network, with the state of the old tensors copied."""
    torch.manual_seed(0)
    make = OPTIMIZERS[name]
    model = mlp(torch.float64)
    optimizer = make(list(model.parameters()))
    train(model, optimizer, 5)
    change = deepen(model, "hidden1", optimizer=optimizer)
    if name != "Muon":
        assert check_growth(model, change, inputs_for(model))["lost"] == []
    twin = MLP(**model.config()).double()
    twin.load_state_dict(model.state_dict())
    rebuilt = make(list(twin.parameters()))
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        if mine in optimizer.state:
            rebuilt.state[theirs] = copy.deepcopy(optimizer.state[mine])
    for trained in ((model, optimizer), (twin, rebuilt)):
        train(*trained, 5, seed=2)
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)
    assert not torch.equal(model.hidden3.weight, torch.eye(7, dtype=torch.float64))


def test_new_tensors_join_the_groups_of_their_neighbours():
    model = MLP(12, [7, 5], 4)
    decayed = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW([{"params": decayed}, {"params": rest, "weight_decay": 0.0}])
    groups, lists = list(optimizer.param_groups), [group["params"] for group in optimizer.param_groups]
    deepen(model, "hidden2", optimizer=optimizer)
    for position, tensor in enumerate((model.hidden3.weight, model.hidden3.bias)):
        assert optimizer.param_groups[position] is groups[position]
        assert groups[position]["params"] is lists[position] and lists[position][-1] is tensor
        assert tensor not in optimizer.state


@pytest.mark.parametrize("schedule", ["LambdaLR", "OneCycleLR"])
def test_schedules_go_on(schedule):
    def run(grow):
        torch.manual_seed(0)
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        if schedule == "LambdaLR":
            scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
        else:
            scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=9)
        train(model, optimizer, 3, scheduler=scheduler)
        if grow:
            deepen(model, "hidden1", optimizer=optimizer)
        train(model, optimizer, 3, scheduler=scheduler)
        return [(group["lr"], group["momentum"]) for group in optimizer.param_groups]

    assert run(True) == run(False)


def test_a_gradient_scaler_goes_on():
    torch.manual_seed(0)
    model = mlp()
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu", init_scale=256.0)

    def step():
        optimizer.zero_grad()
        scaler.scale(model(inputs_for(model)).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()

    step()
    deepen(model, "hidden1", optimizer=optimizer)
    step()
    assert scaler.get_scale() == 256.0 and not torch.equal(model.hidden3.weight, torch.eye(7))
    model.hidden3.weight.data[0, 0] = float("inf")
    weight = model.hidden2.weight.clone()
    step()  # is skipped
    assert scaler.get_scale() == 128.0 and torch.equal(model.hidden2.weight, weight)


def test_new_tensors_stay_out_where_their_neighbour_does():
    model = mlp()
    optimizer = torch.optim.Adam(model.hidden1.parameters())
    held = optimizer.param_groups[0]["params"]
    deepen(model, "hidden2", optimizer=optimizer)
    assert len(held) == 2
    new = model.get_submodule(deepen(model, "hidden1", optimizer=optimizer).layer)
    assert [id(p) for p in held] == [id(p) for p in (*model.hidden1.parameters(), *new.parameters())]


def test_lbfgs_is_refused_and_nothing_has_changed():
    model = mlp()
    with pytest.raises(TypeError, match="one flat vector"):
        deepen(model, "hidden1", optimizer=torch.optim.LBFGS(model.parameters()))
    assert model.config() == mlp().config()


# ---------------------------------------------------------------------------------------------------- other models


def residual_net(dtype=torch.float32):
    return growable(shaken(torchvision.models.resnet18(num_classes=4)), torch.randn(2, 3, 32, 32)).to(dtype)


AFTER = ["conv", "norm", "one", "two", "one", "out"]


@given(
    activation=st.sampled_from([relu, torch.tanh, gelu]),
    dtype=DTYPES,
    places=st.lists(st.sampled_from(AFTER), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
@pytest.mark.slow
@settings(max_examples=15, deadline=None, phases=[Phase.explicit, Phase.generate])  # shrinking would take minutes
def test_any_model_is_deepened_exactly(activation, dtype, places, seed):
    torch.manual_seed(seed)
    model = net(activation, dtype[0])
    optimizer = torch.optim.Adam(model.parameters())
    inputs, names = inputs_for(model), {hidden.name for hidden in model.hidden}
    before = [model.train(mode)(inputs) for mode in (True, False)]
    model.eval()
    before[1] = model(inputs)
    for after in places:
        change = deepen(model, after, optimizer=optimizer)
        found = check_growth(model, change, inputs)
        assert (found["moved"] <= dtype[1], found["twins"], found["lost"]) == (True, [], [])
        assert change.layer not in names
        names.add(change.layer)
    assert {hidden.name for hidden in hidden_of(model)} == names  # the old ones too
    assert relative(model(inputs), before[1]) <= dtype[1]
    assert relative(model.train()(inputs), before[0]) <= dtype[1]
    model.eval()
    for name in sorted(names):
        assert check_growth(model, widen(model, name, 2, optimizer=optimizer), inputs)["moved"] <= dtype[1]
    train(model.train(), optimizer, 1)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_what_is_put_in_depends_on_what_is_there():
    def kinds(model, after):
        deepen(model, after)
        return [kind for _, kind in next(iter(insertions(model).values()))]

    assert kinds(net(relu), "one") == kinds(nn_chain(nn.ReLU()), "0") == ["ReLU", "GrowLinear"]
    assert kinds(nn_chain(nn.ReLU()), "1") == kinds(nn_chain(nn.Sigmoid()), "1") == ["GrowLinear", "ReLU"]
    assert kinds(net(relu), "conv") == ["ReLU", "GrowConv2d"]  # behind its norm, since conv is the name of a Hidden
    assert kinds(net(torch.tanh), "one") == kinds(nn_chain(nn.Tanh()), "1") == ["Block"]
    assert kinds(net(torch.tanh), "conv") == ["ImageBlock"]


def nn_chain(activation):
    return growable(nn.Sequential(nn.Linear(6, 5), activation, nn.Linear(5, 4)), torch.randn(4, 6))


@pytest.mark.parametrize(("activation", "kind"), [(nn.ReLU(), "Conv{}d"), (nn.Tanh(), "{}Block")])
@pytest.mark.parametrize("dims", [1, 3])
def test_new_layers_lie_along_channels_and_never_along_time(dims, activation, kind):
    torch.manual_seed(0)
    conv, pool = getattr(nn, f"Conv{dims}d"), getattr(nn, f"AdaptiveAvgPool{dims}d")
    model = nn.Sequential(conv(2, 4, 3), activation, conv(4, 5, 3), pool(1), nn.Flatten(), nn.Linear(5, 3)).eval()
    inputs = torch.randn(2, 2, *[7] * dims)
    before = growable(model, inputs)(inputs)
    change = deepen(model, "1")
    assert torch.equal(model(inputs), before) and change.after == 4
    assert type(change.inserted[0]).__name__ == kind.format(
        {1: "Sequence", 3: "Volume"}[dims] if "Block" in kind else dims
    )


def test_models_of_token_ids_several_inputs_and_dicts_are_deepened():
    torch.manual_seed(0)
    model, ids, scale = Tokens(), torch.randint(11, (2, 7)), torch.tensor(2.0)
    before = growable(model, ids, scale=scale)(ids, scale=scale)["logits"]
    change = deepen(model, "up")
    assert torch.equal(model(ids, scale=scale)["logits"], before) and change.flops > 0
    assert deepen(model, "down").after == 8


def test_a_block_follows_a_block():
    """And does not go inside it, although the width that it brought is the last one."""
    model = nn_chain(nn.Tanh())
    for number in (1, 2):
        assert deepen(model, hidden_of(model)[-1], init=residual).layer == f"0.deeper{number}.first"
    assert insertions(model) == {"0": [["deeper1", "Block"], ["deeper2", "Block"]]}


def test_an_identity_layer_behind_tanh_is_refused_and_nothing_changes():
    for model, after in ((net(torch.tanh), "one"), (nn_chain(nn.Tanh()), "1"), (net(relu), "out")):
        before = repr(model), copy.deepcopy(model.state_dict())
        with pytest.raises(ValueError, match=r"identity moves an output by .* needs a ReLU .* Nothing was changed"):
            deepen(model, after, init=identity)
        assert repr(model) == before[0]
        assert all(torch.equal(value, before[1][name]) for name, value in model.state_dict().items())


def test_an_identity_layer_that_is_exact_by_accident_is_refused():
    """Outputs that happen to be positive: a ReLU would change nothing today, and much later."""
    model = nn_chain(nn.Tanh())
    with torch.no_grad():
        model[0].bias.fill_(100.0)
    with pytest.raises(ValueError, match="identity moves an output"):
        deepen(model, "1", init=identity)


def test_a_layer_that_the_forward_pass_never_calls_is_refused():
    model = net()
    model.spare = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="behind 'spare': it is not called in the forward pass"):
        deepen(model, "spare")
    with pytest.raises(ValueError, match="Net has no module 'nowhere'"):
        deepen(model, "nowhere")


@pytest.mark.slow
def test_blocks_of_resnet18_are_deepened_too():
    torch.manual_seed(0)
    model = residual_net(torch.float64).eval()
    inputs = inputs_for(model, 4)
    before = model(inputs)
    names = [hidden.name for hidden in hidden_of(model)]
    for after in ("layer1.0", "layer2.1.conv2", "layer3.0.bn1", "layer1"):
        assert check_growth(model, deepen(model, after), inputs)["moved"] <= 1e-10
    assert relative(model(inputs), before) <= 1e-10
    assert [h.name for h in hidden_of(model) if "deeper" not in h.name] == names
    assert len(hidden_of(model)) == len(names) + 4


def test_a_deepened_model_is_restored_into_a_fresh_one(tmp_path):
    shapes = load("digits")

    def build():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 10))
        return growable(model, torch.randn(2, 1, 8, 8))

    def trainer_of(model, *more):
        grow = [Deepen(every(7, "steps") & shallower_than(4)), Deepen(every(1, "epoch") & shallower_than(5), after="1")]
        grow += [Widen(by=2, when=every(2, "epochs"))]
        return Trainer(model, torch.optim.Adam(model.parameters()), [*grow, *more], device="cpu")

    whole = trainer_of(build())
    whole.fit(shapes, epochs=2)
    whole.save(tmp_path / "run.pt")
    before = whole.predict(shapes.val.images)
    callbacks = trainer_of(build()).callbacks
    loaded = Trainer.load(tmp_path / "run.pt", model=build(), callbacks=callbacks, device="cpu")
    assert repr(loaded.model) == repr(whole.model) and insertions(loaded.model) == insertions(whole.model)
    assert [(h.name, h.width) for h in hidden_of(loaded.model)] == [(h.name, h.width) for h in hidden_of(whole.model)]
    assert torch.equal(loaded.predict(shapes.val.images), before)
    assert whole.fit(shapes, epochs=2).losses == loaded.fit(shapes, epochs=2).losses
    assert whole.history.changes == loaded.history.changes


# ---------------------------------------------------------------------------------------------------------- errors


def test_what_cannot_be_is_refused_with_the_reason():
    model = mlp()
    with pytest.raises(ValueError, match="no hidden layer 'hidden9': the model has 'hidden1', 'hidden2'"):
        deepen(model, "hidden9")
    with pytest.raises(ValueError, match="a GrowLinear is not a residual block: start it with `identity`"):
        deepen(model, "hidden1", init=residual)
    with pytest.raises(ValueError, match="a ResidualBlock cannot pass on what it reads: start it with `residual`"):
        deepen(resnet(), "stage1", init=identity)
    with pytest.raises(TypeError, match="Linear has no hidden layers that growlib knows"):
        deepen(nn.Linear(2, 2), "weight")
    assert model.config() == mlp().config()

    class ByHand(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 2)
            self.hidden = [Hidden("one", (self.one,), (), (self.two,))]

    with pytest.raises(ValueError, match="ByHand lists its hidden layers itself"):
        deepen(ByHand(), "one")


def test_a_change_is_recorded_as_plain_values():
    record = deepen(mlp(), "hidden1").record()
    assert set(record) == {"kind", "step", "layer", "before", "after", "units", "parameters", "flops", "cause"}
    assert isinstance(deepen(mlp(), "hidden1"), Change) and len(hidden_of(mlp())) == 2


def test_an_input_shape_that_is_not_true_is_told_and_nothing_changes():
    model = growable(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.zeros(2, 4))
    model.input_shape, before = (5,), {name: id(tensor) for name, tensor in model.named_parameters()}
    with pytest.raises(
        ValueError, match=r"does not run on examples of its input_shape, \(5,\) .*Set model.input_shape"
    ):
        deepen(model, "0")
    assert before == {name: id(tensor) for name, tensor in model.named_parameters()}
    model.input_shape = (4,)
    assert deepen(model, "0").kind == "deepen"
