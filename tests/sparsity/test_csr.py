"""CsrLinear against dense layers and masked ones; faster."""

import copy
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import nn
from torch.autograd.gradcheck import GradcheckError
from torch.nn.functional import cross_entropy, linear

from growlib import (
    Rewire,
    Trainer,
    budget_report,
    connections,
    costs,
    every,
    largest_gradient,
    load,
    ranked,
    rewire,
    smallest_magnitude,
    sparse_layers,
    sparsify,
    widen,
)
from growlib.layers import GrowLinear
from growlib.models import MLP, ConvNet
from growlib.signals import Probe
from growlib.sparsity import CsrLinear, SparseLinear
from growlib.sparsity.csr import faster
from growlib.trainer.checkpoint import describe, load_weights

OPTIMIZERS = {
    "momentum": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, weight_decay=0.01),
    "adam": lambda parameters: torch.optim.Adam(parameters, 0.01),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.01, weight_decay=0.1),
}


def random_mask(outputs, inputs, density=0.4, seed=0):
    """At least one connection, at random places."""
    draw = torch.rand(outputs, inputs, generator=torch.Generator().manual_seed(seed))
    return draw <= max(density, draw.min())


def pair(inputs=7, outputs=5, density=0.4, bias=True, dtype=torch.float64, seed=0):
    """The same layer as CSR and masked."""
    torch.manual_seed(seed)
    csr, mask = GrowLinear(inputs, outputs, bias=bias).to(dtype), random_mask(outputs, inputs, density, seed)
    masked = copy.deepcopy(csr)
    masked.__class__ = SparseLinear
    masked.register_buffer("mask", torch.ones_like(mask))
    masked.wire(mask)
    return CsrLinear.of(csr, mask), masked


def pair_of_models(dtype=torch.float64, density=0.3):
    """784-like networks in small, whose layers are all CSR or all masked."""
    torch.manual_seed(0)
    csr = MLP(12, [9, 8], 4).to(dtype)
    masked = copy.deepcopy(csr)
    for seed, (mine, theirs) in enumerate(zip(csr.children(), masked.children(), strict=True)):
        mask = random_mask(*mine.weight.shape, density, seed)
        CsrLinear.of(mine, mask)
        theirs.__class__ = SparseLinear
        theirs.register_buffer("mask", torch.ones_like(mask))
        theirs.wire(mask)
    return csr, masked


def step(model, optimizer, seed):
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(16, 12, generator=draw).to(next(model.parameters()))
    loss = cross_entropy(model(inputs), torch.randint(4, (16,), generator=draw))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@settings(deadline=None, max_examples=40)
@given(
    inputs=some.integers(1, 9),
    outputs=some.integers(1, 9),
    density=some.floats(0.0, 1.0),
    bias=some.booleans(),
    shape=some.sampled_from([(), (1,), (4,), (2, 3), (0,), (2, 1, 3)]),
    seed=some.integers(0, 99),
)
def test_outputs_and_all_gradients_are_those_of_a_dense_product(inputs, outputs, density, bias, shape, seed):
    csr, _ = pair(inputs, outputs, density, bias, seed=seed)
    mask, weight = csr.mask, csr.weight.detach().requires_grad_()
    mine = torch.randn(*shape, inputs, dtype=torch.float64).requires_grad_()
    theirs = mine.detach().clone().requires_grad_()
    dense_bias = csr.bias.detach().requires_grad_() if bias else None
    expected = linear(theirs, weight, dense_bias)
    slopes = torch.randn_like(expected)
    expected.backward(slopes)
    found = csr(mine)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected)
    found.backward(slopes)
    torch.testing.assert_close(mine.grad, theirs.grad)
    torch.testing.assert_close(csr.values.grad, weight.grad[mask])
    if bias:
        torch.testing.assert_close(csr.bias.grad, dense_bias.grad)


