"""growable: what it finds in a model, what it refuses, and that what it lists grows exactly."""

import copy
import pickle

import pytest
import torch
from networks import relative, shaken
from torch import nn
from torch.nn.functional import relu
from torchvision.models import get_model
from torchvision.models.convnext import LayerNorm2d

from growlib.growth import check_growth, growable, prune, tracing, widen
from growlib.inits import split, zero_out
from growlib.layers import GrowConv2d, GrowLinear, hidden_of
from growlib.models import MLP


class Residual(nn.Module):
    """A stem, a block that adds, and a head: the stem and the end of the block make one width."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.inner, self.back = nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.Conv2d(5, 6, 3, padding=1)
        self.scale = nn.Parameter(torch.full((1,), 1e-6))
        self.head = nn.Linear(6, 4)

    def forward(self, images):
        stream = relu(self.norm(self.stem(images)))
        stream = stream + self.scale * self.back(relu(self.inner(stream)))
        return self.head(stream.mean((2, 3)))


class Beside(nn.Module):
    """Two branches, side by side, normalised and read together, after one of them was also read alone."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1)
        self.norm, self.read = nn.BatchNorm2d(13), nn.Linear(13 * 4, 5)

    def forward(self, images):
        left = self.left(images)
        both = torch.cat([left, self.right(relu(left)), images], 1)
        return self.read(relu(self.norm(both)).flatten(1))


class Gate(nn.Module):
    """Squeeze and excitation around a depthwise convolution."""

    def __init__(self):
        super().__init__()
        self.expand, self.depth = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.squeeze, self.excite = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, images):
        units = self.depth(relu(self.expand(images)))
        gate = torch.sigmoid(self.excite(relu(self.squeeze(nn.functional.adaptive_avg_pool2d(units, 1)))))
        return self.head(gate * units).flatten(1)


class OwnUnits(nn.Module):
    """A layer that reads its own units: x + f(x)."""

    def __init__(self):
        super().__init__()
        self.first, self.again, self.head = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, inputs):
        units = relu(self.first(inputs))
        return self.head(units + relu(self.again(units)))


class Tied(nn.Module):
    """Two layers that share one weight, and a layer that is used twice."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.twice, self.head = (nn.Linear(n, m) for n, m in [(5, 4), (5, 4), (4, 4), (4, 3)])
        self.right.weight = self.left.weight

    def forward(self, inputs):
        return self.head(relu(self.left(inputs)) - self.twice(relu(self.right(inputs))))


class TiedReaders(nn.Module):
    """Two widths that meet nowhere but in the weight of the layers that read them."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.read, self.read_too = (nn.Linear(n, m) for n, m in [(5, 4), (5, 4), (4, 3), (4, 3)])
        self.read_too.weight = self.read.weight

    def forward(self, inputs):
        return self.read(relu(self.left(inputs))) + self.read_too(torch.tanh(self.right(inputs)))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Linear(5, 8), nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.up, self.down, self.head = nn.Linear(8, 12), nn.Linear(12, 8), nn.Linear(8, 3)

    def forward(self, tokens):
        stream = self.embed(tokens)
        seen = self.norm(stream)
        stream = stream + self.attention(seen, seen, seen, need_weights=False)[0]
        stream = stream + self.down(nn.functional.gelu(self.up(stream)))
        return self.head(stream.mean(1))


def groups():
    return nn.Sequential(
        nn.Conv2d(3, 12, 1), nn.GroupNorm(3, 12), nn.ReLU(), nn.Conv2d(12, 12, 3, groups=4), nn.Conv2d(12, 2, 1)
    )


def layernorm():
    return nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 7), nn.Linear(7, 3))


def channels_first():
    return nn.Sequential(nn.Conv2d(3, 5, 2), LayerNorm2d(5), nn.GELU(), nn.Conv2d(5, 2, 1), nn.Flatten())


def flat():
    return nn.Sequential(
        nn.Conv1d(3, 4, 3), nn.MaxPool1d(2), nn.Flatten(), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, 3)
    )


