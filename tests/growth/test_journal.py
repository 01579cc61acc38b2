"""Every structural change is made wholly or not at all: faults at any line, and everything that outsiders break."""

import copy
import sys

import pytest
import torch
from networks import convnet, inputs_for, mlp, net, resnet, train
from torch import nn
from torch.nn.functional import relu
from torch.nn.utils import prune as masks

from growlib import (
    MLP,
    TaskNet,
    Trainer,
    at_random,
    check_growth,
    deepen,
    growable,
    prune,
    rewire,
    smallest_magnitude,
    sparsify,
    split,
    widen,
)


class Fault(BaseException):  # that nobody takes for one of their own
    """What the hook of these tests raises."""


def lines_of(work, fault_at: int | None = None) -> int:
    """Does some work, counts the lines of growlib that it reaches, and raises a Fault at one of them."""
    count = 0

    def line(frame, event, arg):
        nonlocal count
        count += event == "line"
        if count == fault_at:
            raise Fault(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        return line

    def call(frame, event, arg):
        file = frame.f_code.co_filename
        return line if "/growlib/" in file and not file.endswith("journal.py") else None

    sys.settrace(call)
    try:
        work()
    finally:
        sys.settrace(None)
    return count


def plain(value):
    """A value as one that can be compared and that nothing can change: tensors by identity and by their bits."""
    if torch.is_tensor(value):
        gradient = None if not value.is_leaf or value.grad is None else value.grad.tolist()
        return id(value), value.dtype, value.requires_grad, value.stride(), value.detach().tolist(), gradient
    if isinstance(value, dict):
        return [(id(key) if torch.is_tensor(key) else key, plain(part)) for key, part in value.items()]
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value if isinstance(value, (int, float, str, bool, type(None))) else (type(value), id(value))


def picture(model, optimizer=None):
    """All that a model and its optimizer hold, and torch's generator."""
    modules = [(path, type(module), plain(vars(module))) for path, module in model.named_modules()]
    held = None if optimizer is None else (plain(optimizer.param_groups), plain(dict(optimizer.state)))
    return modules, held, torch.get_rng_state().tolist()


class Normed(nn.Module):
    """A LayerNorm whose eps is not the same after a multiplication and its inverse."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 64), nn.LayerNorm(64), nn.Linear(64, 4)

    def forward(self, inputs):
        return self.last(relu(self.norm(self.first(inputs))))


def adam(model):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    train(model, optimizer, 2)
    return optimizer


def momentum(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    train(model, optimizer, 2)
    return optimizer


def tasks():
    return TaskNet((2, 8, 8), "a", 4, channels=[3], hidden=[5])


CHANGES = {
    "widen": (mlp, adam, lambda model, o: widen(model, "hidden1", 3, optimizer=o)),
    "split": (convnet, momentum, lambda model, o: widen(model, "conv1", 2, split, optimizer=o)),
    "stream": (resnet, adam, lambda model, o: widen(model, "stage1", 2, optimizer=o)),
    "layernorm": (lambda: growable(Normed(), torch.randn(2, 6)), adam, lambda m, o: widen(m, "first", 8, optimizer=o)),
    "prune": (convnet, adam, lambda model, o: prune(model, "conv2", [1], optimizer=o)),
    "deepen": (mlp, adam, lambda model, o: deepen(model, "hidden1", optimizer=o)),
    "deepen any": (net, momentum, lambda model, o: deepen(model, "one", optimizer=o)),
    "rewire": (
        lambda: sparsify(mlp(), 0.5),
        momentum,
        lambda model, o: rewire(model, smallest_magnitude, at_random, 0.3, optimizer=o, scope="global"),
    ),
    "rewire csr": (
        lambda: sparsify(mlp(), 0.5, backend="csr"),
        adam,
        lambda model, o: rewire(model, smallest_magnitude, at_random, 0.3, optimizer=o),
    ),
    "sparsify": (mlp, adam, lambda model, o: sparsify(model, 0.5, optimizer=o)),
    "new task": (tasks, adam, lambda model, o: model.grow("b", 2, 3, 4, optimizer=o)),
    "more of a task": (tasks, adam, lambda model, o: model.grow("a", 2, 3, optimizer=o)),
    "close": (tasks, adam, lambda model, o: model.close("a", optimizer=o)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_fault_at_any_line_leaves_everything_as_it_was(name):
    build, make, change = CHANGES[name]
    torch.manual_seed(0)
    model = build()
    optimizer = make(model)
    twin, twins = copy.deepcopy((model, optimizer))
    lines = lines_of(lambda: change(twin, twins))
    torch.manual_seed(1)
    before = picture(model, optimizer)
    for fault_at in sorted({1 + lines * part // 40 for part in range(40)} | set(range(lines - 3, lines + 1))):
        with pytest.raises(Fault):
            lines_of(lambda: change(model, optimizer), fault_at)
        assert picture(model, optimizer) == before, fault_at
    change(model, optimizer)
    assert picture(model, optimizer) != before


def test_without_the_journal_the_faults_are_seen(monkeypatch):
    """The negative control: nothing is put back."""
    monkeypatch.setattr("growlib.growth.journal.Journal.undo", lambda self: None)
    torch.manual_seed(0)
    model = mlp()
    optimizer = adam(model)
    before = picture(model, optimizer)
    lines = lines_of(lambda: widen(*copy.deepcopy((model, "hidden1", 3))))
    with pytest.raises(Fault):
        lines_of(lambda: widen(model, "hidden1", 3, optimizer=optimizer), lines)
    assert picture(model, optimizer) != before


def test_a_trainers_change_and_its_check_are_one():
    torch.manual_seed(0)
    model = mlp()
    trainer = Trainer(model, adam(model), device="cpu")
    inputs = inputs_for(model)

    def refuse(change):
        check_growth(model, change, inputs)
        raise Fault(change.layer)

    before, history = picture(model, trainer.optimizer), copy.deepcopy(trainer.history.state_dict())
    with pytest.raises(Fault, match="hidden1"):
        trainer.change(widen, "hidden1", 3, check=refuse)
    assert picture(model, trainer.optimizer) == before and trainer.history.state_dict() == history
    trainer.change(widen, "hidden1", 3)
    assert model.hidden[0].width == 10 and len(trainer.history.changes) == 1


def test_looking_at_a_change_leaves_attributes_as_they_were_bit_for_bit():
    """1e-5 * 64 / 72 * 72 / 64 is not 1e-5: attributes are stored, and not computed back."""
    model = growable(Normed(), torch.randn(2, 6))
    eps = model.norm.eps
    change, inputs = widen(model, "first", 8), torch.randn(5, 6)
    grown = picture(model)
    check_growth(model, change, inputs)
    assert picture(model) == grown
    prune(model, "first", range(64, 72))
    assert model.norm.eps == eps


# --------------------------------------------------------------------------------------- what outsiders do to a model


def replaced(model):
    model.out = nn.Linear(5, 9)


def synchronised(model):
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def spoiled(wrap, name):
    def spoil(model):
        wrap(model.get_submodule(name))

    return spoil


BROKEN = {
    "a new head": (replaced, "two", "'out'.*growable"),
    "SyncBatchNorm": (synchronised, "conv", "'norm'.*growable"),
    "weight_norm": (spoiled(nn.utils.parametrizations.weight_norm, "two"), "one", "'two'.*remove_param"),
    "old weight_norm": (spoiled(nn.utils.weight_norm, "two"), "one", "'two'.*remove_weight_norm"),
    "spectral_norm": (spoiled(nn.utils.parametrizations.spectral_norm, "two"), "two", "'two'.*remove_param"),
    "old spectral_norm": (spoiled(nn.utils.spectral_norm, "two"), "two", "'two'.*remove_spectral_norm"),
    "prune": (spoiled(lambda m: masks.l1_unstructured(m, "weight", 0.5), "two"), "two", r"'two'.*prune\.remove"),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", BROKEN)
def test_what_was_done_to_a_model_since_is_refused_with_the_module_and_the_remedy(name):
    spoil, layer, message = BROKEN[name]
    torch.manual_seed(0)
    model = net()
    model = spoil(model) or model
    optimizer = torch.optim.Adam(model.parameters())
    before = picture(model, optimizer)
    for change in (lambda: widen(model, layer, 2, optimizer=optimizer), lambda: prune(model, layer, [0], optimizer)):
        with pytest.raises(ValueError, match=message):
            change()
        assert picture(model, optimizer) == before
    if name == "a new head":  # the others can grow, and growable finds the head
        widen(model, "one", 2)
        widen(growable(model, torch.randn(2, 2, 6, 6)), "two", 2)
        assert model.out.in_features == 7


def test_a_plain_head_of_a_model_of_growlib_grows():
    model = MLP(6, [5], 3)
    model.output = nn.Linear(5, 9)
    widen(model, "hidden1", 2)
    assert model.output.in_features == 7 and model(torch.randn(2, 6)).shape == (2, 9)


class Several(nn.Module):
    """Token ids in, a dict and a tuple out."""

    def __init__(self):
        super().__init__()
        self.table, self.first, self.last = nn.Embedding(11, 6), nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, ids):
        return self.last(relu(self.first(self.table(ids))))


@pytest.mark.parametrize("wrapped", [tuple, dict])
def test_flops_of_what_puts_out_tuples_and_dicts_are_counted(wrapped):
    class Wrapped(MLP):
        def forward(self, inputs):
            outputs = super().forward(inputs)
            return (outputs, outputs * 2) if wrapped is tuple else {"logits": outputs, "mask": outputs > 0}

    model = Wrapped(6, [5], 3)
    change = widen(model, "hidden1", 2)
    assert change.flops == 2 * (6 * 7 + 7 * 3)
    assert check_growth(model, change, torch.randn(8, 6))["moved"] < 1e-6


def test_flops_of_a_model_that_reads_token_ids_are_counted():
    model = growable(Several(), torch.randint(11, (2, 3)))
    assert widen(model, "first", 2).flops == 2 * 3 * (6 * 7 + 7 * 4)
    model.input_dtype = torch.float32
    before = picture(model)
    with pytest.raises(ValueError, match="cannot count what Several computes.*input_shape.*token ids"):
        widen(model, "first", 2)
    assert picture(model) == before


@pytest.mark.parametrize("bits", ["dynamic", "stored"])
def test_quantised_weights_are_refused(bits):
    model = mlp()
    if bits == "dynamic":
        model.output = torch.ao.nn.quantized.dynamic.Linear(5, 4)
    else:
        model.output.weight = nn.Parameter(torch.zeros(4, 5, dtype=torch.int8), requires_grad=False)
    for change in (lambda: widen(model, "hidden1", 2), lambda: prune(model, "hidden1", [0])):
        with pytest.raises(ValueError, match="'output'.*Quantise last"):
            change()
    with pytest.raises(ValueError, match="Quantise last: deepen the model before"):
        deepen(model, "hidden1")


@pytest.mark.parametrize("attribute", [nn.Linear(3, 3), 7, "text", []])
def test_attributes_of_the_users_own_get_in_nobodys_way(attribute):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 4)
            self.hidden, self.input_shape = attribute, attribute

        def forward(self, inputs):
            return self.last(relu(self.first(inputs)))

    model = growable(Own(), torch.randn(2, 6))
    assert widen(model, "first", 2).flops in (None, 2 * (6 * 7 + 7 * 4)) and model.first.out_features == 7