def test_gradients_are_those_of_finite_differences():
    csr, _ = pair()
    inputs = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)

    def outputs(inputs, values, bias):
        return torch.func.functional_call(csr, {"values": values, "bias": bias}, inputs)

    assert torch.autograd.gradcheck(outputs, (inputs, csr.values, csr.bias))


def test_a_wiring_that_is_not_transposed_is_caught():
    csr, _ = pair(inputs=6, outputs=6)
    inputs = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    csr(inputs)
    csr.rows = csr.rows.flip(0).contiguous()
    with pytest.raises(GradcheckError):
        torch.autograd.gradcheck(csr, inputs)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_as_with_masks(name):
    csr, masked = pair_of_models()
    mine, theirs = OPTIMIZERS[name](csr.parameters()), OPTIMIZERS[name](masked.parameters())
    for number in range(30):
        assert step(csr, mine, number) == pytest.approx(step(masked, theirs, number), rel=1e-9)
    for one, other in zip(csr.children(), masked.children(), strict=True):
        torch.testing.assert_close(one.weight, other.kept)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_connections_move_with_all_that_the_optimizer_knows_of_them(name):
    csr, masked = pair_of_models()
    mine, theirs = OPTIMIZERS[name](csr.parameters()), OPTIMIZERS[name](masked.parameters())
    for number in range(20):
        if number % 5 == 4:
            for one, other in zip(csr.children(), masked.children(), strict=True):
                mask = random_mask(*one.mask.shape, 0.3, 100 + number)
                before = {place: value for place, value in zip(one.places.tolist(), one.values.tolist(), strict=True)}
                memory = {key: dense(one, value) for key, value in mine.state[one.values].items() if value.ndim}
                one.wire(mask, mine)
                other.wire(mask, theirs)
                assert torch.equal(one.mask, mask)
                wanted = [before.get(place, 0.0) for place in one.places.tolist()]
                assert one.values.tolist() == wanted  # exactly
                for key, value in memory.items():
                    assert torch.equal(dense(one, mine.state[one.values][key]), value * mask)
        assert step(csr, mine, number) == pytest.approx(step(masked, theirs, number), rel=1e-9)
    assert not lost_tensors_of(csr, mine)


def dense(layer, values):
    return torch.zeros(layer.mask.numel(), dtype=values.dtype).index_copy(0, layer.places, values).view_as(layer.mask)


def lost_tensors_of(model, optimizer):
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return [name for name, parameter in model.named_parameters() if id(parameter) not in held]


def test_an_optimizer_that_is_not_told_loses_the_connections():
    csr, _ = pair_of_models()
    optimizer = OPTIMIZERS["adam"](csr.parameters())
    csr.hidden1.wire(random_mask(9, 12, 0.3, 77))
    assert lost_tensors_of(csr, optimizer) == ["hidden1.values"]


def test_resuming_is_exact_also_after_the_number_of_connections_has_changed():
    csr, _ = pair_of_models(torch.float32)
    optimizer = OPTIMIZERS["adamw"](csr.parameters())
    for number in range(3):
        step(csr, optimizer, number)
    csr.hidden1.wire(random_mask(9, 12, 0.6, 5), optimizer)
    step(csr, optimizer, 3)
    fresh, _ = pair_of_models(torch.float32)
    fresh.load_state_dict(copy.deepcopy(csr.state_dict()))
    resumed = OPTIMIZERS["adamw"](fresh.parameters())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for number in range(4, 8):
        assert step(fresh, resumed, number) == step(csr, optimizer, number)
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in csr.state_dict().items())


def test_a_state_that_is_no_wiring_is_refused():
    csr, _ = pair()
    state = csr.state_dict()
    for name, wrong in {"columns": state["columns"] + 7, "starts": state["starts"].flip(0)}.items():
        with pytest.raises(RuntimeError, match="indices"):
            csr.load_state_dict(state | {name: wrong})
        assert torch.equal(csr.state_dict()[name], state[name])


