"""StepByAge against optimizers written by hand, with a rate for every single weight."""

import pytest
import torch
from torch.nn.functional import cross_entropy, relu

from growlib import (
    MLP,
    Callback,
    Deepen,
    LRSchedule,
    Prune,
    StepByAge,
    Trainer,
    Widen,
    births,
    every,
    load,
    warmup_decay,
)


@pytest.fixture(scope="module")
def digits():
    return load("digits")


class Tape(Callback):
    """What every step of a run starts from: batches and weights."""

    def __init__(self):
        self.batches, self.weights = [], []

    def before_step(self, trainer):
        self.weights.append({name: p.detach().clone() for name, p in trainer.model.named_parameters()})

    def after_loss(self, trainer):
        self.batches.append((trainer.inputs, trainer.labels))


def run(digits, kind, callbacks, epochs=1, width=6, **settings):
    torch.manual_seed(0)
    model = MLP(64, [width], 10).double()
    optimizer = {"SGD": torch.optim.SGD, "Adam": torch.optim.Adam}[kind](model.parameters(), **settings)
    trainer = Trainer(model, optimizer, callbacks, device="cpu", batch_size=100)
    trainer.fit(Doubled(digits), epochs=epochs)
    return trainer


class Doubled:
    """A data set in 64 bits."""

    def __init__(self, data):
        self.data = data

    def __getattr__(self, name):
        return getattr(self.data, name)

    def to(self, device):
        return self

    def batch(self, *arguments):
        inputs, labels = self.data.batch(*arguments)
        return inputs.double(), labels


def by_hand(kind, tape, births, boost, steps, rate, first, last):
    """Steps `first` to `last` of a network of one hidden layer, whose units were born at `births`."""
    weights = {name: value.clone() for name, value in tape.weights[first].items()}
    memory = {name: (torch.zeros_like(value), torch.zeros_like(value)) for name, value in weights.items()}
    for step in range(first, last):
        leaves = {name: value.clone().requires_grad_() for name, value in weights.items()}
        inputs, labels = tape.batches[step]
        units = relu(inputs.flatten(1) @ leaves["hidden1.weight"].T + leaves["hidden1.bias"])
        cross_entropy(units @ leaves["output.weight"].T + leaves["output.bias"], labels).backward()
        ages = [step - born for born in births]
        factor = torch.tensor([1 + (boost - 1) * max(1 - age / steps, 0) for age in ages], dtype=torch.float64)
        factors = {"hidden1.weight": factor[:, None], "hidden1.bias": factor, "output.weight": factor, "output.bias": 1}
        for name, leaf in leaves.items():
            mean, square, count = *memory[name], step - first + 1
            mean, square = 0.9 * mean + 0.1 * leaf.grad, 0.999 * square + 0.001 * leaf.grad**2
            memory[name] = mean, square
            move = (mean / (1 - 0.9**count)) / ((square / (1 - 0.999**count)).sqrt() + 1e-8)
            weights[name] -= rate * factors[name] * (move if kind == "Adam" else leaf.grad)
    return weights


@pytest.mark.parametrize("kind, rate", [("SGD", 0.1), ("Adam", 0.01)])
def test_updates_are_those_of_an_optimizer_with_a_rate_for_every_weight(digits, kind, rate):
    """From the first step on: the units that are born before it have all a factor of their own."""
    tape = Tape()

    class Born(Callback):  # as if units had been born by and by
        def before_fit(self, trainer):
            birth = {"kind": "widen", "step": 0, "layer": "hidden1", "before": 3, "units": [3, 4, 5]}
            trainer.history.changes.append(birth)

    run(digits, kind, [Born(), tape, StepByAge(boost=4, steps=5)], lr=rate)
    weights = by_hand(kind, tape, [-(10**9)] * 3 + [0] * 3, 4, 5, rate, 0, 8)
    for name in ("hidden1.weight", "hidden1.bias", "output.weight"):
        torch.testing.assert_close(weights[name], tape.weights[8][name], rtol=1e-9, atol=1e-12)
    weights = by_hand(kind, tape, [-(10**9)] * 6, 4, 5, rate, 0, 8)
    assert (weights["hidden1.weight"] - tape.weights[8]["hidden1.weight"])[3:].abs().max() > 1e-3


