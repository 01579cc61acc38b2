"""Averaged weights against averages by hand, through growth, rewiring, tasks and resumes."""

import copy

import pytest
import torch

from growlib import (
    MLP,
    Average,
    Callback,
    ConvNet,
    Deepen,
    Lookahead,
    NeuronGenesis,
    Prune,
    Rewire,
    SpeedNet,
    TaskNet,
    Trainer,
    Widen,
    at_random,
    averaged,
    every,
    load,
    random,
    shallower_than,
    smallest_magnitude,
    sparsify,
    split,
    widen,
    zero_out,
)
from growlib.callbacks.averages import AVERAGE, measure_statistics, pairs_of

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05),
    "Nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01),
    "several": lambda p: [torch.optim.SGD([next(p)], lr=0.05), torch.optim.AdamW([*p], lr=0.01)],
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.003),
}


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def make(callbacks=(), model=None, kind="Nesterov", **settings):
    torch.manual_seed(0)
    model = model or MLP(64, [8], 10)
    return Trainer(model, OPTIMIZERS[kind](model.parameters()), callbacks, device="cpu", **settings)


class Tape(Callback):
    """Keeps the weights of every step."""

    def __init__(self):
        self.weights = []

    def after_step(self, trainer):
        self.weights.append([parameter.detach().clone() for parameter in trainer.model.parameters()])


def means(trainer):
    found = {id(parameter): mean for mean, parameter in pairs_of(trainer.optimizer)}
    return [found[id(parameter)] for parameter in trainer.model.parameters()]


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_an_average_is_the_running_mean_of_the_weights_and_disturbs_nothing(digits, kind):
    tape = Tape()
    trainer = make([tape, Average(kept=0.8, every=3)], kind=kind)
    trainer.fit(digits, epochs=2)
    expected = tape.weights[0]
    for step, weights in enumerate(tape.weights, start=1):
        if step % 3 == 0:
            expected = [0.8 * mean + 0.2 * weight for mean, weight in zip(expected, weights, strict=True)]
    torch.testing.assert_close(means(trainer), expected)
    plain = make(kind=kind)
    assert plain.fit(digits, epochs=2).losses == trainer.history.losses


def test_how_well_the_average_does_is_recorded_and_can_be_looked_at(digits):
    trainer = make([Average()])
    history = trainer.fit(digits, epochs=2)
    weights = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    with averaged(trainer) as model:
        assert all(torch.equal(*pair) for pair in zip(model.parameters(), means(trainer), strict=True))
        found = trainer.evaluate(digits)
    assert history.records[-1]["val_accuracy_averaged"] == found["accuracy"]
    assert history.records[-1]["val_loss_averaged"] == found["loss"] != history.records[-1]["val_loss"]
    assert all(torch.equal(*pair) for pair in zip(trainer.model.parameters(), weights, strict=True))
    with pytest.raises(ValueError, match="no averaged weights"), averaged(make()):
        pass


def test_lookahead_goes_back_every_few_steps_and_ends_at_the_mean(digits):
    tape = Tape()  # before Lookahead: what the optimizer made
    trainer = make([tape, Lookahead(kept=0.5, every=5)], batch_size=200)
    trainer.fit(digits, epochs=2)
    steps = len(tape.weights)
    expected = tape.weights[0]
    for step in range(5, steps + 1, 5):
        expected = [0.5 * mean + 0.5 * weight for mean, weight in zip(expected, tape.weights[step - 1], strict=True)]
    assert steps % 5
    torch.testing.assert_close([p.detach() for p in trainer.model.parameters()], expected)
    last = trainer.history.records[-1]["val_loss"]
    assert last == trainer.evaluate(digits)["loss"]  # the record is of the mean already


