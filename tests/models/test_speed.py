"""SpeedNet against the same arithmetic written out, and what growth keeps of it."""

import copy

import pytest
import torch
from networks import inputs_for, relative, speednet, train
from torch.nn.functional import batch_norm, conv2d, cross_entropy, gelu, max_pool2d

from growlib.data import load
from growlib.growth import check_growth, growable, prune, widen
from growlib.inits import north, orthogonal, random, split, variance_transfer, zero_out
from growlib.models import SpeedNet, dirac, whiten
from growlib.signals import Probe
from growlib.sparsity import sparsify
from growlib.trainer import Trainer, load_model

HIDDEN = ["block1.conv1", "block1.conv2", "block2.conv1", "block2.conv2"]


def test_a_speednet_is_convolutions_pooling_norms_and_gelu():
    model = speednet(torch.float64).eval()
    inputs = inputs_for(model)
    units = gelu(conv2d(inputs, model.stem.weight, model.stem.bias))
    assert units.shape == (16, 16, 8, 8)
    for block in (model.block1, model.block2):
        for conv, norm, pooled in ((block.conv1, block.norm1, True), (block.conv2, block.norm2, False)):
            units = conv2d(units, conv.weight, padding=1)
            units = max_pool2d(units, 2) if pooled else units
            units = gelu(batch_norm(units, norm.running_mean, norm.running_var, norm.weight, norm.bias))
    expected = units.flatten(2).max(2).values @ model.output.weight.T / 9
    torch.testing.assert_close(model(inputs), expected)


def test_the_network_of_the_source_has_its_number_of_parameters():
    model = SpeedNet((3, 32, 32), [64, 256, 256], 10)
    convs = 24 * 64 * 9 + 64 * 64 * 9 + 64 * 256 * 9 + 3 * 256 * 256 * 9
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert trained == 24 + convs + 2 * (64 + 256 + 256) + 10 * 256
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_the_widths_that_can_change_are_those_of_the_convolutions():
    model = speednet()
    assert {hidden.name: hidden.width for hidden in model.hidden} == dict(zip(HIDDEN, [3, 4, 5, 4], strict=True))
    assert model.hidden[-1].consumers == (model.output,)


def test_the_configuration_builds_the_same_architecture():
    model = speednet().eval()
    twin = SpeedNet(**model.config()).eval()
    twin.load_state_dict(model.state_dict())
    inputs = inputs_for(model)
    assert torch.equal(twin(inputs), model(inputs))
    assert SpeedNet((1, 9, 9), [3, 4], 2).config()["widths"] == [[3, 3], [4, 4]]


def test_wrong_shapes_and_sizes_are_errors_with_the_values():
    with pytest.raises(ValueError, match=r"takes images \(2, 9, 9\), and got \(1, 9, 9\)"):
        speednet()(torch.randn(2, 1, 9, 9))
    with pytest.raises(ValueError, match=r"3 blocks leave nothing of images \(1, 8, 8\)"):
        SpeedNet((1, 8, 8), [2, 2, 2], 2)
    for widths in ([], [0], [[]]):
        with pytest.raises(ValueError, match="SpeedNet"):
            SpeedNet((1, 8, 8), widths, 2)


def test_the_stem_and_the_scales_of_the_norms_do_not_learn():
    model = speednet()
    cross_entropy(model(inputs_for(model)), torch.zeros(16, dtype=torch.int64)).backward()
    still = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert still == {"stem.weight", *(f"block{b}.norm{n}.weight" for b in (1, 2) for n in (1, 2))}
    assert model.stem.bias.grad.any()


def test_what_it_computes_lies_channels_last_whatever_its_weights_do():
    model, seen = SpeedNet((3, 32, 32), [4, 4, 4], 10), []
    widen(model, "block1.conv1", 2)
    for block in model.blocks.values():
        block.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs))
    model(torch.randn(2, 3, 32, 32))
    assert all(units.is_contiguous(memory_format=torch.channels_last) for units in seen[:2])


# ------------------------------------------------------------------------------------------------------------ starts


def test_the_answers_of_whitening_filters_are_uncorrelated_and_of_equal_size():
    images = torch.randn(200, 2, 8, 8, generator=torch.Generator().manual_seed(0)).cumsum(3)
    layer = torch.nn.Conv2d(2, 16, 2)
    whiten(layer, images, epsilon=1e-9)
    answers = layer(images).detach().transpose(0, 1).flatten(1)
    torch.testing.assert_close(answers[8:], -answers[:8])
    torch.testing.assert_close(answers[:8] @ answers[:8].T / answers.shape[1], torch.eye(8), atol=1e-3, rtol=0)
    assert not layer.weight.requires_grad and layer.bias.requires_grad and not layer.bias.any()
    with pytest.raises(ValueError, match="two filters for each of the 8 values of a patch, 16, and the layer has 5"):
        whiten(torch.nn.Conv2d(2, 5, 2), images)


