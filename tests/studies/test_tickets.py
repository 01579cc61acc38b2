"""Tickets against a loop over plain tensors, and the controls that they are compared with."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import convnet
from torch.nn.functional import cross_entropy, relu
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import OneCycleLR

from growlib.callbacks import LRSchedule
from growlib.data import load
from growlib.layers import connections, sparse_layers
from growlib.models import MLP
from growlib.scores import gradient_importance
from growlib.signals import Probe
from growlib.sparsity import ranked, sparsify
from growlib.studies import lottery, masks_of, shuffled, wire
from growlib.trainer import Callback, Trainer
from growlib.trainer.batches import shuffled as shuffled_examples

EPOCHS, BATCH = 2, 100


@pytest.fixture(scope="module")
def data():
    return load("digits")


def a_trainer(callbacks=(), kind=Adam, seed=0, **settings):
    torch.manual_seed(seed)
    model = MLP(64, [12, 8], 10)
    optimizer = kind(model.parameters(), **(settings or {"lr": 1e-2}))
    return Trainer(model, optimizer, callbacks, batch_size=BATCH)


def steps_of(data):
    return EPOCHS * -(-len(data.train) // BATCH)


class Look(Callback):
    """Remembers the model and the optimizer as every fit finds them, and at one later step."""

    def __init__(self, step=None):
        self.step, self.found, self.states, self.later = step, [], [], []

    def before_fit(self, trainer):
        self.found.append(copy.deepcopy(trainer.model))
        self.states.append(copy.deepcopy(trainer.optimizer.state_dict()))

    def after_step(self, trainer):
        if trainer.step == self.step:
            self.later.append(copy.deepcopy((trainer.model, trainer.optimizer.state_dict())))


def kept(model):
    return {name: layer.weight.detach() for name, layer in sparse_layers(model).items()}


def by_hand(data, trainer, keep, rounds):
    """The same with plain tensors, a multiplication by masks, and torch's SGD."""
    order = [shuffled_examples(len(data.train), trainer.seed, epoch, torch.device("cpu")) for epoch in range(EPOCHS)]
    names = ["hidden1", "hidden2", "output"]
    start = [trainer.model.get_submodule(name).weight.detach().clone() for name in names]
    offsets = [trainer.model.get_submodule(name).bias.detach().clone() for name in names]
    masks, found = [torch.ones_like(weight) for weight in start], []
    for number in range(rounds + 1):
        weights = [(weight * mask).requires_grad_() for weight, mask in zip(start, masks, strict=True)]
        biases = [bias.clone().requires_grad_() for bias in offsets]
        optimizer = SGD(weights + biases, lr=0.1, momentum=0.9)
        for epoch in order:
            for index in epoch.split(BATCH):
                units, labels = data.batch("train", index)
                units = units.flatten(1)
                for weight, mask, bias in zip(weights, masks, biases, strict=True):
                    units = relu(units) if weight is not weights[0] else units
                    units = units @ (weight * mask).T + bias
                optimizer.zero_grad()
                cross_entropy(units, labels).backward()
                optimizer.step()
        found.append([mask.bool() for mask in masks])
        sizes = torch.cat([torch.where(m > 0, w.abs(), -1.0).flatten() for w, m in zip(weights, masks, strict=True)])
        chosen = torch.zeros_like(sizes)
        chosen[sizes.argsort(descending=True)[: round(keep ** (number + 1) * len(sizes))]] = 1
        masks = [m.view_as(w) for m, w in zip(chosen.split([w.numel() for w in start]), start, strict=True)]
    return found


def test_rounds_are_those_of_a_loop_over_plain_tensors(data):
    trainer = a_trainer(kind=SGD, lr=0.1, momentum=0.9)
    expected = by_hand(data, trainer, 0.5, 3)
    found = [list(ticket.masks.values()) for ticket in lottery(trainer, data, EPOCHS, keep=0.5, rounds=3)]
    for mine, theirs in zip(expected, found, strict=True):
        assert all(map(torch.equal, mine, theirs))
    last = [mask for ticket in lottery(a_trainer(seed=1), data, EPOCHS, rounds=3) for mask in ticket.masks.values()]
    assert not torch.equal(last[-3], expected[-1][0])  # the negative control


