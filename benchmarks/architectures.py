"""Every classification architecture of torchvision, with random weights: what `growable` finds in it, and whether it
keeps its function when all widths that were found are widened, one after the other, with zero_out and with split.

    python benchmarks/architectures.py            all of them (hours on two cores; what is recorded is skipped)
    python benchmarks/architectures.py resnet18   some

Images are as small as an architecture takes them. The page book/architectures.md shows the records.
"""

import copy
import gc
import math
import sys
import time

import torch
import torchvision
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision.models import get_model, get_model_weights, list_models

from growlib import costs, growable, lost_tensors, results, widen
from growlib.inits import split, zero_out

SIDES = {"alexnet": 64, "inception_v3": 299, "maxvit_t": 224, "vit_h_14": 28, "vit_b_16": 32, "vit_l_16": 32}
SMALLEST = 8  # units that are added at least


def build(name: str, side: int) -> nn.Module:
    settings = {"image_size": side} if name.startswith("vit") else {}
    if name in ("googlenet", "inception_v3"):
        settings["init_weights"] = False  # torch's own, which take minutes less
    return get_model(name, weights=None, **settings)


@torch.no_grad()
def shake(model: nn.Module, images: torch.Tensor):
    """Random scales and statistics, of the size of what each norm meets: nothing hides what moves, nor blows it up."""

    def meets(norm, inputs):
        size = inputs[0].square().mean()
        norm.running_var.uniform_(0.5, 1.5).mul_(size)
        norm.running_mean.normal_().mul_(size.sqrt() / 4)

    for name, parameter in model.named_parameters():
        if name.endswith("layer_scale") or (parameter.ndim == 1 and name.endswith("weight")):
            parameter.uniform_(0.5, 1.5)
        elif not parameter.any():  # biases, and the head of a vision transformer
            parameter.uniform_(-0.1, 0.1)
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    handles = [norm.register_forward_pre_hook(meets) for norm in norms]
    model.eval()(images)
    for handle in handles:
        handle.remove()


def smallest_step(hidden) -> int:
    return math.ceil(SMALLEST / hidden.unit) * hidden.unit


@torch.no_grad()
def moved(model: nn.Module, images: torch.Tensor, init, optimizer=None) -> float:
    """Widens every Hidden, one after the other; how far an output is moved in the end, relative to the largest."""
    before = model.eval()(images)
    for hidden in model._hidden:
        widen(model, hidden, smallest_step(hidden), init=init, optimizer=optimizer)
    difference = ((model(images) - before).abs().max() / before.abs().max()).item()
    if not math.isfinite(difference):
        raise ArithmeticError(f"outputs of size {before.abs().max()} cannot be compared")
    return difference


def state_intact(model: nn.Module, optimizer, before: dict) -> bool:
    """Whether every parameter has its state, with the old entries and zeros for the new ones."""
    after = sums(optimizer)
    shapes = all(s["momentum_buffer"].shape == parameter.shape for parameter, s in optimizer.state.items())
    near = all(math.isclose(after[key], before[key], rel_tol=1e-9) for key in before)
    return shapes and near and not lost_tensors(model, optimizer)


def sums(optimizer) -> dict:
    buffers = [state["momentum_buffer"] for state in optimizer.state.values()]
    squares = sum(buffer.double().square().sum().item() for buffer in buffers)
    return {"buffers": len(buffers), "sum": sum(b.double().sum().item() for b in buffers), "squares": squares}


def measure(seed: int, name: str, side: int) -> tuple[dict, list]:
    torch.manual_seed(seed)
    images = torch.randn(2, 3, side, side)
    model = build(name, side)
    shake(model, images)
    size, start = costs.parameters(model), time.perf_counter()
    growable(model, images)
    del model.input_shape  # no need to count FLOPs after every change
    found = {
        "parameters": size,
        "found": len(model._hidden),
        "refused": len(model.refused),
        "seconds_to_find": time.perf_counter() - start,
    }
    reasons = [{"layer": layer, "reason": reason} for layer, reason in model.refused.items()]
    if not model._hidden:
        return found, reasons
    for dtype in (torch.float32, torch.float64):
        for init in (zero_out, split):
            last = dtype is torch.float64 and init is split
            grown = (model if last else copy.deepcopy(model)).to(dtype)
            key = f"moved_{init.__name__}_{str(dtype).removeprefix('torch.')}"
            optimizer = None
            if dtype is torch.float32 and init is zero_out:
                optimizer = torch.optim.SGD(grown.parameters(), lr=1e-3, momentum=0.9)
                for parameter in grown.parameters():
                    optimizer.state[parameter]["momentum_buffer"] = torch.randn_like(parameter) * 1e-3
                before = sums(optimizer)
            found[key] = moved(grown, images.to(dtype), init, optimizer)
            if optimizer is not None:
                found["grown_parameters"] = costs.parameters(grown)
                found["state_intact"] = int(state_intact(grown, optimizer, before))
                found["step_finite"] = int(one_step(grown, images, optimizer))
            del grown, optimizer
            gc.collect()
    return found, reasons


def one_step(model: nn.Module, images: torch.Tensor, optimizer) -> bool:
    """Whether a training step leaves everything finite."""
    outputs = model.train()(images)
    logits = outputs if torch.is_tensor(outputs) else outputs.logits
    cross_entropy(logits, torch.tensor([0, 1])).backward()
    optimizer.step()
    with torch.no_grad():
        return all(torch.isfinite(parameter).all().item() for parameter in model.parameters())


def summary(found: list[dict]) -> dict:
    """What the text of the book says about all of them together."""
    metrics = [record["metrics"] for record in found]
    grown = [m for m in metrics if m["found"]]
    worst = {
        f"worst_{dtype}": max(m[f"moved_{init}_{dtype}"] for m in grown for init in ("zero_out", "split"))
        for dtype in ("float32", "float64")
    }
    return {
        "architectures": len(metrics),
        "with_hidden": len(grown),
        "found": sum(m["found"] for m in metrics),
        "refused": sum(m["refused"] for m in metrics),
        "states_intact": sum(m["state_intact"] for m in grown),
        "steps_finite": sum(m["step_finite"] for m in grown),
        **worst,
    }


def size(name: str) -> int:
    return get_model_weights(name).DEFAULT.meta["num_params"]


if __name__ == "__main__":
    every = sorted(list_models(module=torchvision.models), key=size)  # the large ones last
    noise = {"images": "generated by torch.randn"}
    fixed = {"chapter": "architectures", "profile": "full", "device": "cpu", "data": noise}
    arms = {name: {"name": name, "side": SIDES.get(name, 32)} for name in sys.argv[1:] or every}
    found = results.grid(measure, arms, [0], **fixed)
    if len(found) == len(every):
        start = sum(record["wall_time_s"] for record in found)
        results.record(run="all", seed=0, parameters={}, metrics=summary(found), history=[], wall_time_s=start, **fixed)