def test_copies_eval_and_no_grad():
    csr, _ = pair()
    inputs = torch.randn(3, 7, dtype=torch.float64)
    twin = copy.deepcopy(csr)
    outputs = csr(inputs)
    with torch.no_grad():
        csr.values.zero_()
        assert torch.equal(twin.eval()(inputs), outputs)
    assert torch.equal(csr(inputs), csr.bias.expand(3, -1))


def test_activations_that_work_in_place_and_views_may_follow():
    csr, masked = pair()
    inputs = torch.randn(2, 3, 7, dtype=torch.float64)
    torch.testing.assert_close(nn.ReLU(inplace=True)(csr(inputs[0])), masked(inputs[0]).relu())
    nn.ReLU(inplace=True)(csr(inputs[0])).sum().backward()
    assert csr(inputs).view(6, 5).shape == (6, 5) and csr(inputs[0]).view(3, 5).shape == (3, 5)


def test_frozen_values_get_no_gradient_and_inputs_still_do():
    csr, _ = pair()
    csr.values.requires_grad_(False)
    inputs = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    csr(inputs).sum().backward()
    assert csr.values.grad is None and inputs.grad is not None and csr.bias.grad is not None


def test_a_probe_sees_what_it_sees_of_a_masked_layer():
    csr, masked = pair_of_models()
    inputs, labels = torch.randn(8, 12, dtype=torch.float64), torch.arange(8) % 4
    for name in ("hidden1", "output"):
        seen = [
            [getattr(Probe(model, inputs, labels), what)(getattr(model, name)) for model in (csr, masked)]
            for what in ("inputs_of", "gradient_of", "input_gradient")
        ]
        for mine, theirs in seen:
            torch.testing.assert_close(mine, theirs)


def test_memory_shrinks_with_the_connections():
    torch.manual_seed(0)
    bills = {}
    for kind in ("dense", "csr"):
        model = MLP(64, [256, 128], 10)
        layers = list(model.children()) if kind == "csr" else []
        for layer in layers:
            CsrLinear.of(layer, random_mask(*layer.weight.shape, 0.05))
        optimizer = torch.optim.Adam(model.parameters())
        cross_entropy(model(torch.randn(32, 64)), torch.arange(32) % 10).backward()
        optimizer.step()
        bills[kind] = costs.memory(model, optimizer, batch_size=32)
        held = sum(p.nbytes + p.grad.nbytes for p in model.parameters())
        assert bills[kind]["parameters"] + bills[kind]["gradients"] == held
    numbers = sum(len(layer.values) + len(layer.bias) for layer in layers)
    assert costs.parameters(model) == numbers
    assert bills["csr"]["parameters"] == bills["csr"]["gradients"] == 4 * numbers
    assert bills["csr"]["optimizer"] == 2 * 4 * numbers + 6 * 4  # and six counts of steps
    first, *others = [len(layer.values) for layer in layers]
    starts = (256 + 128 + 10 + 3) + (256 + 128 + 2)  # of the rows, and of the columns of all but the first layer
    assert bills["csr"]["buffers"] == 4 * first + 12 * sum(others) + 4 * starts
    assert bills["csr"]["activations"] == bills["dense"]["activations"]
    assert bills["dense"]["parameters"] > 16 * bills["csr"]["parameters"]


def test_flops_are_those_of_the_connections():
    csr, masked = pair_of_models(torch.float32)
    counts = [len(layer.values) for layer in csr.children()]
    assert costs.flops(csr) == 2 * sum(counts)
    assert costs.training_flops(csr) == 2 * (3 * sum(counts) - counts[0])  # the first needs no gradient of its inputs
    assert costs.flops(masked) == 2 * (12 * 9 + 9 * 8 + 8 * 4)
    assert costs.parameters(csr) == sum(counts) + 9 + 8 + 4