@pytest.mark.parametrize("keep, rounds", [(0.5, 3), (0.8, 3), (0.37, 2)])
def test_counts_are_exact_and_masks_are_nested(data, keep, rounds):
    trainer, before = a_trainer(), None
    size = sum(module.weight.numel() for module in trainer.model.children())
    for number, ticket in enumerate(lottery(trainer, data, 1, keep, rounds)):
        count = sum(int(mask.sum()) for mask in ticket.masks.values())
        assert count == round(keep**number * size) == connections(trainer.model)
        assert ticket.density == count / size
        for name, layer in sparse_layers(trainer.model).items():
            assert torch.equal(layer.mask, ticket.masks[name])
            assert not layer.weight[~layer.mask].any()
            assert before is None or not (ticket.masks[name] & ~before[name]).any()
        before = ticket.masks
    assert number == rounds


def test_what_goes_are_the_smallest_weights_of_all_layers_together(data):
    trainer = a_trainer()
    rounds = lottery(trainer, data, EPOCHS, 0.5, 1)
    next(rounds)
    trained = kept(copy.deepcopy(trainer.model))
    stay = next(rounds).masks
    sizes = torch.cat([trained[name][mask].abs() for name, mask in stay.items()])
    others = torch.cat([trained[name][~mask].abs() for name, mask in stay.items()])
    assert sizes.min() >= others.max()


def test_rewound_weights_are_the_first_ones_where_the_mask_is_true_and_zero_elsewhere(data):
    look = Look()
    trainer = a_trainer([look])
    first = copy.deepcopy(trainer.model)
    found = list(lottery(trainer, data, EPOCHS, 0.5, 2))
    assert len(look.found) == len(found) == 3
    for model, ticket in zip(look.found, found, strict=True):
        for name, mask in ticket.masks.items():
            begun, layer = first.get_submodule(name), model.get_submodule(name)
            assert torch.equal(layer.weight[mask], begun.weight[mask])
            assert not layer.weight[~mask].any()
            assert torch.equal(layer.bias, begun.bias)
    name, mask = next(iter(found[-1].masks.items()))
    trained = trainer.model.get_submodule(name).weight
    assert not torch.equal(trained[mask], first.get_submodule(name).weight[mask])  # the negative control


def test_the_optimizer_is_fresh_after_rewinding_to_the_start(data):
    look = Look()
    trainer = a_trainer([look])
    list(lottery(trainer, data, EPOCHS, 0.5, 2))
    assert all(state["state"] == {} for state in look.states)
    assert trainer.optimizer.state_dict()["state"]  # the negative control


def test_rewinding_to_a_step_brings_back_the_weights_and_the_optimizer_of_that_step(data):
    step = steps_of(data) // 2 + 3  # in the middle of an epoch
    look = Look(step)
    trainer = a_trainer([look], weight_decay=0.01, lr=1e-2)
    found = list(lottery(trainer, data, EPOCHS, 0.5, 2, rewind=step))
    (model, optimizer), *more = look.later
    assert not more  # later rounds begin after that step
    names = [name for name, _ in model.named_parameters()]
    for again, state, ticket in zip(look.found[1:], look.states[1:], found[1:], strict=True):
        for name, mask in ticket.masks.items():
            assert torch.equal(again.get_submodule(name).weight[mask], model.get_submodule(name).weight[mask])
            assert not again.get_submodule(name).weight[~mask].any()
            number = names.index(f"{name}.weight")
            for key in ("exp_avg", "exp_avg_sq"):
                then, now = optimizer["state"][number][key], state["state"][number][key]
                assert torch.equal(now[mask], then[mask]) and not now[~mask].any()
                assert then[~mask].any()  # the negative control
        assert len(ticket.history.losses) == steps_of(data)
        assert ticket.history.losses[:step] == found[0].history.losses[:step]
        assert ticket.history.losses[step:] != found[0].history.losses[step:]


