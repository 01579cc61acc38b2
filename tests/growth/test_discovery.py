"""growable: what it finds in a model, what it refuses, and that what it lists grows exactly."""

import copy
import pickle
import re

import pytest
import torch
from found import FOUND, Beside, Gate, Residual, Transformer, channels_first, groups, layernorm
from networks import relative, shaken
from torch import nn
from torch.nn.functional import relu
from torchvision.models import get_model

from growlib.growth import check_growth, growable, prune, widen
from growlib.inits import split, zero_out
from growlib.layers import hidden_of
from growlib.models import MLP


def found(build, dtype=torch.float64):
    torch.manual_seed(0)
    shape, names = FOUND[build]
    model, example = shaken(build()).to(dtype), torch.randn(shape, dtype=dtype)
    return growable(model, example), example, names


@pytest.mark.parametrize("build", FOUND)
def test_what_is_found(build):
    model, _, names = found(build)
    assert {hidden.name: hidden.unit for hidden in hidden_of(model)} == names
    listed = {id(module.weight) for hidden in model.hidden for module in hidden.producers if hasattr(module, "weight")}
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) and "att" not in name:
            assert (id(module.weight) in listed) is (name not in model.refused)


@pytest.mark.parametrize("init", [zero_out, split])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("build", FOUND)
def test_all_that_is_listed_grows_exactly_and_learns_on(build, dtype, tolerance, init):
    model, example, _ = found(build, dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(2):
        for hidden in [*hidden_of(model), *hidden_of(model)]:
            with torch.no_grad():
                model.eval()
                before = model(example)
                change = widen(model, hidden, 2 * hidden.unit, init=init, optimizer=optimizer)
                assert relative(model(example), before) <= tolerance
            checked = check_growth(model, change, example)
            assert checked["lost"] == [] and checked["moved"] <= tolerance
            assert build not in (layernorm, channels_first) or checked["dead"] == []  # what reads the mean is random
        optimizer.zero_grad()
        model.train()(example).square().sum().backward()
        optimizer.step()
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.parametrize("build", [build for build in FOUND if build not in (layernorm, channels_first, Transformer)])
def test_pruning_what_was_grown_gives_the_model_back(build):
    model, example, _ = found(build)
    old = copy.deepcopy(model.state_dict())
    for hidden in hidden_of(model):
        prune(model, hidden, widen(model, hidden, hidden.unit).units)
    torch.testing.assert_close(model.state_dict(), old, rtol=0, atol=0)
    model.eval()(example)


def test_pruning_a_concatenated_channel_removes_what_reads_it():
    """Against the same network whose unit is not read."""
    model, example, _ = found(Beside)
    silent = copy.deepcopy(model.eval())
    with torch.no_grad():
        silent.right.weight[:, 2] = 0
        silent.read.weight.view(5, 13, 4)[:, 2] = 0  # the left branch lies first
    expected = silent(example)
    prune(model, "left", [2])
    torch.testing.assert_close(model(example), expected, rtol=1e-12, atol=1e-12)
    assert model.norm.num_features == 12 and model.read.in_features == 48


def test_refusals_tell_why():
    assert found(Residual)[0].refused == {"head": "they are the model's output"}
    model = growable(nn.Sequential(nn.Linear(5, 6), nn.Softmax(1), nn.Linear(6, 6)), torch.randn(2, 5))
    assert re.search(r"go through 'softmax' in '1' \(.*, line \d+\), which mixes them", model.refused["0"])
    with pytest.raises(ValueError, match="no hidden layer '0'"):
        widen(model, "0", 1)


def test_groups_grow_and_go_as_wholes():
    model, _, _ = found(groups)
    with pytest.raises(ValueError, match=r"\(12 units\) by 8: give a positive multiple of 12"):
        widen(model, "0", 8)
    widen(model, "0", 12)
    assert (model[1].num_groups, model[3].groups, model[3].in_channels) == (6, 8, 24)
    with pytest.raises(ValueError, match="cannot prune unit 13 .* groups of 12, here 12 to 23"):
        prune(model, "0", [13])
    prune(model, "0", range(12))
    assert (model[1].num_groups, model[3].groups) == (3, 4)


def test_a_tiny_layer_scale_hides_nothing():
    """What is scaled by 1e-6 moves the output by little, so the trial looks at what the consumers put out."""
    model, example, _ = found(Residual)
    with torch.no_grad():
        before = model.eval()(example)
        model.inner.weight[0] += 1e-3
        assert 0 < relative(model(example), before) < 1e-5


def test_the_model_stays_itself():
    torch.manual_seed(0)
    model, example = Residual(), torch.randn(2, 3, 8, 8)
    parameters, state, calls = list(model.parameters()), copy.deepcopy(model.state_dict()), []
    model.stem.register_forward_hook(lambda *_: calls.append(1))
    before, random = model.eval()(example), torch.get_rng_state()
    growable(model.train(), example)
    assert model.training and torch.equal(torch.get_rng_state(), random)
    assert all(mine is theirs for mine, theirs in zip(model.parameters(), parameters, strict=True))
    assert torch.equal(model.eval()(example), before) and calls
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    growable(model, example)  # once more does no harm
    assert [hidden.name for hidden in hidden_of(model)] == ["stem", "inner"]


def test_copies_and_pickles_grow_by_themselves():
    model, example, _ = found(Beside)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        widen(twin, "left", 3)
        assert (model.hidden[0].width, twin.hidden[0].width) == (4, 7)
        torch.testing.assert_close(twin.eval()(example), model.eval()(example))


def test_a_grown_state_loads_into_a_fresh_smaller_model():
    for build in (Beside, Gate, groups, layernorm):
        model, example, _ = found(build)
        fresh = found(build)[0]
        for hidden in hidden_of(model):
            widen(model, hidden, 2 * hidden.unit, init=split)
        fresh.load_state_dict(model.state_dict())
        assert torch.equal(fresh.eval()(example), model.eval()(example))


def test_auxiliary_heads_that_only_training_reaches_are_seen():
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head, self.extra = nn.Linear(5, 6), nn.Linear(6, 3), nn.Linear(6, 3)

        def forward(self, inputs):
            units = relu(self.first(inputs))
            return self.head(units) + self.extra(units) if self.training else self.head(units)

    model = growable(Auxiliary(), torch.randn(2, 5))
    assert model.hidden[0].consumers == (model.head, model.extra)
    widen(model, "first", 2)
    assert model.train()(torch.randn(2, 5)).shape == (2, 3)


def test_what_cannot_be_traced_is_an_error_and_nothing_has_changed():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 5)

        def forward(self, inputs):
            return self.layer(inputs) if inputs.sum() > 0 else inputs

    model = Branches()
    with pytest.raises(
        ValueError, match="torch.export cannot take Branches in eval mode: .*data-dependent.*Nothing was changed"
    ):
        growable(model, torch.randn(2, 5))
    assert type(model.layer) is nn.Linear and not hasattr(model, "refused")