def test_after_births_and_deaths_in_a_run_the_factors_are_those_of_the_survivors(digits):
    """With SGD, which has no memory, from a step after all changes."""
    tape = Tape()
    callbacks = [tape, StepByAge(boost=3, steps=10), Widen(2, every(6, "steps")), Prune(1, every(7, "steps"))]
    trainer = run(digits, "SGD", callbacks, epochs=2, lr=0.1)
    changes = [change for change in trainer.history.changes if change["step"] <= 14]
    born = births(changes)["hidden1"]  # births after steps 6 and 12, deaths after 7 and 14
    assert len(born) == 6 + 4 - 2 and {6, 12} >= {step for step in born if step > 0} != set()
    weights = by_hand("SGD", tape, born, 3, 10, 0.1, 14, 17)
    torch.testing.assert_close(weights["hidden1.weight"], tape.weights[17]["hidden1.weight"], rtol=1e-9, atol=1e-12)
    weights = by_hand("SGD", tape, born[::-1], 3, 10, 0.1, 14, 17)
    assert (weights["hidden1.weight"] - tape.weights[17]["hidden1.weight"]).abs().max() > 1e-4


def test_a_new_layer_is_newborn(digits):
    tape = Tape()
    callbacks = [tape, StepByAge(boost=3, steps=10), Deepen(every(4, "steps") & ~every(8, "steps"))]
    trainer = run(digits, "SGD", callbacks, lr=0.1)
    layer = trainer.history.changes[0]["layer"]
    assert births(trainer.history)[layer] == [4] * 6
    plain = Tape()
    run(digits, "SGD", [plain, *callbacks[2:]], lr=0.1)
    moves = [(t.weights[5][f"{layer}.weight"] - t.weights[4][f"{layer}.weight"]) for t in (tape, plain)]
    torch.testing.assert_close(moves[0], 3 * moves[1])


def test_births_follow_deaths():
    widen = {"kind": "widen", "layer": "a", "before": 2}
    changes = [
        widen | {"step": 5, "units": [2, 3]},
        {"kind": "prune", "layer": "a", "before": 4, "step": 6, "units": [0, 2]},
    ]
    changes += [
        widen | {"step": 9, "units": [2]},
        {"kind": "widen", "layer": "b", "before": 1, "step": 9, "units": [1]},
    ]
    born = births(changes)
    assert born["a"][1:] == [5, 9] and born["a"][0] < 0 and born["b"][1] == 9


@pytest.mark.parametrize("kind, moved", [("SGD", True), ("Adam", False)])
def test_scaling_gradients_instead_does_nothing_under_adam(digits, kind, moved):
    """The negative control: why it is the updates that are scaled."""

    class Louder(Callback):
        def after_backward(self, trainer):
            for parameter in trainer.model.parameters():
                parameter.grad *= 100

    tapes = [Tape(), Tape()]
    run(digits, kind, [tapes[0]], lr=1e-3)
    run(digits, kind, [Louder(), tapes[1]], lr=1e-3)
    plain, loud = (tape.weights[3]["hidden1.weight"] - tape.weights[0]["hidden1.weight"] for tape in tapes)
    assert ((loud - plain).abs().mean() > 0.01 * plain.abs().mean()).item() is moved


def test_it_survives_a_checkpoint(digits, tmp_path):
    def callbacks():
        grow = [Widen(2, every(5, "steps")), Prune(1, every(7, "steps"))]
        return [
            StepByAge(boost=5, steps=20),
            LRSchedule(warmup_decay, warmup=1, decay=0.5, patience=1, floor=0.1),
            *grow,
        ]

    def make(stop=None):
        torch.manual_seed(0)
        model = MLP(64, [6], 10)
        trainer = Trainer(model, torch.optim.Adam(model.parameters(), lr=1e-2), callbacks(), device="cpu")
        if stop:
            trainer.callbacks.append(stop)
        return trainer

    class Stop(Callback):
        def after_step(self, trainer):
            if trainer.step == 13:
                trainer.callbacks.pop()
                trainer.save(tmp_path / "run.pt")
                trainer.stop_run("for the test")

    whole = make().fit(digits, epochs=2).losses
    make(Stop()).fit(digits, epochs=2)
    resumed = Trainer.load(tmp_path / "run.pt", callbacks=callbacks(), device="cpu")
    assert resumed.step == 13 and resumed.fit(digits, epochs=2).losses == whole


def test_without_births_nothing_is_copied_and_misuse_is_told(digits):
    calm = StepByAge(boost=2, steps=3)
    torch.manual_seed(0)
    assert run(digits, "SGD", [calm], lr=0.1).history.losses == run(digits, "SGD", [], lr=0.1).history.losses
    with pytest.raises(RuntimeError, match="before the callbacks that change the structure"):
        run(digits, "SGD", [Widen(1, every(2, "steps")), StepByAge(boost=2, steps=5)], lr=0.1)
    with pytest.raises(ValueError, match=r"StepByAge\(0, 5\): give a factor above 0"):
        StepByAge(boost=0, steps=5)
    assert repr(StepByAge(2, steps=5)) == "StepByAge(2, 5)"