@pytest.mark.parametrize("rewind", [0, 5])
def test_a_schedule_is_rewound_too(data, rewind):
    rates = LRSchedule(OneCycleLR, "step", max_lr=0.02, total_steps=steps_of(data))
    found = list(lottery(a_trainer([rates]), data, EPOCHS, 0.5, 2, rewind))
    last = [[record["learning_rate"] for record in ticket.history.records] for ticket in found]
    assert last[0] == last[1] == last[2]
    assert last[0][0] != last[0][1]  # the negative control: there is a schedule


def test_the_first_round_is_an_ordinary_training(data):
    plain = a_trainer()
    plain.fit(data, epochs=EPOCHS)
    first = next(iter(lottery(a_trainer(), data, EPOCHS)))
    assert first.density == 1
    assert first.history.losses == plain.history.losses


def test_a_ticket_that_is_trained_apart_goes_the_same_way(data):
    found = list(lottery(a_trainer(), data, EPOCHS, 0.5, 2))
    alone, other = a_trainer(), a_trainer(seed=1)
    for trainer in (alone, other):
        wire(trainer.model, found[-1].masks)
        trainer.fit(data, epochs=EPOCHS)
    assert alone.history.losses == found[-1].history.losses
    assert other.history.losses != found[-1].history.losses  # the same masks on other weights


def test_rounds_go_on_from_a_ticket_as_if_they_had_not_stopped(data):
    whole = list(lottery(a_trainer(), data, 1, 0.5, 3))
    trainer = a_trainer()
    wire(trainer.model, whole[2].masks)
    rest = list(lottery(trainer, data, 1, 0.5, 1))
    for mine, theirs in zip(whole[2:], rest, strict=True):
        assert mine.density == theirs.density and mine.history.losses == theirs.history.losses
        assert all(torch.equal(mask, theirs.masks[name]) for name, mask in mine.masks.items())


def test_layers_that_are_not_sparse_stay_whole(data):
    trainer = a_trainer()
    sparsify(trainer.model, 1.0, layers=["hidden1", "hidden2"])
    *_, last = lottery(trainer, data, 1, 0.5, 2)
    assert list(last.masks) == ["hidden1", "hidden2"] and last.density == 0.25
    assert trainer.model.output.weight.all()


def test_histories_of_earlier_rounds_stay_as_they_were(data):
    rounds = lottery(a_trainer(), data, EPOCHS, 0.5, 1)
    first = next(rounds)
    losses, records = list(first.history.losses), copy.deepcopy(first.history.records)
    next(rounds)
    assert first.history.losses == losses and first.history.records == records


def test_nothing_is_left_in_the_trainer(data):
    look = Look()
    trainer = a_trainer([look])
    list(lottery(trainer, data, 1, 0.5, 1))
    assert trainer.callbacks == [look]
    trainer = a_trainer([look])
    rounds = lottery(trainer, data, 1, 0.5, 1)
    next(rounds)
    rounds.close()
    assert trainer.callbacks == [look]


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6), st.floats(0, 1)), min_size=1, max_size=3), st.integers(0)
)
def test_shuffling_keeps_the_count_of_every_layer(shapes, seed):
    torch.manual_seed(seed % 2**32)
    masks = {str(number): torch.rand(high, wide) < share for number, (high, wide, share) in enumerate(shapes)}
    mixed = shuffled(masks)
    for name, mask in masks.items():
        assert mixed[name].shape == mask.shape and mixed[name].dtype == torch.bool
        assert mixed[name].sum() == mask.sum()


