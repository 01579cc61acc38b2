"""growable on the graph of torch.export: what it finds, what it refuses and why, and that a wrong finding is caught."""

import copy
import pickle
import re

import pytest
import torch
from found import CASES, FOUND, IMAGES, ROWS, Beside, Tokens, images, two
from networks import relative, shaken
from torch import nn
from torch.nn.functional import relu

from growlib.growth import growable, prune, widen
from growlib.growth.units import follow, numbers, proof, search
from growlib.inits import orthogonal, random, split, zero_out
from growlib.layers import hidden_of


@pytest.mark.parametrize("name", CASES)
def test_what_is_found_grows_exactly(name):
    torch.manual_seed(0)
    build, shape, expected = CASES[name]
    model, example = shaken(build()).double(), torch.randn(shape, dtype=torch.float64)
    growable(model, example)
    assert {hidden.name: hidden.unit for hidden in hidden_of(model)} == expected, model.refused
    _grows_exactly(model, example)


@pytest.mark.parametrize("build", FOUND)
def test_what_the_old_discovery_found_is_found(build):
    torch.manual_seed(0)
    shape, names = FOUND[build]
    model, example = shaken(build()).double(), torch.randn(shape, dtype=torch.float64)
    growable(model, example)
    assert names.items() <= {hidden.name: hidden.unit for hidden in hidden_of(model)}.items()
    _grows_exactly(model, example)


@torch.no_grad()
def _grows_exactly(model, example):
    before, state = model.eval()(example), copy.deepcopy(model.state_dict())
    for hidden in hidden_of(model):
        for init in (zero_out, split, orthogonal):
            widen(model, hidden, 2 * hidden.unit, init)
            assert relative(model(example), before) <= 1e-10
    assert model.train()(example).isfinite().all()
    for hidden in hidden_of(model) if all(hidden.style == "plain" for hidden in hidden_of(model)) else ():
        fresh = list(range(hidden.width - 6 * hidden.unit, hidden.width))
        prune(model, hidden, fresh)
    if all(hidden.style == "plain" for hidden in hidden_of(model)):
        assert {name: value.shape for name, value in model.state_dict().items()} == {
            n: v.shape for n, v in state.items()
        }


def test_a_random_start_moves_the_outputs():
    """The negative control of the law above."""
    torch.manual_seed(0)
    model, example = CASES["glu"][0](), torch.randn(ROWS)
    growable(model, example)
    before = model(example)
    widen(model, hidden_of(model)[0], 4, random)
    assert relative(model(example), before) > 1e-3


def test_token_ids_keyword_inputs_and_tied_weights():
    torch.manual_seed(0)
    model, ids = Tokens().double(), torch.randint(0, 11, (2, 7))
    growable(model, ids, scale=torch.tensor(2.0, dtype=torch.float64))
    assert {hidden.name: hidden.style for hidden in hidden_of(model)} == {"embed": "averaged", "up": "plain"}
    before = model(ids)["logits"]
    for hidden in hidden_of(model):
        widen(model, hidden, 3)
        assert relative(model(ids)["logits"], before) <= 1e-10
    assert model.head.weight is model.embed.weight and model.norm.normalized_shape == (11,)


MOVES = {
    "a root of the width": (lambda s, h: relu(h) / h.size(1) ** 0.5, "the number 4.0 in 'div' .* becomes 4.12"),
    "a number in the code": (lambda s, h: h.view(-1, 16), "keeps a number of its own"),
    "the mean": (lambda s, h: h - h.mean(1, keepdim=True), "new units move what 'linear' in 'read'"),
    "softmax": (lambda s, h: h.softmax(1), "go through 'softmax' .* which mixes them"),
    "a sum": (lambda s, h: h.cumsum(1), "'cumsum'"),
    "a number of examples": (lambda s, h: h.view(2, 16), "'view' .* keeps a number of its own"),
    "a branch on the number of examples": (lambda s, h: h if h.shape[0] < 3 else h.cumsum(1), "'cumsum' .* mixes them"),
    "no rule": (lambda s, h: torch.fft.fft(h).real, "'fft_fft' .* which is not followed"),
}


@pytest.mark.parametrize("name", MOVES)
def test_what_would_move_is_refused_with_operator_module_and_line(name):
    between, reason = MOVES[name]
    model = growable(two(between), torch.randn(4, 5))
    assert hidden_of(model) == []
    assert re.search(reason, model.refused["make"]), model.refused


