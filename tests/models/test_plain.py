"""The networks against the same arithmetic written out."""

import copy

import pytest
import torch
from networks import inputs_for, relative, resnet, train
from torch.nn.functional import batch_norm, conv2d, relu

from growlib.data import load
from growlib.growth import check_growth, growable, prune, widen
from growlib.inits import orthogonal, random, split, zero_out
from growlib.layers import Hidden
from growlib.models import KNOWN, MLP, ConvNet, ResidualBlock, ResNet
from growlib.trainer import Trainer


def test_an_mlp_is_matrix_products_with_relu_between():
    model, inputs = MLP(6, [5, 4], 3), torch.randn(2, 1, 2, 3)
    first = relu(inputs.flatten(1) @ model.hidden1.weight.T + model.hidden1.bias)
    second = relu(first @ model.hidden2.weight.T + model.hidden2.bias)
    expected = second @ model.output.weight.T + model.output.bias
    torch.testing.assert_close(model(inputs), expected)
    assert [(hidden.name, hidden.width) for hidden in model.hidden] == [("hidden1", 5), ("hidden2", 4)]


def test_a_linear_model_has_no_hidden_layer():
    model = MLP(6, [], 3)
    assert model.hidden == [] and model(torch.randn(2, 6)).shape == (2, 3)


def test_a_convnet_halves_the_image_in_every_block():
    model = ConvNet((3, 12, 8), [4, 6], [7], 5)
    assert model(torch.randn(2, 3, 12, 8)).shape == (2, 5)
    assert model.hidden1.in_features == 6 * 3 * 2
    names = {hidden.name: (hidden.width, len(hidden.norms)) for hidden in model.hidden}
    assert names == {"conv1": (4, 1), "conv2": (6, 1), "hidden1": (7, 0)}
    assert model.hidden[1].spread(model.hidden1) == 6


MODELS = [MLP(6, [5, 4], 3), ConvNet((3, 8, 8), [4], [5], 2), ResNet((3, 8, 8), [4, 5], [{"a": 3, "b": 2}, 1], 2, 2)]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_the_configuration_builds_the_same_architecture(model):
    twin = KNOWN[type(model).__name__](**model.config())
    twin.load_state_dict(model.state_dict())
    inputs = torch.randn(3, *model.input_shape)
    assert torch.equal(twin(inputs), model(inputs))


def test_wrong_shapes_and_sizes_are_errors_with_the_values():
    with pytest.raises(ValueError, match="takes 6 values an example, and got 12"):
        MLP(6, [5], 3)(torch.randn(2, 3, 4))
    with pytest.raises(ValueError, match=r"takes images \(3, 8, 8\), and got \(1, 8, 8\)"):
        ConvNet((3, 8, 8), [4], [5], 2)(torch.randn(2, 1, 8, 8))
    with pytest.raises(ValueError, match="whole, positive sizes"):
        MLP(6, [0], 3)
    with pytest.raises(ValueError, match="3 poolings leave nothing of an image of 4x4"):
        ConvNet((1, 4, 4), [2, 2, 2], [], 2)
    with pytest.raises(ValueError, match=r"each with a width and its blocks, and got \[4, 5\] and \[1\]"):
        ResNet((1, 8, 8), [4, 5], [1], 2)
    with pytest.raises(ValueError, match="ResNet needs whole, positive sizes"):
        ResNet((1, 8, 8), [4, 5], [1, 0], 2)


# --------------------------------------------------------------------------------------------------------- residuals

STREAMS = {"stage1": 3, "stage2": 2}  # how many layers add to each: the stem or the shortcut, and one a block
HIDDEN = [*STREAMS, "stage1.block1", "stage1.block2", "stage2.block1"]


def normalised(norm, units):
    return batch_norm(units, norm.running_mean, norm.running_var, norm.weight, norm.bias)


def test_a_resnet_adds_what_its_blocks_compute_to_a_stream():
    torch.manual_seed(0)
    model = resnet(torch.float64).eval()
    inputs = inputs_for(model)
    stream = relu(normalised(model.stem_norm, conv2d(inputs, model.stem.weight, padding=1)))
    for name, block in model.blocks.items():
        stride = 2 if name == "stage2.block1" else 1
        inner = relu(normalised(block.norm1, conv2d(stream, block.conv1.weight, stride=stride, padding=1)))
        units = normalised(block.norm2, conv2d(inner, block.conv2.weight, padding=1))
        if stride == 2:
            stream = normalised(block.shortcut_norm, conv2d(stream, block.shortcut.weight, stride=2))
        stream = relu(stream + units)
    assert stream.shape == (16, 6, 4, 4)
    expected = stream.flatten(2).mean(2) @ model.output.weight.T + model.output.bias
    torch.testing.assert_close(model(inputs), expected)


def test_the_widths_of_a_resnet_and_who_shares_them():
    model = resnet()
    assert {hidden.name: hidden.width for hidden in model.hidden} == dict(zip(HIDDEN, [4, 6, 3, 5, 6], strict=True))
    assert {hidden.name: len(hidden.producers) for hidden in model.hidden[:2]} == STREAMS
    made = [id(p) for h in model.hidden for p in h.producers]
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert sorted(made) == sorted(map(id, layers))  # every convolution makes the units of exactly one width
    read = [id(c) for h in model.hidden for c in h.consumers]
    assert sorted(read) == sorted(map(id, [*layers[1:], model.output]))  # and every one but the stem reads one


