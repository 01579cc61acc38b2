"""Every kind of layer with a weight can be sparse, or says why not; what stays dense is named."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.prune import random_unstructured

from growlib import (
    Probe,
    Rewire,
    Trainer,
    at_random,
    budget_report,
    connections,
    costs,
    degrees,
    every,
    gradient_importance,
    largest_gradient,
    load,
    rewire,
    smallest_magnitude,
    sparse_layers,
    sparsify,
)
from growlib.scores import attention, hebbian, sign_flip, stdp, topological, weight_gradient
from growlib.sparsity.masked import describe_sparse, match_sparse

KINDS = {
    "linear": (lambda: nn.Linear(6, 4), (6,)),
    "sequence": (lambda: nn.Conv1d(4, 6, 3, padding=1, groups=2), (4, 5)),
    "circular": (lambda: nn.Conv1d(3, 4, 3, padding=1, padding_mode="circular"), (3, 5)),
    "image": (lambda: nn.Conv2d(3, 4, 3), (3, 5, 4)),
    "volume": (lambda: nn.Conv3d(2, 4, 2, stride=2), (2, 4, 4, 4)),
    "sequence, transposed": (lambda: nn.ConvTranspose1d(3, 4, 3, stride=2, output_padding=1), (3, 5)),
    "image, transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False), (4, 3, 4)),
    "volume, transposed": (lambda: nn.ConvTranspose3d(2, 4, 2, dilation=2), (2, 3, 3, 3)),
    "tokens": (lambda: nn.Embedding(9, 4), (7,)),
}


class One(nn.Module):
    """A layer between nothing and a head."""

    def __init__(self, layer, shape):
        super().__init__()
        self.layer, self.shape = layer, shape
        self.head = nn.LazyLinear(3)

    def forward(self, inputs):
        return self.head(self.layer(inputs).tanh().flatten(1))


def build(kind, dtype=torch.float64):
    torch.manual_seed(0)
    make, shape = KINDS[kind]
    model = One(make(), shape)
    inputs = torch.randint(1, 9, (11, *shape)) if kind == "tokens" else torch.randn(11, *shape, dtype=dtype)
    model.to(dtype)(inputs)
    return model, inputs, torch.arange(11) % 3


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_computes_what_a_dense_layer_with_zeros_does(kind):
    model, inputs, labels = build(kind)
    dense, size = copy.deepcopy(model), model.layer.weight.numel()
    sparsify(model, 0.5, layers=["layer"])
    layer = model.layer
    assert connections(model) == round(0.5 * size) == int(layer.weight.count_nonzero())
    with torch.no_grad():
        dense.layer.weight.mul_(layer.mask)
    for one in (model, dense):
        cross_entropy(one(inputs), labels).backward()
    assert torch.equal(model(inputs), dense(inputs))
    torch.testing.assert_close(layer.weight.grad, dense.layer.weight.grad * layer.mask)
    assert not layer.weight.grad[~layer.mask].any() and dense.layer.weight.grad[~layer.mask].any()
    outputs, reads = degrees(layer)
    assert outputs.sum() == reads.sum() == connections(model)
    assert len(outputs) == getattr(layer, "out_channels", len(outputs))
    assert budget_report(model).loc["layer", "connections"] == connections(model)


@pytest.mark.parametrize("drop", [smallest_magnitude, sign_flip, at_random, gradient_importance, hebbian, stdp])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_rewired_by_every_score_that_can(kind, drop):
    model, inputs, labels = build(kind)
    sparsify(model, 0.5, layers=["layer"])
    before, mask = connections(model), model.layer.mask.clone()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01, weight_decay=0.1)
    if drop is sign_flip:
        sign_flip.begin(model.layer)
        with torch.no_grad():
            model.layer.weight.mul_(torch.where(torch.rand_like(model.layer.weight) < 0.3, -1, 1))
    probe = Probe(model, inputs, labels)
    if drop is stdp and kind == "tokens":
        with pytest.raises(ValueError, match="an Embedding reads the numbers of tokens"):
            rewire(model, drop, largest_gradient, 0.3, probe)
        return
    found = rewire(model, drop, largest_gradient, 0.3, probe, optimizer)
    assert len(found["layer"][0]) > 0 and connections(model) == before and not torch.equal(model.layer.mask, mask)
    for _ in range(3):
        optimizer.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    assert not model.layer.weight[~model.layer.mask].any() and model.layer.weight[model.layer.mask].any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_absent_connections_is_that_of_the_dense_layer(kind):
    model, inputs, labels = build(kind)
    sparsify(model, 0.5, layers=["layer"])
    dense, _, _ = build(kind)
    dense.load_state_dict(model.state_dict(), strict=False)
    cross_entropy(dense(inputs), labels).backward()
    found = weight_gradient(model.layer, Probe(model, inputs, labels))
    torch.testing.assert_close(found, dense.layer.weight.grad)
    assert found[~model.layer.mask].any()


def test_scores_that_cannot_say_why():
    model, inputs, labels = build("sequence, transposed")
    sparsify(model, 0.5, layers=["layer"])
    with pytest.raises(ValueError, match="topological reads the wiring of a sparse linear layer"):
        topological(model.layer, None)
    with pytest.raises(ValueError, match="attention scores query, key, value and project"):
        attention(model.layer, Probe(model, inputs, labels))


@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_every_kind_come_back_from_the_state(kind):
    model, inputs, _ = build(kind)
    sparsify(model, 0.5, layers=["layer"])
    other, _, _ = build(kind)
    match_sparse(other, describe_sparse(model), model.state_dict())
    other.load_state_dict(model.state_dict())
    assert type(other.layer) is type(model.layer) and torch.equal(other(inputs), model(inputs))


# --------------------------------------------------------------------------------------------------- what is dense


class Mixed(nn.Module):
    """Attention, a convolution over a sequence, an embedding, a recurrent layer, and two linear layers."""

    def __init__(self):
        super().__init__()
        self.tokens, self.conv, self.attend = nn.Embedding(10, 8), nn.Conv1d(8, 8, 3, padding=1), self.attention()
        self.walk, self.norm = nn.GRU(8, 8, batch_first=True), nn.LayerNorm(8)
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 3)

    def attention(self):
        return nn.MultiheadAttention(8, 2, batch_first=True)


def test_what_is_left_dense_is_listed_with_its_sizes_and_the_density_of_the_whole():
    model = Mixed()
    with pytest.warns(UserWarning) as caught:
        sparsify(model, 0.1)
    (said,) = [str(one.message) for one in caught]
    assert caught[0].filename == __file__
    listed = {name: p for name, p in model.named_parameters() if p.ndim > 1 and not name.startswith(("first", "last"))}
    assert len(listed) == 6
    for name, parameter in listed.items():
        assert f"{name} ({parameter.numel():,})" in said
    there, size = costs.parameters(model), sum(p.numel() for p in model.parameters())
    assert f"a density of {there / size:.3g} for the whole model" in said and there / size > 0.8
    assert "layers= beside the others: 'tokens', 'conv'." in said
    assert "growlib.layers.Attention" in said and "GRU hands its weights to one kernel" in said
    assert sparse_layers(model).keys() == {"first", "last"}


def test_nothing_is_said_where_nothing_is_left_or_the_layers_were_named():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sparsify(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 4)), 0.5)
        sparsify(Mixed(), 0.5, layers=["conv"])


class Plain(nn.Linear):
    """Something else than a linear layer."""


REFUSED = {
    "attend": (lambda: nn.MultiheadAttention(8, 2), "use growlib.layers.Attention, which is made of four"),
    "attend.out_proj": (lambda: nn.ModuleDict({"out_proj": nn.Linear(2, 2)}), None),
    "walk": (lambda: nn.LSTM(8, 8), "LSTM hands its weights to one kernel"),
    "norm": (lambda: nn.LayerNorm(8), "LayerNorm can't be masked: it is none of Linear, Conv1d"),
    "odd": (lambda: Plain(8, 8), "Plain can't be masked"),
    "normed": (lambda: nn.utils.weight_norm(nn.Linear(8, 8)), "computed from others"),
    "pruned": (lambda: random_unstructured(nn.Linear(8, 8), "weight", 0.5), "computed from others"),
    "bounded": (lambda: nn.Embedding(8, 8, max_norm=1.0), "sparse=True or max_norm"),
    "nowhere": (lambda: nn.Identity(), "the model has no such layer"),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_sparse_says_why(name):
    make, message = REFUSED[name]
    model = nn.ModuleDict({name.partition(".")[0]: make(), "linear": nn.Linear(8, 8)})
    wanted = "missing" if name == "nowhere" else name
    if message is None:  # the negative control: outside of MultiheadAttention it is a layer like others
        assert sparse_layers(sparsify(model, 0.5, layers=[wanted])).keys() == {wanted}
        return
    with pytest.raises(ValueError, match=f"no layer '{wanted}' to sparsify: .*{message}.* are .*'linear'"):
        sparsify(model, 0.5, layers=[wanted])
    assert not sparse_layers(model)


def test_a_projection_of_attention_is_refused_by_its_own_name():
    model = Mixed()
    with pytest.raises(ValueError, match="no layer 'attend.out_proj' to sparsify: .*growlib.layers.Attention"):
        sparsify(model, 0.5, layers=["attend.out_proj"])


# ---------------------------------------------------------------------------------------------------- channels_last


@pytest.mark.parametrize("drop", [smallest_magnitude, sign_flip])
def test_channels_last_is_kept_and_changes_nothing(drop):
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(4 * 16, 3))
        model = model.double().to(memory_format=layout)
        sparsify(model, 0.4, score=smallest_magnitude)
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        inputs = torch.randn(6, 3, 8, 8, dtype=torch.float64).to(memory_format=layout)
        for _ in range(3):
            optimizer.zero_grad()
            cross_entropy(model(inputs), torch.arange(6) % 3).backward()
            optimizer.step()
            if drop is sign_flip:
                [sign_flip.begin(layer) for layer in sparse_layers(model).values()]
            rewire(model, drop, smallest_magnitude, 0.3, None, optimizer)
        found.append(model)
        for layer in (model[0], model[2]):
            tensors = layer.weight, layer.mask, layer.kept, optimizer.state[layer.weight]["exp_avg"]
            assert all(tensor.is_contiguous(memory_format=layout) for tensor in tensors)
    for layer, other in zip(*(sparse_layers(model).values() for model in found), strict=True):
        assert torch.equal(layer.mask, other.mask)
        torch.testing.assert_close(layer.weight, other.weight)


def test_the_trainer_rewires_a_sequence(tmp_path):
    def sequence():
        torch.manual_seed(0)
        layers = nn.Conv1d(8, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 10)
        return nn.Sequential(nn.Flatten(), nn.Unflatten(1, (8, 8)), *layers)

    model = sparsify(sequence(), 0.3, layers=["2", "5"])
    before = connections(model)
    grow = Rewire(smallest_magnitude, largest_gradient, every(5, "steps"))
    trainer = Trainer(model, torch.optim.Adam(model.parameters(), 0.01), [grow], device="cpu")
    history = trainer.fit(load("digits"), epochs=2)
    assert connections(model) == before and history.records[-1]["connections"].keys() == {"2", "5"}
    trainer.save(tmp_path / "run.pt")
    loaded = Trainer.load(tmp_path / "run.pt", sequence(), [grow], device="cpu")
    assert torch.equal(loaded.model[2].mask, model[2].mask)