def test_the_share_that_lookahead_keeps_rises_with_the_task(digits):
    shares = []

    class Listen(Callback):
        def after_step(self, trainer):
            shares.append(lookahead.kept(trainer))

    lookahead = Lookahead()
    make([Listen(), lookahead]).fit(digits, epochs=1)
    assert shares == sorted(shares) and shares[-1] == 0.95**5 and shares[0] < 0.01


# -------------------------------------------------------------------------------------------------------- structure


def grown(digits, init, *callbacks, model=None, epochs=2):
    model = model or ConvNet((1, 8, 8), [4], [6], 10)
    trainer = make([Widen(by=2, when=every(1, "epoch"), init=init), *callbacks], model=model)
    trainer.fit(digits, epochs=epochs)
    return trainer


class Look(Callback):
    """Compares what the averaged model says before and after a change."""

    def __init__(self, init):
        self.init = init

    def after_epoch(self, trainer):
        before = self.said(trainer)
        trainer.change(widen, "conv1", 3, init=self.init)
        self.moved = (self.said(trainer) - before).abs().max() / before.abs().max()

    def said(self, trainer):
        kept = copy.deepcopy(trainer.model.state_dict())
        with averaged(trainer):
            trainer.model.load_state_dict({name: kept[name] for name in kept if "running" in name}, strict=False)
            trainer.model.eval()
            answer = trainer.model(trainer.inputs).detach()
            trainer.model.train()
        return answer


@pytest.mark.parametrize("init", [zero_out, split])
def test_an_average_keeps_its_function_when_units_are_born(digits, init):
    look = Look(init)
    make([look, Average()], model=ConvNet((1, 8, 8), [4], [6], 10)).fit(digits, epochs=1)
    assert look.moved < 1e-4


def test_the_average_of_new_units_begins_at_their_weights_and_that_of_old_ones_stays(digits):
    trainer = grown(digits, zero_out, Average(kept=0.9, every=1000))
    first = trainer.model.conv1.weight
    mean = trainer.optimizer.state[first][AVERAGE]
    assert not torch.equal(mean[:4], first[:4])  # still the weights of the first step
    assert mean.shape == first.shape and torch.equal(mean[6:], first[6:])  # born after the last step


def test_averages_lose_the_units_that_are_pruned(digits):
    trainer = make([Prune(by=2, when=every(1, "epoch")), Average()])
    trainer.fit(digits, epochs=2)
    assert trainer.model.hidden[0].width == 4
    assert [mean.shape for mean in means(trainer)] == [parameter.shape for parameter in trainer.model.parameters()]


def test_averages_of_absent_connections_are_zero(digits):
    model = sparsify(MLP(64, [12], 10), 0.3)
    rewire = Rewire(smallest_magnitude, at_random, every(4, "steps"))
    trainer = make([rewire, Lookahead(kept=0.7)], model=model)
    trainer.fit(digits, epochs=2)
    for layer in (model.hidden1, model.output):
        assert not layer.weight[~layer.mask].any()
        assert not trainer.optimizer.state[layer.weight][AVERAGE][~layer.mask].any()


def test_averages_go_with_the_connections_of_csr_layers(digits):
    def run(backend):
        torch.manual_seed(0)
        model = sparsify(MLP(64, [12], 10), 0.3, backend=backend)
        trainer = make([Rewire(smallest_magnitude, at_random, every(4, "steps")), Average(kept=0.7)], model=model)
        trainer.fit(digits, epochs=2)
        with averaged(trainer):
            return model.hidden1.weight.detach().clone(), model.hidden1.mask.clone()

    (dense, mask), (stored, same) = run("masked"), run("csr")
    assert torch.equal(mask, same)
    torch.testing.assert_close(stored, dense)