def test_dirac_passes_channels_on():
    layer = torch.nn.Conv2d(2, 5, 3, padding=1, bias=False)
    before, images = layer.weight.detach().clone(), torch.randn(1, 2, 6, 6)
    answers = dirac(layer)(images)
    assert torch.equal(answers[:, :2], images) and torch.equal(layer.weight[2:], before[2:])
    narrow = torch.nn.Conv2d(5, 2, 3, padding=1, bias=False)
    images = torch.randn(1, 5, 6, 6)
    assert torch.equal(dirac(narrow)(images), images[:, :2])


# ------------------------------------------------------------------------------------------------------------ growth


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("init", [zero_out, orthogonal, split, north])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_every_width_grows_and_keeps_the_function(name, init, dtype, tolerance):
    torch.manual_seed(0)
    model = speednet(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    train(model, optimizer, 2)
    inputs = inputs_for(model.eval())
    before, moved = model(inputs), optimizer.state[model.get_submodule(name).weight]["momentum_buffer"].clone()
    probe = Probe(model, inputs, torch.zeros(16, dtype=torch.int64), cross_entropy)
    change = widen(model, name, 3, init=init, optimizer=optimizer, probe=probe)
    assert relative(model(inputs), before) <= tolerance
    found = check_growth(model, change, inputs)
    assert found["moved"] <= tolerance and not found["twins"] and not found["lost"] and not found["dead"]
    state = optimizer.state[model.get_submodule(name).weight]["momentum_buffer"]
    assert torch.equal(state[: change.before], moved) and not state[change.before :].any()
    frozen = [part for part, parameter in model.named_parameters() if not parameter.requires_grad]
    assert len(frozen) == 5  # the stem and the scales, as before
    train(model.train(), optimizer, 2)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("init", [random, variance_transfer])
def test_the_other_inits_fit_too(init):
    model = speednet()
    inputs = inputs_for(model)
    probe = Probe(model, inputs, torch.zeros(16, dtype=torch.int64), cross_entropy)
    for name in HIDDEN:
        widen(model, name, 2, init=init, probe=probe)
        probe = Probe(model, inputs, torch.zeros(16, dtype=torch.int64), cross_entropy)
    assert model(inputs).isfinite().all() and model.config()["widths"] == [[5, 6], [7, 6]]


@pytest.mark.parametrize("name", HIDDEN)
def test_pruning_equals_not_reading_the_units(name):
    model = speednet(torch.float64).eval()
    silent, inputs = copy.deepcopy(model), inputs_for(model)
    (reader,) = next(hidden.consumers for hidden in silent.hidden if hidden.name == name)
    with torch.no_grad():
        reader.weight[:, [0, 2]] = 0
    prune(model, name, [0, 2])
    torch.testing.assert_close(model(inputs), silent(inputs), rtol=1e-12, atol=1e-12)


def test_growable_discovers_what_it_lists_and_the_stem():
    model = speednet()
    twin = growable(copy.deepcopy(model), inputs_for(model))
    assert shared(twin, twin._hidden)[1:] == shared(model, model.hidden)


def shared(model, hidden):
    """For every width, the names of the layers that make it, normalise it and read it."""
    names = {module: name for name, module in model.named_modules()}
    return [tuple({names[m] for m in role} for role in (h.producers, h.norms, h.consumers)) for h in hidden]


def test_its_widths_name_the_layers_that_sparsify_takes():
    model = speednet()
    sparsify(model, 0.5, layers=[hidden.name for hidden in model.hidden])
    weights = [model.get_submodule(name).weight.numel() for name in HIDDEN]
    assert sum(int(model.get_submodule(name).mask.sum()) for name in HIDDEN) == round(0.5 * sum(weights))


def test_a_saved_one_goes_on_as_if_it_had_not_stopped(tmp_path):
    shapes = load("shapes", n=200)
    torch.manual_seed(0)
    model = SpeedNet((3, 32, 32), [4, 4], 10)
    trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), device="cpu")
    trainer.fit(shapes, epochs=1)
    for name in ("block1.conv2", "block2.conv2"):
        trainer.change(widen, name, 3)
    trainer.save(tmp_path / "run.pt")
    loaded = Trainer.load(tmp_path / "run.pt", device="cpu")
    assert loaded.model.config() == model.config() and not loaded.model.stem.weight.requires_grad
    assert trainer.fit(shapes, epochs=1).losses == loaded.fit(shapes, epochs=1).losses
    assert load_model(tmp_path / "run.pt").config() == model.config()
