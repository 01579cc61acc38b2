"""Training in bfloat16: the autocast that the trainer turns on on a device, really done, on the CPU."""

import pytest
import torch
from torch.optim import AdamW

from growlib import (
    AGEM,
    EWC,
    GEM,
    MLP,
    SI,
    Callback,
    Certify,
    ConvNet,
    Deepen,
    Diagnostics,
    LwF,
    NeuronGenesis,
    Prune,
    Replay,
    ResNet,
    Rewire,
    TaskNet,
    Trainer,
    Widen,
    every,
    gradmax,
    hebbian,
    largest_gradient,
    load,
    new_task,
    north,
    orthogonal,
    smallest_magnitude,
    sparsify,
    split,
    split_by_class,
    zero_out,
)

MODELS = {
    "mlp": lambda: MLP(64, [16, 12], 10),
    "convnet": lambda: ConvNet((1, 8, 8), [4], [12], 10),
    "resnet": lambda: ResNet((1, 8, 8), [4], [1], 10),
}


@pytest.fixture(autouse=True)
def autocast_of_a_device(monkeypatch):
    """Makes the CPU a device that computes in bfloat16; `autocast("cpu", enabled=False)` stays what it is."""
    real = torch.autocast

    def autocast(device, dtype=None, enabled=True, **settings):
        return real(device, dtype, enabled=enabled or dtype is torch.bfloat16, **settings)

    monkeypatch.setattr(torch, "autocast", autocast)


@pytest.fixture(scope="module")
def digits():
    return load("digits")


class Types(Callback):
    """Notes of which types the logits are."""

    def __init__(self):
        self.seen = set()

    def after_loss(self, trainer):
        self.seen.add(trainer.logits.dtype)


def trained(digits, *callbacks, model=None, epochs=1, optimizer=AdamW, **settings):
    torch.manual_seed(0)
    model, types = model or MODELS["mlp"](), Types()
    optimizer = optimizer(model.parameters(), lr=0.01)
    trainer = Trainer(model, optimizer, [*callbacks, types], device="cpu", batch_size=128, **settings)
    trainer.fit(*(digits if isinstance(digits, list) else [digits]), epochs=epochs)
    assert types.seen == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    return trainer


@pytest.mark.parametrize("name", MODELS)
def test_networks_learn_and_answer_in_float32(name, digits):
    trainer = trained(digits, model=MODELS[name](), accumulate=2, clip=1.0)
    losses = trainer.history.losses
    assert losses[-1] < losses[0] and trainer.predict(digits.val.images[:5]).dtype == torch.float32
    assert trainer.evaluate(digits)["loss"] == pytest.approx(trainer.history.records[-1]["val_loss"])


@pytest.mark.parametrize("init", [zero_out, split, orthogonal, north, gradmax])
def test_networks_grow_and_the_function_is_kept(init, digits):
    callbacks = [Widen(by=2, init=init, when=every(3, "steps")), Prune(by=1, when=every(5, "steps"))]
    trainer = trained(digits, *callbacks, Deepen(when=every(1, "epoch")), Diagnostics(when=every(4, "steps")))
    assert {change["kind"] for change in trainer.history.changes} == {"widen", "prune", "deepen"}


@pytest.mark.parametrize("regrow", [largest_gradient, hebbian])
@pytest.mark.parametrize("backend", ["masked", "csr"])
def test_connections_move(backend, regrow, digits):
    torch.manual_seed(0)
    model = sparsify(MLP(64, [16, 12], 10), 0.3, layers=["hidden1", "hidden2"], backend=backend)
    trained(digits, Rewire(smallest_magnitude, regrow, every(2, "steps")), model=model)


METHODS = [EWC(10.0, examples=16), SI(1.0), Replay(20), GEM(20), AGEM(20), LwF(1.0)]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_tasks_are_learned_in_sequence(method, digits):
    tasks = split_by_class(digits, 5)[:2]
    torch.manual_seed(0)
    model = TaskNet(tasks[0].shape, tasks[0].name, 2, channels=[3], hidden=[6])
    model.grow(tasks[1].name, [2], [4], 2)
    trained(tasks, method, model=model)


def test_old_tasks_answer_as_they_did(digits):
    tasks = split_by_class(digits, 5)[:2]
    torch.manual_seed(0)
    model, certify = TaskNet(tasks[0].shape, tasks[0].name, 2, hidden=[6]), Certify(*tasks)
    trained(tasks, NeuronGenesis(hidden=4, when=new_task()), certify, model=model)
    assert [found["logits_changed"] for found in certify.certificates] == [0]
