"""Rewire in a run: exact counts after every step, exact resume, true logs."""

import pytest
import torch

from growlib import (
    MLP,
    Callback,
    Checkpoint,
    Rewire,
    Trainer,
    at_random,
    connections,
    cosine_decay,
    costs,
    erk,
    every,
    largest_gradient,
    load,
    smallest_magnitude,
    sparse_layers,
    sparsify,
    widen,
)


class Masks(Callback):
    """Keeps the masks of every step."""

    def __init__(self):
        self.seen, self.counts = [], []

    def after_step(self, trainer):
        self.seen.append({name: layer.mask.clone() for name, layer in sparse_layers(trainer.model).items()})
        self.counts.append(connections(trainer.model))

    def state_dict(self):
        return {}


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def rewiring(regrow=largest_gradient, scope="layer"):
    return Rewire(smallest_magnitude, regrow, every(3, "steps"), cosine_decay(0.5), scope)


def make(*callbacks):
    torch.manual_seed(0)
    model = sparsify(MLP(64, [30, 20], 10), 0.1, erk)
    return Trainer(model, torch.optim.Adam(model.parameters(), lr=1e-2), callbacks, device="cpu")


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("regrow", [largest_gradient, at_random])
def test_the_count_is_the_same_after_every_step(digits, regrow, scope):
    masks = Masks()
    trainer = make(rewiring(regrow, scope), masks)
    before = connections(trainer.model)
    trainer.fit(digits, epochs=2)
    assert set(masks.counts) == {before} and len(masks.counts) == trainer.step
    assert not torch.equal(masks.seen[0]["hidden1"], masks.seen[-1]["hidden1"])


def test_the_log_is_true(digits):
    masks = Masks()
    trainer = make(rewiring(), masks)
    start = {name: layer.mask.clone() for name, layer in sparse_layers(trainer.model).items()}
    history = trainer.fit(digits, epochs=3)
    seen, steps = [start, *masks.seen], trainer.step // 3
    for epoch, record in enumerate(history.records):
        until = seen[: (epoch + 1) * steps + 1]
        for name in start:
            states = torch.stack([state[name] for state in until])  # (steps + 1, outputs, inputs)
            assert record["connections"][name] == int(states[-1].sum())
            assert record["explored"][name] == pytest.approx(states.any(0).float().mean().item())
            moved = int((states[-steps:] & ~states[-steps - 1 : -1]).sum())
            assert record["turnover"][name] == pytest.approx(moved / record["connections"][name])
            reads = states[-1].sum(1)
            assert record["in_degree"][name] == [reads.min().item(), reads.max().item()]
            assert record["out_degree"][name] == [min(states[-1].sum(0).tolist()), max(states[-1].sum(0).tolist())]
            ages = torch.zeros_like(start[name], dtype=torch.int)
            for before, now in zip(states, states[1:], strict=False):
                ages = torch.where(before & now, ages + 1, 0)
            assert record["age"][name] == pytest.approx(ages[states[-1]].double().mean().item())


def test_resuming_equals_not_having_stopped(digits, tmp_path):
    class Half(Callback):
        """Saves in the middle of the run."""

        def after_epoch(self, trainer):
            if trainer.epoch == 2:
                trainer.save(tmp_path / "half.pt")

    whole = make(rewiring(at_random), Half())
    whole.fit(digits, epochs=4)
    torch.manual_seed(99)
    resumed = Trainer.load(tmp_path / "half.pt", callbacks=[rewiring(at_random), Half()], device="cpu")
    resumed.fit(digits, epochs=4)
    assert resumed.history.losses == whole.history.losses
    for name, layer in sparse_layers(whole.model).items():
        assert torch.equal(sparse_layers(resumed.model)[name].mask, layer.mask)
    columns = ("connections", "turnover", "explored", "age", "cut_off")
    assert [[r[c] for c in columns] for r in resumed.history.records] == [
        [r[c] for c in columns] for r in whole.history.records
    ]


def test_a_resume_with_other_masks_differs(digits, tmp_path):
    """The negative control."""
    make(rewiring(at_random), Checkpoint(tmp_path)).fit(digits, epochs=2)
    losses = []
    for spoil in (False, True):
        trainer = Trainer.load(tmp_path / "last.pt", callbacks=[rewiring(at_random), Checkpoint(tmp_path / "2")])
        if spoil:
            layer = trainer.model.hidden1
            layer.wire(layer.mask.flip(0))
        losses.append(trainer.fit(digits, epochs=3).losses)
    assert losses[0] != losses[1]


def test_the_fraction_falls_along_a_cosine(digits):
    fractions = []

    class Look(Callback):
        def after_step(self, trainer):
            fractions.append((trainer.done, cosine_decay(0.4)(trainer)))

    make(Look()).fit(digits, digits, epochs=2)
    done = torch.tensor([share for share, _ in fractions])
    expected = 0.2 * (1 + (done * torch.pi).cos())
    torch.testing.assert_close(torch.tensor([fraction for _, fraction in fractions]), expected)
    half = len(done) // 2
    assert done[half - 1] == done[-1] == 1.0 and done[half] < 0.1  # each task has its own


def test_bad_settings_are_refused(digits):
    with pytest.raises(ValueError, match=r"cosine_decay\(1.5\)"):
        cosine_decay(1.5)
    model = MLP(64, [8], 10)
    trainer = Trainer(model, torch.optim.Adam(model.parameters()), [rewiring()], device="cpu")
    with pytest.raises(ValueError, match="call sparsify"):
        trainer.fit(digits, epochs=1)
    with pytest.raises(ValueError, match="scope='layers' must be 'layer'"):
        make(rewiring(scope="layers")).fit(digits, epochs=1)
    with pytest.raises(ValueError, match="cannot drop 1.2 of"):
        make(Rewire(smallest_magnitude, at_random, every(1, "steps"), lambda trainer: 1.2)).fit(digits, epochs=1)


def test_a_budget_counts_connections_when_dense_layers_grow():
    torch.manual_seed(0)
    model = sparsify(MLP(64, [30, 20, 8], 10), 0.1, layers=["hidden1"])
    price = 192 + 30 + 30 * 20 + 20 + 20 * 8 + 8 + 8 * 10 + 10
    assert costs.parameters(model) == price
    budget = costs.Budget(parameters=price + 31)  # one unit of hidden3 costs 20 + 1 + 10
    trainer = Trainer(model, torch.optim.Adam(model.parameters()), budget=budget, device="cpu")
    trainer.change(widen, "hidden3", 1)
    assert costs.parameters(model) == price + 31
    with pytest.raises(ValueError, match="would need .* parameters, and the budget is"):
        trainer.change(widen, "hidden3", 1)
    with pytest.raises(ValueError, match="cannot widen layer 'hidden1'"):
        trainer.change(widen, "hidden1", 1)


def test_it_is_written_as_it_was_passed():
    assert repr(rewiring()) == (
        "Rewire(smallest_magnitude, largest_gradient, every(3, 'step'), fraction=cosine_decay(0.5), scope='layer')"
    )
