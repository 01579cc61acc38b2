"""Optimizers: several of them as one, such as Muon for matrices and AdamW for the rest; and both in checkpoints."""

from collections import ChainMap

import torch
from torch import nn
from torch.optim import Optimizer

from growlib.growth.slots import optimizers_of


class States(ChainMap):
    """What several optimizers remember, by parameter. torch's dicts have an answer to every key: the one is asked that
    holds the parameter."""

    def __getitem__(self, parameter):
        return next((kept for kept in self.maps if parameter in kept), self.maps[0])[parameter]


class Optimizers(Optimizer):
    """Several optimizers, each over parameters of its own, that step together: what a Trainer makes of a list.

    `param_groups` are those of all, in their order: the rate that History logs is that of the first group of the first
    optimizer, and a schedule moves the rates of all. `state` is a view of theirs. A checkpoint keeps each by itself.

    Args:
        optimizers: Two or more.
    """

    def __init__(self, optimizers: list[Optimizer]):
        if not optimizers:
            raise ValueError("a list of optimizers holds one at least")
        groups = [{id(p) for group in one.param_groups for p in group["params"]} for one in optimizers]
        if len(set().union(*groups)) < sum(map(len, groups)):
            raise ValueError("two of the optimizers hold the same parameter: each must have its own")
        self.optimizers = list(optimizers)  # and nothing of its own: groups, state and hooks are theirs

    @property
    def param_groups(self) -> list[dict]:
        """The groups of all, the dicts themselves."""
        return [group for one in self.optimizers for group in one.param_groups]

    @property
    def state(self) -> States:
        """What all of them remember, by parameter."""
        return States(*(one.state for one in self.optimizers))

    @property
    def defaults(self) -> dict:
        """Those of the first."""
        return self.optimizers[0].defaults

    def step(self, closure=None):
        """A step of each."""
        if closure is not None:
            raise ValueError("a closure is for one optimizer: call loss.backward() before the step of several")
        for one in self.optimizers:
            one.step()

    def zero_grad(self, set_to_none: bool = True):
        """Forgets the gradients of all parameters."""
        for one in self.optimizers:
            one.zero_grad(set_to_none)

    def add_param_group(self, group: dict):
        """Adds a group to the last of them."""
        self.optimizers[-1].add_param_group(group)

    def state_dict(self) -> dict:
        """The state of each."""
        return {"optimizers": [one.state_dict() for one in self.optimizers]}

    def load_state_dict(self, state: dict):
        """Takes on the state of each."""
        for one, saved in zip(self.optimizers, state["optimizers"], strict=True):
            one.load_state_dict(saved)

    def __getstate__(self) -> dict:
        return dict(vars(self))

    def __setstate__(self, state: dict):
        vars(self).update(state)

    def __repr__(self) -> str:
        return f"Optimizers({', '.join(type(one).__name__ for one in self.optimizers)})"


def as_one(optimizer) -> Optimizer:
    """An optimizer as it is, and a list of them as Optimizers."""
    return Optimizers(list(optimizer)) if isinstance(optimizer, (list, tuple)) else optimizer


def describe_optimizer(optimizer: Optimizer, model: nn.Module) -> dict:
    """What a checkpoint keeps of an optimizer: its class, the names of the parameters of its groups, its state; and the
    same of those inside of a wrapper."""
    if isinstance(optimizer, Optimizers):
        return {"class": "Optimizers", "parts": [describe_optimizer(one, model) for one in optimizer.optimizers]}
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [[named[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]
    inner = [describe_optimizer(one, model) for one in _inside(optimizer)]
    return {"class": _own_name(optimizer), "groups": groups, "state": optimizer.state_dict(), "inner": inner}


def fill_groups(optimizer: Optimizer, model: nn.Module, saved: dict):
    """Gives an optimizer the model's parameters as the file groups them, and the state they had."""
    parts = len(optimizer.optimizers) if isinstance(optimizer, Optimizers) else 0
    if (not parts and _own_name(optimizer) != saved["class"]) or parts != len(saved.get("parts", ())):
        raise ValueError(f"the checkpoint holds {_spelled(saved)}, and the optimizer is {_own_name(optimizer)}")
    if parts:
        for one, part in zip(optimizer.optimizers, saved["parts"], strict=True):
            fill_groups(one, model, part)
        return
    named = dict(model.named_parameters())
    optimizer.state.clear()
    for group, names in zip(optimizer.param_groups, saved["groups"], strict=True):
        group["params"] = [named[name] for name in names]
    inside = [(one, one.param_groups[0] is optimizer.param_groups[0]) for one in _inside(optimizer)]
    optimizer.load_state_dict(saved["state"])
    for (one, shares), part in zip(inside, saved["inner"], strict=True):
        fill_groups(one, model, part)
        if shares:  # torch has made new groups for each
            one.param_groups = optimizer.param_groups


def _inside(optimizer) -> list:
    """The optimizers that one wraps."""
    return [one for one in optimizers_of(optimizer) if one is not optimizer]


def new_optimizer(model: nn.Module, saved: dict) -> Optimizer:
    """An optimizer of torch.optim of the class and with the groups that a checkpoint names, or several."""
    if saved["class"] == "Optimizers":
        return Optimizers([new_optimizer(model, part) for part in saved["parts"]])
    kind = getattr(torch.optim, saved["class"], None)
    if not (isinstance(kind, type) and issubclass(kind, Optimizer)):
        raise ValueError(
            f"the checkpoint was written with the optimizer {saved['class']}, none of torch.optim, and no file "
            "can rebuild it: load the model alone, load_model(path), and train it with a new optimizer"
        )
    named = dict(model.named_parameters())
    groups = [{"params": [named[name] for name in names]} for names in saved["groups"]]
    return kind(groups, lr=1e-3)  # the rate, like all settings, is overwritten by `restore`


def _spelled(saved: dict) -> str:
    return f"[{', '.join(map(_spelled, saved['parts']))}]" if "parts" in saved else saved["class"]


def _own_name(optimizer: Optimizer) -> str:
    """What a checkpoint calls an optimizer: one of torch.optim by its name, any other by its full name."""
    if isinstance(optimizer, Optimizers):
        return f"[{', '.join(map(_own_name, optimizer.optimizers))}]"
    kind = type(optimizer)
    known = getattr(torch.optim, kind.__name__, None) is kind
    return kind.__name__ if known else f"{kind.__module__}.{kind.__qualname__}"