def test_torchs_own_gradient_of_a_csr_weight_is_dense_and_its_adam_takes_none():
    weights = [pair()[0].weight.detach().to_sparse_csr().requires_grad_() for _ in range(2)]
    inputs = torch.randn(7, 3, dtype=torch.float64)
    linear(inputs.t(), weights[0]).sum().backward()
    assert weights[0].grad.layout == torch.strided and weights[0].grad.shape == (5, 7)
    torch.sparse.mm(weights[1], inputs).sum().backward()  # this one is sparse, but
    with pytest.raises(RuntimeError, match="unsupported tensor layout"):
        torch.optim.Adam(weights[1:]).step()


def test_what_it_cannot_do_it_refuses_with_words():
    csr, _ = pair()
    with pytest.raises(ValueError, match="takes 7 inputs, and got"):
        csr(torch.randn(3, 6, dtype=torch.float64))
    with pytest.raises(TypeError, match="inputs are torch.float32, and the values of this CsrLinear torch.float64"):
        csr(torch.randn(3, 7))
    with pytest.raises(TypeError, match="float32 or float64"):
        copy.deepcopy(csr).half()(torch.randn(3, 7).half())
    with pytest.raises(RuntimeError, match="CPU only, and is on meta"):
        copy.deepcopy(csr).to("meta")(torch.randn(3, 7, device="meta"))


def test_under_autocast_it_computes_in_its_own_precision():
    csr, _ = pair(dtype=torch.float32)
    inputs = torch.randn(3, 7)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = csr(inputs.bfloat16())
    assert outputs.dtype == torch.float32
    assert torch.equal(outputs, csr(inputs.bfloat16().float()))


def test_compiled_models_run_it():
    csr, _ = pair_of_models(torch.float32)
    inputs = torch.randn(3, 12)
    torch.testing.assert_close(torch.compile(csr, backend="eager")(inputs), csr(inputs))


def test_importing_and_running_it_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        csr, _ = pair()
        csr(torch.randn(3, 7, dtype=torch.float64)).sum().backward()


def test_faster_answers_once_and_draws_no_random_number():
    state = torch.get_rng_state()
    faster.cache_clear()
    assert faster(200, 100, 300) in ("csr", "masked")
    faster(200, 100, 300)
    assert faster.cache_info().hits == 1
    assert torch.equal(torch.get_rng_state(), state)


def test_sparsify_stores_linear_layers_and_masks_convolutions():
    torch.manual_seed(0)
    model = sparsify(ConvNet((2, 8, 8), [4], [20], 4), 0.2, backend="csr")
    kinds = {name: type(layer).__name__ for name, layer in sparse_layers(model).items()}
    assert kinds == {"conv1": "SparseConv2d", "hidden1": "CsrLinear", "output": "CsrLinear"}
    weights = sum(layer.mask.numel() for layer in sparse_layers(model).values())
    assert connections(model) == round(0.2 * weights)
    model(torch.randn(3, 2, 8, 8)).sum().backward()
    assert all(parameter.grad.count_nonzero() for parameter in model.parameters())
    report = budget_report(model)
    assert report.loc["hidden1", "connections"] == len(model.hidden1.values) and report.loc["hidden1", "outside"] == 0