IMAGES, ROWS, TOKENS = (4, 3, 2, 2), (4, 5), (4, 6, 5)
FOUND = {
    Residual: (IMAGES, {"stem": 1, "inner": 1}),
    Beside: (IMAGES, {"left": 1, "right": 1}),
    Gate: (IMAGES, {"expand": 1, "squeeze": 1}),
    OwnUnits: (ROWS, {"first": 1}),
    Tied: (ROWS, {"left": 1}),
    TiedReaders: (ROWS, {"left": 1}),
    Transformer: (TOKENS, {"up": 1}),
    groups: ((4, 3, 4, 4), {"0": 12}),
    layernorm: (ROWS, {"0": 1, "3": 1}),
    channels_first: ((4, 3, 4, 4), {"0": 1}),
    flat: ((4, 3, 8), {"0": 1}),
}


def found(build, dtype=torch.float64):
    torch.manual_seed(0)
    shape, names = FOUND[build]
    model, example = shaken(build()).to(dtype), torch.randn(shape, dtype=dtype)
    return growable(model, example), example, names


@pytest.mark.parametrize("build", FOUND)
def test_what_is_found(build):
    model, _, names = found(build)
    assert {hidden.name: hidden.unit for hidden in hidden_of(model)} == names
    listed = {id(module) for hidden in model.hidden for module in hidden.producers}
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) and "att" not in name:
            assert (id(module) in listed) is (name not in model.refused)


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


@pytest.mark.parametrize("build", [build for build in FOUND if build not in (layernorm, channels_first)])
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
    assert (
        "attention" in found(Transformer)[0].refused["embed"] or "LayerNorm" in found(Transformer)[0].refused["embed"]
    )
    assert found(Residual)[0].refused == {"head": "they are the model's output"}
    model = growable(nn.Sequential(nn.Linear(5, 6), nn.Softmax(1), nn.Linear(6, 6)), torch.randn(2, 5))
    assert model.refused["0"] == "they go through 'softmax', which is not followed"
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


def test_a_wrong_discovery_is_caught_by_the_trial(monkeypatch):
    """The negative control: the branches of a concatenation in the wrong order, a missed join, a missed norm."""
    whole = tracing.Follower._concatenated

    def swapped(self, node):
        layout = whole(self, node)
        return tracing.replace(layout, parts=layout.parts[1::-1] + layout.parts[2:])

    monkeypatch.setattr(tracing.Follower, "_concatenated", swapped)
    model, _, _ = found(Beside)
    assert model.hidden == [] and "moves what 'read' puts out" in model.refused["left"]
    monkeypatch.undo()
    monkeypatch.setattr(tracing.Axis, "join", lambda self, other: None)
    assert "stem" not in [hidden.name for hidden in found(Residual)[0].hidden]
    monkeypatch.undo()
    monkeypatch.setattr(tracing.Follower, "_norm", lambda self, node, module, layout: layout)
    assert "widening by 1 fails" in found(flat)[0].refused["0"]


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
    assert model.training and torch.equal(torch.get_rng_state(), random) and type(model.stem) is GrowConv2d
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
    with pytest.raises(ValueError, match="torch.fx cannot trace Branches in eval mode"):
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
    assert model.hidden == [] and model.refused["make"] == "a weight of theirs is also used by itself"


def test_an_example_that_does_not_fit_is_an_error():
    with pytest.raises(ValueError, match=r"Sequential does not run on the example of shape \(2, 7\)"):
        growable(nn.Sequential(nn.Linear(5, 3)), torch.randn(2, 7))


def test_a_model_of_growlib_is_found_as_it_describes_itself():
    model = MLP(12, [7, 5], 4)
    own = model.hidden
    growable(model, torch.randn(2, 12))
    for mine, theirs in zip(model._hidden, own, strict=True):
        assert (mine.name, mine.producers, mine.consumers) == (theirs.name, theirs.producers, theirs.consumers)
    assert isinstance(model.hidden1, GrowLinear)


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
