"""SI: the path integral against a run written out by hand, and what it holds."""

import pytest
import torch
from tasks import Heads, cut_in_two, halves, make, same
from torch import nn
from torch.nn.functional import cross_entropy

from growlib import MLP, Callback, Trainer, Widen, every, load
from growlib.continual import SI
from growlib.continual.si import DAMPING


@pytest.fixture(scope="module")
def tasks():
    return halves(load("digits"), 100)


def by_hand(tasks, strength, epochs, lr=0.05):
    """Two tasks with plain gradient descent, every quantity of the paper under its own name."""
    torch.manual_seed(0)
    model = MLP(64, [6], 5)
    theta = list(model.parameters())
    optimizer = torch.optim.SGD(theta, lr=lr, momentum=0.9)
    big_omega, reference, epoch = [torch.zeros_like(p) for p in theta], None, 0
    for data in tasks:
        omega, began = [torch.zeros_like(p) for p in theta], [p.detach().clone() for p in theta]
        for _ in range(epochs):
            order = Orders.of(epoch, len(data.train))
            epoch += 1
            for index in order.split(32):
                loss = cross_entropy(model(data.batch("train", index)[0]), data.train.labels[index])
                g = torch.autograd.grad(loss, theta, retain_graph=True)
                if reference:
                    apart = zip(big_omega, theta, reference, strict=True)
                    loss = loss + strength * sum((o * (p - r) ** 2).sum() for o, p, r in apart)
                optimizer.zero_grad()
                loss.backward()
                old = [p.detach().clone() for p in theta]
                optimizer.step()
                for o, slope, p, before in zip(omega, g, theta, old, strict=True):
                    o -= slope * (p.detach() - before)
        reference = [p.detach().clone() for p in theta]
        for total, o, p, start in zip(big_omega, omega, reference, began, strict=True):
            total.copy_((total + o / ((p - start) ** 2 + DAMPING)).clamp(min=0))
    return theta, big_omega


class Orders:
    """The order in which a trainer of seed 0 shows the examples."""

    @staticmethod
    def of(epoch, size):
        from growlib.trainer import derive_seed

        return torch.randperm(size, generator=torch.Generator().manual_seed(derive_seed(0, epoch)))


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_it_is_the_path_integral(tasks, strength):
    model = None
    torch.manual_seed(0)
    model = MLP(64, [6], 5)
    trainer = make([SI(strength)], tasks, model=model)
    trainer.optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    trainer.fit(*tasks, epochs=2)
    theta, big_omega = by_hand(tasks, strength, 2)
    for parameter, wanted in zip(model.parameters(), theta, strict=True):
        torch.testing.assert_close(parameter, wanted, rtol=1e-4, atol=1e-6)
    for name, wanted in zip(dict(model.named_parameters()), big_omega, strict=True):
        torch.testing.assert_close(trainer.callbacks[-1].importance[name], wanted, rtol=1e-3, atol=1e-6)
    assert sum(wanted.sum() for wanted in big_omega) > 0.1
    other, _ = by_hand(tasks, strength + 1, 2)
    assert not torch.allclose(other[0], theta[0], rtol=1e-4, atol=1e-6)


def test_it_holds_what_was_learned(tasks):
    found = {}
    for strength in (0.0, 30.0):
        trainer = make([SI(strength)], tasks)
        trainer.fit(*tasks, epochs=8)
        inputs, labels = tasks[0].batch("train", torch.arange(100))
        found[strength] = (trainer.model(inputs, tasks[0].name).argmax(1) == labels).float().mean()
    assert found[30.0] > found[0.0] + 0.1


def test_a_resumed_run_is_the_run(tasks, tmp_path):
    whole, parted = cut_in_two(tmp_path / "file.pt", lambda: [SI(3.0)], tasks, 8 + 3)
    assert same(whole, parted)
    early, parted = cut_in_two(tmp_path / "early.pt", lambda: [SI(3.0)], tasks, 5)  # the path is half known
    assert same(early, parted)
    forgetful = type("SI", (SI,), {"state_dict": lambda self: {"path": self.path, "start": self.start}})
    whole, parted = cut_in_two(tmp_path / "other.pt", lambda: [forgetful(3.0)], tasks, 8 + 3)
    assert not same(whole, parted)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="a finite number from 0 on"):
        SI(-0.1)


def test_what_is_born_in_the_middle_of_a_task_is_held_too(tasks):
    class Born(Callback):
        """A new parameter, as growth makes them."""

        def after_epoch(self, trainer):
            if trainer.epoch == 1:
                trainer.model.heads.register_parameter("scale", new := nn.Parameter(torch.ones(12)))
                trainer.optimizer.param_groups[0]["params"].append(new)

    class Scaled(Heads):
        def forward(self, x, task):
            hidden = self.norm(self.hidden1(x.flatten(1))).relu()
            scale = getattr(self.heads, "scale", None)
            return self.heads[task](hidden if scale is None else hidden * scale)

    si = SI(1.0)
    trainer = make([si, Born()], tasks, model=Scaled([data.name for data in tasks]))
    trainer.fit(tasks[0], epochs=3)
    assert si.importance["heads.scale"].any() and torch.equal(si.anchors["heads.scale"], trainer.model.heads.scale)
    trainer.fit(tasks[1], epochs=1)


@pytest.mark.parametrize("after", [1, None])
def test_a_network_that_was_changed_in_the_middle_of_a_task_is_refused(tasks, after):
    """Whether SI stands before the callback that widens or behind it."""
    grow = Widen(2, every(1, "epoch"))
    torch.manual_seed(0)
    model = MLP(64, [6], 5)
    optimizer = torch.optim.Adam(model.parameters())
    callbacks = [SI(1.0), grow] if after else [grow, SI(1.0)]
    with pytest.raises(ValueError, match=r"SI remembers hidden1.weight of shape \(6, 64\), and it has \(8, 64\)"):
        Trainer(model, optimizer, callbacks, device="cpu").fit(tasks[0], epochs=2)