def test_statistics_are_those_of_training_examples(digits):
    trainer = make([Lookahead()], model=ConvNet((1, 8, 8), [4], [6], 10), batch_size=100)
    trainer.fit(digits, epochs=1)
    model, norm = trainer.model, trainer.model.norm1
    inputs = [digits.batch("train", index)[0] for index in torch.arange(1300).split(100)]
    units = [model.conv1(part) for part in inputs]
    mean = torch.stack([part.mean((0, 2, 3)) for part in units]).mean(0)
    variance = torch.stack([part.var((0, 2, 3)) for part in units]).mean(0)
    torch.testing.assert_close(norm.running_mean, mean.detach())
    torch.testing.assert_close(norm.running_var, variance.detach())
    assert norm.momentum == 0.1 and model.training


def test_statistics_of_closed_tasks_and_of_those_that_do_not_run_stay(digits):
    model = TaskNet((1, 8, 8), "a", 10, [3], transfer=False)
    model.grow("digits", 2, classes=10)
    with torch.no_grad():
        model.norm1.block(0).running_mean.fill_(7.0)
    trainer = make(model=model)
    trainer.fit(digits, epochs=1)
    for closed in (False, True):
        if closed:
            model.close("digits", trainer.optimizer)
        with torch.no_grad():
            model.norm1.block(1).running_mean.fill_(5.0)
        measure_statistics(trainer, 500)
        assert bool((model.norm1.block(0).running_mean == 7.0).all())
        assert bool((model.norm1.block(1).running_mean == 5.0).all()) is closed


def test_asgd_is_refused(digits):
    model = MLP(64, [4], 10)
    trainer = Trainer(model, torch.optim.ASGD(model.parameters()), [Average()], device="cpu")
    with pytest.raises(TypeError, match="ASGD keeps an average of its own"):
        trainer.fit(digits, epochs=1)


def test_a_layer_that_is_put_in_gets_an_average_of_its_own(digits):
    trainer = make(
        [Deepen(when=every(1, "epoch") & shallower_than(2), after="hidden1"), Average()], model=MLP(64, [8], 10)
    )
    record = trainer.fit(digits, epochs=2).records[-1]
    assert [mean.shape for mean in means(trainer)[2:4]] == [(8, 8), (8,)] and "val_loss_averaged" in record


# ----------------------------------------------------------------------------------------------------------- resume


class SaveAt(Callback):
    may_differ = ("path", "step")

    def __init__(self, path, step):
        self.path, self.step = path, step

    def after_step(self, trainer):
        if trainer.step == self.step:
            trainer.save(self.path)


@pytest.mark.parametrize("kind", [Average, Lookahead])
@pytest.mark.parametrize("init", [zero_out, split, random])
def test_a_resumed_run_equals_one_that_did_not_stop(digits, tmp_path, kind, init):
    def callbacks():
        return [Widen(by=2, when=every(7, "steps"), init=init), SaveAt(tmp_path / "run.pt", 17), kind(kept=0.7)]

    whole = make(callbacks(), model=SpeedNet((1, 8, 8), [3, 4], 10))
    whole.fit(digits, epochs=2)
    parted = Trainer.load(tmp_path / "run.pt", callbacks=callbacks(), device="cpu")
    parted.fit(digits, epochs=2)
    assert parted.history.losses == whole.history.losses
    timeless = [[{**record, "seconds": 0} for record in run.history.records] for run in (whole, parted)]
    assert timeless[0] == timeless[1]
    for mine, theirs in zip(pairs_of(whole.optimizer), pairs_of(parted.optimizer), strict=True):
        assert torch.equal(mine[0], theirs[0]) and torch.equal(mine[1], theirs[1])


def test_neurongenesis_keeps_closed_tasks_out_of_the_average(digits):
    stream = [digits, copy.copy(digits)]
    object.__setattr__(stream[1], "name", "again")
    model = TaskNet((1, 8, 8), "digits", 10, [3])
    trainer = make([NeuronGenesis(channels=2, hidden=0), Lookahead(kept=0.7)], model=model)
    trainer.fit(stream[0], epochs=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainer.fit(stream[1], epochs=1)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert any(AVERAGE in state for state in trainer.optimizer.state.values())