def test_shuffling_moves_connections_and_leaves_the_masks_alone():
    torch.manual_seed(0)
    masks = {"layer": torch.arange(1000).view(20, 50) < 300}
    before, mixed = masks["layer"].clone(), shuffled(masks)["layer"]
    assert torch.equal(masks["layer"], before)
    assert 40 < int((mixed & before).sum()) < 140  # 90 are expected
    assert mixed.any(1).all()  # rows that had none before


def test_wiring_gives_these_connections_and_keeps_their_weights():
    torch.manual_seed(0)
    model = convnet()
    first = copy.deepcopy(model)
    masks = {name: torch.rand_like(first.get_submodule(name).weight) < 0.4 for name in ("conv1", "hidden1")}
    assert wire(model, masks) is model
    assert list(sparse_layers(model)) == ["conv1", "hidden1"]
    for name, mask in masks.items():
        layer, begun = model.get_submodule(name), first.get_submodule(name)
        assert torch.equal(layer.mask, mask) and layer.mask is not mask
        assert torch.equal(layer.weight, begun.weight * mask)
    assert torch.equal(model.output.weight, first.output.weight)
    back = wire(model, masks_of(first) | {name: torch.ones_like(mask) for name, mask in masks.items()})
    for name, mask in masks.items():  # what was gone comes back as zero
        assert torch.equal(back.get_submodule(name).weight, first.get_submodule(name).weight * mask)


def test_wiring_draws_no_random_numbers():
    model = MLP(6, [5], 4)
    masks = {"hidden1": torch.eye(5, 6) > 0}
    before = torch.get_rng_state()
    wire(model, masks)
    assert torch.equal(torch.get_rng_state(), before)


def test_masks_are_copies():
    model = sparsify(MLP(6, [5], 4), 0.5)
    masks = masks_of(model)
    masks["hidden1"].fill_(False)
    assert model.hidden1.mask.any()


def test_snip_at_the_start_is_the_ranking_of_weight_times_gradient(data):
    model = a_trainer().model
    inputs, labels = data.batch("train", torch.arange(200))
    weights = [layer.weight for layer in model.children()]
    gradients = torch.autograd.grad(cross_entropy(model(inputs), labels), weights)
    worth = torch.cat([(w * g).abs().flatten() for w, g in zip(weights, gradients, strict=True)])
    sparsify(model, 0.1, ranked, score=gradient_importance, probe=Probe(model, inputs, labels))
    chosen = torch.cat([mask.flatten() for mask in masks_of(model).values()])
    assert chosen.sum() == round(0.1 * len(worth))
    assert worth[chosen].min() >= worth[~chosen].max()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"keep": 0.0}, "keep=0.0 must be above 0 and below 1"),
        ({"keep": 1.0}, "keep=1.0"),
        ({"rounds": -1}, "rounds=-1"),
        ({"rewind": -1}, "cannot rewind to step -1"),
        ({"rewind": 10_000}, "cannot rewind to step 10000: 2 epochs of digits are steps 0 to"),
        ({"rounds": 20}, "leaves nothing of layer"),
    ],
)
def test_what_cannot_be_is_refused(data, settings, message):
    with pytest.raises(ValueError, match=message):
        list(lottery(a_trainer(), data, EPOCHS, **settings))


def test_a_trainer_that_has_trained_is_refused(data):
    trainer = a_trainer()
    trainer.fit(data, epochs=1)
    with pytest.raises(ValueError, match="this trainer is at step"):
        next(lottery(trainer, data, EPOCHS))


@pytest.mark.parametrize("masks", [{"hidden9": torch.ones(2, 2) > 0}, {"hidden1": torch.ones(5, 5) > 0}])
def test_masks_that_do_not_fit_are_refused(masks):
    model = MLP(6, [5], 4)
    with pytest.raises(ValueError, match=f"for layer '{[*masks][0]}', whose weight has shape"):
        wire(model, masks)
    assert not sparse_layers(model)