def test_the_transpose_of_a_matrix_is_followed():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.make, self.mix, self.read = nn.Linear(5, 6), nn.Linear(4, 4), nn.Linear(6, 3)

        def forward(self, inputs):
            return self.read(self.mix(self.make(inputs).mT).mT)

    model, example = Mixed(), torch.randn(2, 4, 5)
    growable(model, example)
    assert [hidden.name for hidden in hidden_of(model)] == ["make"]
    assert model.refused["mix"] == "they are the model's output"


def test_data_in_forward_is_one_clear_error():
    model = two(lambda s, h: relu(h.data))
    with pytest.raises(ValueError, match=r"torch.export cannot take Two in eval mode.*`.data`.*Nothing was changed"):
        growable(model, torch.randn(4, 5))
    assert not hasattr(model, "refused")


@pytest.mark.parametrize("name", ["heads", "subclass"])
def test_nothing_changes(name):
    torch.manual_seed(0)
    model, example = CASES[name][0](), torch.randn(CASES[name][1])
    parameters, state = list(model.parameters()), copy.deepcopy(model.state_dict())
    kept = {name: vars(module).copy() for name, module in model.named_modules()}
    random_state = torch.get_rng_state()
    growable(model.train(), example)
    assert all(mine is theirs for mine, theirs in zip(model.parameters(), parameters, strict=True))
    assert torch.equal(torch.get_rng_state(), random_state)
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    for name, module in model.named_modules():
        assert {k: v for k, v in vars(module).items() if k in kept[name] and not k.startswith("_")} == {
            k: v for k, v in kept[name].items() if not k.startswith("_")
        }


def test_zero_gammas_and_tiny_layer_scales_hide_nothing(monkeypatch):
    """A wrong rule behind a scale of zero: the proof looks behind it."""

    def build():
        model = images(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Softmax(1), nn.Conv2d(6, 6, 1))
        nn.init.zeros_(model[1].weight)
        return model

    assert "'softmax'" in growable(build(), torch.randn(IMAGES)).refused["0"]
    monkeypatch.setitem(follow.RULES, "softmax", follow.RULES["pointwise"])
    assert "new units move what 'softmax'" in growable(build(), torch.randn(IMAGES)).refused["0"]


def test_branches_in_the_wrong_order_are_caught(monkeypatch):
    whole = follow.RULES["cat"]

    def swapped(call):
        found = whole(call)
        root = found[1].root
        root.parts = (*root.parts[1::-1], *root.parts[2:]) if root.kind == "sum" else ()
        return found

    monkeypatch.setitem(follow.RULES, "cat", swapped)
    model = growable(shaken(Beside()), torch.randn(FOUND[Beside][0]))
    assert hidden_of(model) == []


def test_a_search_that_would_not_end_is_given_up_with_the_reason(monkeypatch):
    monkeypatch.setattr(search, "MOST", 1)
    model = growable(two(MOVES["the mean"][0]), torch.randn(4, 5))
    assert model.hidden == [] and model.refused["make"]
    monkeypatch.setattr(search.Search, "_compared", lambda self, grown: [proof.Problem((), "no end")])
    model = growable(two(lambda s, h: h), torch.randn(4, 5))
    assert model.hidden == [] and model.refused["make"] == "after 1 trials something still fails: no end"


def test_the_numbers_are_needed(monkeypatch):
    """Without the second half of the proof a mean over units passes for a norm."""
    monkeypatch.setattr(numbers.Side, "compare", lambda self, view, grown: [])
    assert growable(two(MOVES["the mean"][0]), torch.randn(4, 5)).hidden


def test_it_can_be_called_again_after_a_head_was_replaced():
    model, example = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)), torch.randn(2, 5)
    growable(model, example)
    model[2] = nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 2))
    growable(model, example)
    assert [hidden.name for hidden in hidden_of(model)] == ["0", "2.0"]


def test_copies_and_pickles_grow_by_themselves():
    model, example = CASES["prelu"][0](), torch.randn(IMAGES)
    growable(model, example)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        widen(twin, hidden_of(twin)[0], 2)
        assert (hidden_of(model)[0].width, hidden_of(twin)[0].width) == (6, 8)
        torch.testing.assert_close(twin(example), model(example))
