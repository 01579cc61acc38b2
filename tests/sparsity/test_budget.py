"""The budget: counts are exact whatever the density, the allocation, the scores and the scope."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import convnet, inputs_for, mlp, resnet, train
from torch import nn

from growlib import (
    MLP,
    Probe,
    at_random,
    connections,
    costs,
    deepen,
    erk,
    gradient_importance,
    growable,
    largest_gradient,
    prune,
    ranked,
    rewire,
    smallest_magnitude,
    sparse_layers,
    sparsify,
    uniform,
    widen,
)
from growlib.sparsity.budget import move, moves

MAKERS = [mlp, convnet, resnet]
LABELS = torch.arange(16) % 4


def able(model):
    return {name: m for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(MAKERS), st.floats(0.2, 1.0), st.sampled_from([uniform, erk, ranked]), st.integers(0, 99))
def test_the_number_of_connections_is_exact(make, density, allocation, seed):
    torch.manual_seed(seed)
    model = make()
    size = sum(layer.weight.numel() for layer in able(model).values())
    wanted = round(density * size)
    sparsify(model, density, allocation)
    assert connections(model) == wanted
    assert sum(int(layer.weight.count_nonzero()) for layer in able(model).values()) == wanted
    dense = sum(p.numel() for p in model.parameters()) - size
    assert costs.parameters(model) == wanted + dense
    assert not any(hasattr(m, "mask") for m in model.modules() if not isinstance(m, (nn.Linear, nn.Conv2d)))


def test_erk_is_the_formula_of_the_paper():
    """By bisection of the factor that all layers share, each density cut at 1."""
    shapes = [(300, 784), (100, 300), (10, 100), (16, 8, 3, 3)]
    worths = {str(number): torch.rand(shape) for number, shape in enumerate(shapes)}
    size = sum(worth.numel() for worth in worths.values())
    for density in (0.02, 0.1, 0.5):
        low, high = 0.0, 1e6
        for _ in range(200):
            factor = (low + high) / 2
            wanted = [min(1.0, factor * sum(w.shape) / w.numel()) * w.numel() for w in worths.values()]
            low, high = (factor, high) if sum(wanted) < density * size else (low, factor)
        found = erk(worths, round(density * size))
        assert all(abs(a - b) < 2 for a, b in zip(found.values(), wanted, strict=True))
    assert uniform(worths, 100_000)["0"] == pytest.approx(100_000 * 235_200 / size, abs=1)


def test_ranked_keeps_the_largest_of_all_layers_together():
    model = mlp()
    weights = torch.cat([layer.weight.detach().abs().flatten() for layer in able(model).values()])
    limit = weights.sort(descending=True).values[round(0.3 * len(weights)) - 1]
    sparsify(model, 0.3, ranked, score=smallest_magnitude)
    for layer in sparse_layers(model).values():
        assert (layer.weight[layer.mask].abs() >= limit).all()
    assert connections(model) == round(0.3 * len(weights))


def test_the_score_chooses_and_sparse_layers_only_lose():
    torch.manual_seed(0)
    model = mlp()
    probe = Probe(model, inputs_for(model), LABELS)
    worth = gradient_importance(model.hidden1, probe)
    sparsify(model, 0.5, score=gradient_importance, probe=probe)
    layer = model.hidden1
    assert worth[layer.mask].min() >= worth[~layer.mask].max()
    before = layer.mask.clone()
    sparsify(model, 0.2, score=at_random)
    assert connections(model) == round(0.2 * sum(m.weight.numel() for m in able(model).values()))
    assert not (layer.mask & ~before).any()
    with pytest.raises(ValueError, match=rf"density=0.4 of 139 weights is 56 .* only {connections(model)} are left"):
        sparsify(model, 0.4)


def test_chosen_layers_only():
    model = sparsify(convnet(), 0.25, layers=["conv2", "hidden1"])
    assert sparse_layers(model).keys() == {"conv2", "hidden1"}
    assert connections(model) == round(0.25 * (model.conv2.weight.numel() + model.hidden1.weight.numel()))
    assert not hasattr(model.conv1, "mask") and not hasattr(model.output, "mask")


def test_an_optimizer_that_is_in_use_forgets_what_goes():
    for given_to_it in (True, False):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        train(model, optimizer, 3)
        sparsify(model, 0.3, optimizer=optimizer if given_to_it else None)
        train(model, optimizer, 1)
        outside = [layer.weight[~layer.mask].any() for layer in sparse_layers(model).values()]
        assert any(outside) != given_to_it  # without it old momentum goes on


BAD = [
    ({"density": 0}, "density=0 must be above 0 and at most 1"),
    ({"density": 1.2}, "density=1.2 must be above 0"),
    ({"density": 0.001}, "leaves nothing of layer"),
    ({"density": 0.5, "layers": ["hidden9"]}, "no layer 'hidden9' to sparsify: .* are 'hidden1', 'hidden2', 'output'"),
    ({"density": 0.5, "score": lambda layer, probe: layer.weight[0]}, "weight-shaped"),
    ({"density": 0.5, "score": lambda layer, probe: layer.weight / 0 * 0}, "gave NaN"),
]


@pytest.mark.parametrize("settings, message", BAD)
def test_what_cannot_be_is_refused_and_nothing_changes(settings, message):
    model = mlp()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        sparsify(model, **settings)
    assert model.state_dict().keys() == before.keys() and not sparse_layers(model)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_tied_weights_are_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    with pytest.raises(ValueError, match=r"its weight is tied, 0.weight = 2.weight"):
        sparsify(model, 0.5)


# ------------------------------------------------------------------------------------------------------- rewiring


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(MAKERS),
    st.floats(0.2, 0.9),
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
    st.sampled_from([smallest_magnitude, at_random, gradient_importance]),
    st.sampled_from([largest_gradient, at_random, smallest_magnitude]),
    st.sampled_from(["layer", "global"]),
    st.integers(0, 99),
)
def test_no_rewiring_changes_the_budget(make, density, fractions, drop, regrow, scope, seed):
    torch.manual_seed(seed)
    model = sparsify(make(), density, erk)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    counts = {name: int(layer.mask.sum()) for name, layer in sparse_layers(model).items()}
    for fraction in fractions:
        train(model, optimizer, 2, seed)
        probe = Probe(model, inputs_for(model), LABELS)
        masks = {name: layer.mask.clone() for name, layer in sparse_layers(model).items()}
        found = rewire(model, drop, regrow, fraction, probe, optimizer, scope)
        assert connections(model) == sum(counts.values())
        for name, layer in sparse_layers(model).items():
            gone, come = found[name]
            assert masks[name].view(-1)[gone].all() and not masks[name].view(-1)[come].any()
            assert not layer.weight[~layer.mask].any() and not layer.weight.view(-1)[come].any()
            assert layer.mask.any()  # no layer is ever cut off
            if scope == "layer":
                assert len(gone) == len(come) == min(int(fraction * counts[name]), masks[name].numel() - counts[name])
    if scope == "layer":
        assert {name: int(layer.mask.sum()) for name, layer in sparse_layers(model).items()} == counts


def test_a_count_that_drifts_is_noticed():
    """The negative control of the budget."""
    model = sparsify(mlp(), 0.5)
    gone, _ = moves({"hidden1": model.hidden1}, smallest_magnitude, at_random, 0.5)["hidden1"]
    with pytest.raises(RuntimeError, match=r"rewiring made 2\d connections out of 42"):
        move(model, {"hidden1": (gone, gone[:0])})


def test_the_lowest_go_and_the_highest_come():
    torch.manual_seed(0)
    model = sparsify(mlp(), 0.5)
    probe = Probe(model, inputs_for(model), LABELS)
    layer, mask = model.hidden1, model.hidden1.mask.clone()
    size, slope = layer.weight.detach().abs(), largest_gradient(layer, probe)
    gone, come = rewire(model, smallest_magnitude, largest_gradient, 0.25, probe)["hidden1"]
    stayed = layer.mask & mask
    assert size.view(-1)[gone].max() <= size[stayed].min()
    assert slope.view(-1)[come].min() >= slope[~mask & ~layer.mask].max()


def test_global_scope_moves_connections_between_layers():
    torch.manual_seed(0)
    model = sparsify(mlp(), 0.4)
    before = {name: int(layer.mask.sum()) for name, layer in sparse_layers(model).items()}

    def by_size(layer, probe):
        return torch.full_like(layer.weight, layer.weight.numel())

    rewire(model, by_size, by_size, 0.5, scope="global")
    after = {name: int(layer.mask.sum()) for name, layer in sparse_layers(model).items()}
    assert sum(after.values()) == sum(before.values()) and after != before
    rewire(model, by_size, by_size, 1.0, scope="global")
    assert all(layer.mask.any() for layer in sparse_layers(model).values())


def test_a_score_with_its_own_count_decides_how_many():
    model = sparsify(mlp(), 0.5)

    def negative(layer, probe):
        return layer.weight

    negative.count = lambda worths: int((worths < 0).sum())
    with torch.no_grad():
        model.output.weight.abs_()
    expected = int((model.hidden1.weight < 0).sum())
    found = rewire(model, negative, at_random, 0.01)
    assert len(found["hidden1"][0]) == expected and len(found["output"][0]) == 0


@pytest.mark.parametrize("fraction", [1.5, -0.1])
def test_a_fraction_that_cannot_be_is_refused(fraction):
    with pytest.raises(ValueError, match=rf"cannot drop {fraction} of 42 connections"):
        rewire(sparsify(mlp(), 0.5), smallest_magnitude, at_random, fraction)


def test_a_dense_model_is_refused():
    with pytest.raises(ValueError, match=r"call sparsify\(model, density\) first"):
        rewire(mlp(), smallest_magnitude, at_random, 0.1)


# --------------------------------------------------------------------------------------------------- growth and it


@pytest.mark.parametrize("deed", [widen, prune, deepen])
def test_what_would_break_the_budget_is_refused(deed):
    model = sparsify(mlp(), 0.5)
    arguments = {widen: ("hidden1", 2), prune: ("hidden1", [0]), deepen: ("hidden1",)}[deed]
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=f"cannot {deed.__name__} .*sparse.* Call {deed.__name__} before sparsify"):
        deed(model, *arguments)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_dense_layers_of_a_partly_sparse_model_can_still_grow():
    model = sparsify(MLP(12, [7, 5, 6], 4), 0.5, layers=["hidden1"])
    widen(model, "hidden3", 2)
    assert [hidden.width for hidden in model.hidden] == [7, 5, 8]


def test_any_growable_model_can_be_rewired():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(12, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 4))
    model = sparsify(growable(plain, torch.randn(2, 12)), 0.25)
    assert sparse_layers(model).keys() == {"0", "3"} and connections(model) == 32
    rewire(model, smallest_magnitude, largest_gradient, 0.3, Probe(model, torch.randn(16, 12), LABELS))
    assert connections(model) == 32
