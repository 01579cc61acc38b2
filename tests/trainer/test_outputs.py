"""Models that put out more than logits: the trainer judges them by the tensor that is meant."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot
from torch.optim import SGD

from growlib import MLP, Callback, Trainer, load
from growlib.trainer.outputs import count_correct, logits_in


class Wrapped(nn.Module):
    """An MLP whose logits come in company."""

    def __init__(self, wrap):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.wrap = MLP(64, [6], 10), wrap

    def forward(self, images):
        return self.wrap(self.inner(images))


COMPANIES = {
    "tensor": (lambda logits: logits, lambda outputs: outputs),
    "tuple": (lambda logits: (logits, None), lambda outputs: outputs[0]),
    "dict": (lambda logits: {"hidden": logits.new_zeros(1), "logits": logits}, lambda outputs: outputs["logits"]),
    "segmentation": (lambda logits: {"out": logits, "aux": -logits}, lambda outputs: outputs["out"]),
}


@pytest.mark.parametrize("name", COMPANIES)
def test_training_is_the_same_whatever_the_logits_come_in(name):
    wrap, unwrap = COMPANIES[name]
    data, runs = load("digits"), []
    for model, loss in (
        (Wrapped(wrap), lambda o, y: cross_entropy(unwrap(o), y)),
        (Wrapped(lambda x: x), cross_entropy),
    ):
        trainer = Trainer(model, SGD(model.parameters(), lr=0.1), loss=loss, device="cpu")
        history = trainer.fit(data, epochs=2)
        runs.append((history.losses, history.column("val_accuracy"), trainer.predict(data.val.images).sum().item()))
    assert runs[0] == runs[1]


def test_what_is_counted():
    labels, logits = torch.tensor([0, 1, 1]), torch.eye(2)[[0, 1, 0]]
    assert count_correct((logits, "rest"), labels) == count_correct(logits, labels) == 2
    with pytest.raises(TypeError, match="without a tensor"):
        logits_in({"text": "no"})


def test_a_quantity_is_no_class():
    """Labels that are numbers, and a loss that takes them: nothing is said of classes."""
    from dataclasses import replace

    from growlib import Split

    data = load("digits")
    splits = {s: Split(getattr(data, s).images, getattr(data, s).labels.float()) for s in ("train", "val", "test")}
    data, model = replace(data, **splits), MLP(64, [6], 1)
    trainer = Trainer(
        model, SGD(model.parameters(), lr=1e-3), loss=lambda out, y: ((out[:, 0] - y) ** 2).mean(), device="cpu"
    )
    losses = trainer.fit(data, epochs=2).losses
    assert losses[-1] < losses[0]


def test_labels_may_be_probabilities_and_examples_fewer():
    """As a callback makes them that mixes examples before the forward pass, or leaves some out."""

    class Soft(Callback):
        def before_forward(self, trainer):
            trainer.labels = one_hot(trainer.labels, 10).float()

    class Half(Callback):
        def before_forward(self, trainer):
            trainer.inputs, trainer.labels = trainer.inputs[::2].repeat(2, 1, 1, 1), trainer.labels[::2].repeat(2)

    class Few(Callback):
        def before_forward(self, trainer):
            trainer.inputs, trainer.labels = trainer.inputs[::2], trainer.labels[::2]

    data, runs = load("digits"), []
    for callbacks in ([], [Soft()], [Half()], [Few()]):
        torch.manual_seed(0)
        model = MLP(64, [6], 10)
        history = Trainer(model, SGD(model.parameters(), lr=0.1), callbacks, device="cpu").fit(data, epochs=2)
        runs.append([record["train_accuracy"] for record in history.records])
    assert runs[0] == runs[1] != runs[2] == pytest.approx(runs[3], abs=0.02)
