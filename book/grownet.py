"""Writes book/_static/grownet.js: the grown network of chapter 3 at every stage of its growth, for book/draw.md.

    python book/grownet.py        (MNIST; the best recipe of the chapter, seed 0; under a minute)

Weights are rounded to eight bits with one scale a matrix, and every stage is tested as rounded.
"""

import base64
import json
from pathlib import Path

import torch
from torch.optim.lr_scheduler import OneCycleLR

from growlib import MLP, Callback, LRSchedule, Trainer, Widen, every, load, narrower_than, orthogonal

EPOCHS, BATCH, SEED = 6, 64, 0  # the sixth epoch trains the last eight units
TARGET = Path(__file__).parent / "_static" / "grownet.js"


class Stages(Callback):
    """Keeps the network after every epoch, before it grows again."""

    def __init__(self):
        self.kept = []

    def after_epoch(self, trainer):
        before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
        packed = {"hidden": rounded(trainer.model, "hidden1"), "output": rounded(trainer.model, "output")}
        accuracy = trainer.evaluate(trainer.data, "test")["accuracy"]  # of the rounded weights
        trainer.model.load_state_dict(before)
        units = trainer.model.hidden[0].width
        self.kept.append({"epoch": trainer.epoch, "units": units, "test_accuracy": accuracy, **packed})


def rounded(model, name: str) -> dict:
    """Rounds a layer's weights in place to 255 levels, and packs them."""
    weight, bias = model.get_parameter(f"{name}.weight"), model.get_parameter(f"{name}.bias")
    scale = weight.abs().max().item() / 127
    levels = (weight / scale).round().to(torch.int8)
    with torch.no_grad():
        weight.copy_(levels * scale)
    text = base64.b64encode(levels.numpy().tobytes()).decode()
    return {"weight": text, "scale": scale, "bias": [round(value, 6) for value in bias.tolist()]}


def main():
    data = load("mnist", seed=SEED)
    torch.manual_seed(SEED)
    model = MLP(784, [64], 10)
    steps = EPOCHS * -(-len(data.train) // BATCH) + 1
    callbacks = [
        stages := Stages(),
        Widen(by=8, when=every(1, "epoch") & narrower_than(104), init=orthogonal),
        LRSchedule(OneCycleLR, per="step", max_lr=5e-3, total_steps=steps),
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    Trainer(model, optimizer, callbacks, batch_size=BATCH, device="cpu", seed=SEED).fit(data, epochs=EPOCHS)
    content = {"mean": data.mean.item(), "std": data.std.item(), "source": data.provenance, "stages": stages.kept}
    TARGET.write_text(f"window.GROWNET = {json.dumps(content)};\n")
    print(f"{TARGET.name}: {TARGET.stat().st_size / 1000:.0f} kB", [stage["test_accuracy"] for stage in stages.kept])


if __name__ == "__main__":
    main()