def test_both_backends_begin_as_the_same_network_and_can_be_pruned_further():
    models = []
    for backend in ("masked", "csr"):
        torch.manual_seed(3)
        models.append(sparsify(MLP(12, [9, 8], 4), 0.5, backend=backend))
    for density in (0.5, 0.2):
        for model in models:
            sparsify(model, density, ranked, score=smallest_magnitude)
        masked, csr = models
        assert connections(csr) == round(density * (12 * 9 + 9 * 8 + 8 * 4))
        assert all(
            torch.equal(one.mask, other.mask) for one, other in zip(*map(nn.Module.children, models), strict=True)
        )
        inputs = torch.randn(5, 12)
        torch.testing.assert_close(csr(inputs), masked(inputs))
    sparsify(masked, 0.2, score=smallest_magnitude, backend="csr")
    assert isinstance(masked.hidden1, CsrLinear)
    torch.testing.assert_close(csr(inputs), masked(inputs))


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_rewiring_goes_as_with_masks(scope):
    runs = []
    for backend in ("masked", "csr"):
        torch.manual_seed(0)
        model = sparsify(MLP(12, [9, 8], 4).double(), 0.4, backend=backend)
        optimizer = torch.optim.AdamW(model.parameters(), 0.01)
        losses = []
        for number in range(12):
            losses.append(step(model, optimizer, number))
            inputs, labels = torch.randn(16, 12, dtype=torch.float64), torch.arange(16) % 4
            probe = Probe(model, inputs, labels)
            rewire(model, smallest_magnitude, largest_gradient, 0.3, probe, optimizer, scope)
        runs.append((losses, connections(model), [layer.mask for layer in model.children()]))
    (losses, count, masks), (own_losses, own_count, own_masks) = runs
    assert own_losses == pytest.approx(losses, rel=1e-9) and own_count == count == round(0.4 * (12 * 9 + 9 * 8 + 8 * 4))
    assert all(map(torch.equal, masks, own_masks))


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_checkpoint_of_a_csr_model_goes_on_as_if_nothing_had_happened(tmp_path, scope):
    data = load("digits")

    def callbacks():
        return [Rewire(smallest_magnitude, largest_gradient, every(7, "steps"), scope=scope)]

    torch.manual_seed(0)
    model = sparsify(MLP(64, [20, 15], 10), 0.2, backend="csr")
    trainer = Trainer(model, torch.optim.Adam(model.parameters(), 1e-3), callbacks(), device="cpu")
    trainer.fit(data, epochs=1)
    trainer.save(tmp_path / "last.pt")
    trainer.fit(data, epochs=1)
    resumed = Trainer.load(tmp_path / "last.pt", callbacks=callbacks(), device="cpu")
    assert isinstance(resumed.model.hidden1, CsrLinear)
    resumed.fit(data, epochs=1)
    assert resumed.history.losses == trainer.history.losses
    assert connections(resumed.model) == round(0.2 * (64 * 20 + 20 * 15 + 15 * 10))
    masked = sparsify(MLP(64, [20, 15], 10), 0.2)
    with pytest.raises(ValueError, match="masked in the checkpoint, and CSR in the model"):
        load_weights(resumed.model, describe(masked), masked.state_dict())


def test_auto_takes_what_is_faster_here(monkeypatch):
    monkeypatch.setattr("growlib.sparsity.csr.faster", lambda inputs, *sizes: "csr" if inputs > 10 else "masked")
    model = sparsify(MLP(12, [9, 8], 4), 0.5, backend="auto")
    kinds = [type(layer).__name__ for layer in model.children()]
    assert kinds == ["CsrLinear", "SparseLinear", "SparseLinear"]


def test_sparsify_refuses_what_cannot_be_stored_and_changes_nothing():
    model = MLP(12, [9, 8], 4)
    with pytest.raises(ValueError, match="backend='coo' must be one of 'masked', 'csr', 'auto'"):
        sparsify(model, 0.5, backend="coo")
    with pytest.raises(ValueError, match="while an optimizer holds its weight"):
        sparsify(model, 0.5, backend="csr", optimizer=torch.optim.SGD(model.parameters(), 0.1))
    with pytest.raises(ValueError, match="is torch.bfloat16 on cpu, and CSR layers are float32 or float64"):
        sparsify(model.bfloat16(), 0.5, backend="csr")
    assert not sparse_layers(model)
    assert type(sparsify(model, 0.5, backend="auto").hidden1) is SparseLinear
    with pytest.raises(ValueError, match="cannot widen layer 'hidden1'"):
        widen(sparsify(MLP(12, [9, 8], 4), 0.5, backend="csr"), "hidden1", 1)