def test_the_stem_can_halve_the_image():
    model = ResNet((3, 12, 8), [4, 6], [1, 1], 5, stride=2)
    seen = []
    model.stage1["block1"].register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    assert model(torch.randn(2, 3, 12, 8)).shape == (2, 5) and seen == [(2, 4, 6, 4)]


def test_a_block_has_a_shortcut_of_its_own_only_where_something_changes():
    assert ResidualBlock(4, 3, 4).shortcut is None
    assert ResidualBlock(4, 3, 5)(torch.randn(2, 4, 6, 6)).shape == (2, 5, 6, 6)
    assert ResidualBlock(4, 3, 4, stride=2)(torch.randn(2, 4, 6, 6)).shape == (2, 4, 3, 3)


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("init", [zero_out, orthogonal, split])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_every_width_of_a_resnet_grows_and_keeps_the_function(name, init, dtype, tolerance):
    torch.manual_seed(0)
    model = resnet(dtype).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    train(model, optimizer, 2)
    inputs = inputs_for(model)
    before = model(inputs)
    change = widen(model, name, 3, init=init, optimizer=optimizer)
    assert relative(model(inputs), before) <= tolerance
    found = check_growth(model, change, inputs)
    assert found["moved"] <= tolerance and found["twins"] == [] and found["lost"] == []
    assert len(found["dead"]) < 3  # a newborn's statistics are 0 and 1: before the first step, a ReLU may cut it off
    train(model.train(), optimizer, 2)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_an_init_that_moves_outputs_is_seen():
    """The negative control of the law above."""
    torch.manual_seed(0)
    model = resnet().eval()
    inputs = inputs_for(model)
    before = model(inputs)
    widen(model, "stage1", 3, init=random)
    assert relative(model(inputs), before) > 1e-3


def test_a_stream_whose_producers_do_not_grow_together_is_broken():
    """The negative control of the coupling: what is added up must have one width."""

    class Uncoupled(ResNet):
        @property
        def hidden(self):
            stream = super().hidden[0]
            return [Hidden("stage1", stream.producers[:-1], stream.norms[:-1], stream.consumers)]

    with pytest.raises(ValueError, match=r"size of tensor a \(6\) must match the size of tensor b \(4\)"):
        widen(Uncoupled((2, 8, 8), [4], [2], 4), "stage1", 2)  # which counts the FLOPs of what it made


@pytest.mark.parametrize("name", HIDDEN)
def test_pruning_a_width_of_a_resnet_equals_not_reading_its_units(name):
    torch.manual_seed(0)
    model = resnet(torch.float64).eval()
    silent = copy.deepcopy(model)
    inputs = inputs_for(model)
    consumers = next(hidden.consumers for hidden in silent.hidden if hidden.name == name)
    with torch.no_grad():
        for consumer in consumers:
            consumer.weight[:, [0, 2]] = 0
    prune(model, name, [0, 2])
    torch.testing.assert_close(model(inputs), silent(inputs), rtol=1e-12, atol=1e-12)


def test_a_resnet_grown_everywhere_equals_one_built_at_that_size():
    torch.manual_seed(0)
    model = resnet().eval()
    for by, name in enumerate(HIDDEN, start=1):
        widen(model, name, by, init=split)
    twin = ResNet((2, 8, 8), [5, 8], [{"block1": 6, "block2": 9}, {"block1": 11}], 4).eval()
    assert twin.config() == model.config()
    twin.load_state_dict(model.state_dict())
    inputs = inputs_for(model)
    assert torch.equal(twin(inputs), model(inputs))


def test_a_saved_resnet_goes_on_as_if_it_had_not_stopped(tmp_path):
    shapes = load("shapes", n=300)
    torch.manual_seed(0)
    model = ResNet((3, 32, 32), [4, 4], [1, 1], 10, stride=2)
    trainer = Trainer(model, torch.optim.AdamW(model.parameters(), lr=1e-3), device="cpu")
    trainer.fit(shapes, epochs=1)
    for name in ("stage1", "stage2.block1"):
        trainer.change(widen, name, 3)
    trainer.save(tmp_path / "run.pt")
    loaded = Trainer.load(tmp_path / "run.pt", device="cpu")
    assert loaded.model.config() == model.config()
    assert trainer.fit(shapes, epochs=1).losses == loaded.fit(shapes, epochs=1).losses


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_growable_discovers_what_a_model_lists(model):
    twin = growable(copy.deepcopy(model), torch.randn(2, *model.input_shape))
    assert shared(twin, twin._hidden) == shared(model, model.hidden)


def shared(model, hidden):
    """For every width, the names of the layers that make it, normalise it and read it."""
    names = {module: name for name, module in model.named_modules()}
    return {tuple(frozenset(names[m] for m in role) for role in (h.producers, h.norms, h.consumers)) for h in hidden}
