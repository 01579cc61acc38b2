"""Probe against layers computed by hand, and against a run that nobody looks at."""

import copy

import pytest
import torch
from networks import convnet, inputs_for, mlp
from torch import nn
from torch.nn import BatchNorm1d
from torch.nn.functional import cross_entropy, relu

from growlib import GrowLinear, Hidden, Probe, Trainer, Widen, activation, every, load, taylor
from growlib.callbacks import machine


class Noisy(nn.Module):
    """Batch normalisation and dropout: both change when somebody looks carelessly."""

    input_shape = (64,)

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = GrowLinear(64, 8), BatchNorm1d(8), GrowLinear(8, 10)
        self.drop = nn.Dropout(0.5)

    @property
    def hidden(self):
        return [Hidden("first", (self.first,), (self.norm,), (self.last,))]

    def forward(self, inputs):
        return self.last(self.drop(relu(self.norm(self.first(inputs.flatten(1))))))


class Look(machine.Callback):
    """Uses a probe in every step; a careless look is the negative control."""

    careless = False

    def after_step(self, trainer):
        if self.careless:
            trainer.model(trainer.inputs)
        probe = trainer.probe()
        for hidden in trainer.model.hidden:
            assert activation(probe, hidden).shape == taylor(probe, hidden).shape == (hidden.width,)

    after_backward = after_epoch = after_step


def losses(callbacks):
    torch.manual_seed(0)
    model = Noisy()
    callbacks = [*callbacks, Widen(by=2, when=every(7, "steps"))]
    trainer = Trainer(model, torch.optim.Adam(model.parameters(), lr=1e-2), callbacks, device="cpu")
    return trainer.fit(load("digits"), epochs=2).losses


def test_losses_are_bit_equal_with_and_without_a_probe():
    alone = losses([])
    assert losses([Look()]) == alone
    careless = Look()
    careless.careless = True
    assert losses([careless]) != alone


def test_nothing_in_the_model_moves():
    torch.manual_seed(0)
    model = Noisy()
    inputs, labels = torch.randn(16, 64), torch.randint(10, (16,))
    cross_entropy(model(inputs), labels).backward()
    before = copy.deepcopy(model.state_dict()), {n: p.grad.clone() for n, p in model.named_parameters()}
    state = torch.get_rng_state()
    probe = Probe(model, inputs, labels)
    probe.pre(model.hidden[0]), probe.input_gradient(model.last)
    assert torch.equal(torch.get_rng_state(), state) and model.training and not model._forward_hooks
    assert all(torch.equal(value, before[0][name]) for name, value in model.state_dict().items())
    assert all(torch.equal(parameter.grad, before[1][name]) for name, parameter in model.named_parameters())


def test_an_mlp_by_hand():
    torch.manual_seed(0)
    model = mlp(torch.float64)
    inputs, labels = inputs_for(model), torch.randint(4, (16,))
    pre = model.hidden1(inputs).detach().requires_grad_()
    below = relu(pre)
    between = model.hidden2(below)
    loss = cross_entropy(model.output(relu(between)), labels)
    expected = torch.autograd.grad(loss, [pre, between, below])
    probe, (first, second) = Probe(model, inputs, labels), model.hidden
    assert torch.equal(probe.loss, loss) and torch.equal(probe.inputs_of(model.hidden1), inputs)
    assert torch.equal(probe.pre(first), pre) and torch.equal(probe.post(first), below)
    torch.testing.assert_close(probe.gradient(first), expected[0])
    torch.testing.assert_close(probe.gradient_of(model.hidden2), expected[1])
    torch.testing.assert_close(probe.gradient(second), expected[1])
    torch.testing.assert_close(probe.input_gradient(model.hidden2), expected[2])


def test_convolutions_by_unit():
    torch.manual_seed(0)
    model = convnet().eval()
    inputs, labels = inputs_for(model), torch.randint(4, (16,))
    probe, (first, second, _) = Probe(model, inputs, labels), model.hidden
    normed = model.norm1(model.conv1(inputs))
    assert torch.equal(probe.pre(first), normed)
    below = torch.max_pool2d(relu(normed), 2)
    assert torch.equal(probe.post(first), below)
    flat = torch.max_pool2d(relu(model.norm2(model.conv2(below))), 2)
    assert torch.equal(probe.post(second), flat.flatten(2))  # (B, width, positions)


def test_layers_in_place_frozen_or_called_twice():
    torch.manual_seed(0)
    first, last = nn.Linear(5, 5), nn.Linear(5, 3)
    model = nn.Sequential(first, nn.ReLU(inplace=True), first, nn.ReLU(inplace=True), last)
    inputs, labels = torch.randn(4, 5), torch.randint(3, (4,))
    model.requires_grad_(False)
    probe = Probe(model, inputs, labels)
    assert torch.equal(probe.outputs_of(first), torch.cat([first(inputs), first(relu(first(inputs)))]))
    read = relu(first(relu(first(inputs)))).requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(last(read), labels), read)
    torch.testing.assert_close(probe.input_gradient(last), gradient)
    with pytest.raises(ValueError, match="did not call Linear"):
        probe.inputs_of(nn.Linear(5, 5))


def test_a_trainer_makes_one_probe_between_two_changes():
    torch.manual_seed(0)
    seen = []

    class Watch(machine.Callback):
        def after_step(self, trainer):
            seen.append((trainer.probe(), trainer.step))
            assert trainer.probe() is seen[-1][0] and trainer.probe().inputs is trainer.inputs

    callbacks = [Watch(), Widen(by=1, when=every(5, "steps")), Watch()]
    model = Noisy()
    Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), callbacks, device="cpu").fit(load("digits"), epochs=1)
    for (before, step), (after, _) in zip(seen[::2], seen[1::2], strict=True):
        assert (before is after) == (step % 5 != 0)


def test_work_is_done_once_for_each_thing_that_it_is_about():
    probe, calls = Probe(mlp(), torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)), []
    for about in ("a", "b", "a"):
        probe.once("length", about, lambda about=about: calls.append(about))
    assert calls == ["a", "b"]