def test_a_weight_that_is_also_used_by_itself_is_refused():
    class Direct(nn.Module):
        def __init__(self):
            super().__init__()
            self.make, self.read = nn.Linear(5, 5), nn.Linear(5, 3)

        def forward(self, inputs):
            return self.read(relu(self.make(inputs))) + (inputs @ self.make.weight).sum()

    model = growable(Direct(), torch.randn(2, 5))
    assert model.hidden == [] and model.refused["make"] == "they are the model's input"


def test_an_example_that_does_not_fit_is_an_error():
    with pytest.raises(ValueError, match=r"Sequential does not run on the example of shape \(2, 7\)"):
        growable(nn.Sequential(nn.Linear(5, 3)), torch.randn(2, 7))


def test_a_model_of_growlib_is_found_as_it_describes_itself():
    model = MLP(12, [7, 5], 4)
    own = model.hidden
    growable(model, torch.randn(2, 12))
    for mine, theirs in zip(model._hidden, own, strict=True):
        assert (mine.name, mine.producers, mine.consumers) == (theirs.name, theirs.producers, theirs.consumers)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_models_of_torchvision(name):
    torch.manual_seed(0)
    model = growable(get_model(name, num_classes=10), torch.randn(1, 3, 32, 32))
    images = torch.randn(2, 3, 32, 32)
    assert len(model.hidden) >= 12
    with torch.no_grad():
        for hidden in model.hidden[::5]:
            before = model.eval()(images)
            widen(model, hidden, 8 * hidden.unit, init=split)
            assert relative(model(images), before) <= 1e-5
