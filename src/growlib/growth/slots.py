"""What optimizers know of parameters, wherever they keep it, and how it follows when parameters are replaced."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from growlib.growth.tensors import collapsed_axis, like_in_memory, take_or_fill

NEAR = 0.5  # an average of weights is nearer to them than this share of their length
GONE = object()


@dataclass
class Step:
    """How a tensor changes along one axis.

    Args:
        axis: Along which its size changes.
        origin: For every index after the change, the one before it, or -1.
        ancestors: The same, with the units that new ones copy.
        before: The tensor.
        after: What takes its place.
    """

    axis: int
    origin: Tensor
    ancestors: Tensor
    before: Tensor
    after: Tensor


@dataclass
class Start:
    """What an optimizer keeps for a parameter before the first step.

    Args:
        parameter: As it is after a change.
        group: That it is in.
        averages: The names of what holds averages of weights.
    """

    parameter: Tensor
    group: dict = field(default_factory=dict)
    averages: set = field(default_factory=set)

    def of(self, key) -> float | Tensor:
        """The value of all entries, or those of the parameter's shape."""
        if key in self.averages:
            return self.parameter.detach()
        return {
            "step_size": self.group.get("lr", 0.0),  # Rprop
            "sum": self.group.get("initial_accumulator_value", 0.0),  # Adagrad
        }.get(key, 0.0)


class OptimizerSlots:
    """The places in which an optimizer, the optimizers of a list, or those inside of a wrapper keep parameters and
    what belongs to them: groups, dicts whose keys are parameters, lists beside the parameters of a group.

    Args:
        optimizer: In use, or None.

    Raises:
        TypeError: For one that holds tensors of which nobody can tell which parameter they belong to.
    """

    def __init__(self, optimizer):
        self.optimizers = optimizers_of(optimizer)
        self.groups = list({id(group): group for one in self.optimizers for group in one.param_groups}.values())
        self.held = {id(parameter): parameter for group in self.groups for parameter in group["params"]}
        self.keyed, self.beside, self.writes, seen = [], [], [], set()
        for one in self.optimizers:
            if isinstance(one, torch.optim.LBFGS):
                raise TypeError(
                    "LBFGS cannot follow a change of structure: its history holds all weights in one flat vector. "
                    "Change the structure with another optimizer, then start a new LBFGS"
                )
            self._look({k: v for k, v in vars(one).items() if k != "param_groups"}, type(one).__name__, seen)
        for number, group in enumerate(self.groups):
            rest = {key: value for key, value in group.items() if key not in ("params", "param_names")}
            self._look(rest, f"group {number}", seen, group)

    def _look(self, container, owner: str, seen: set, group: dict | None = None):
        """Finds what belongs to parameters in a dict, list or tuple, perhaps in or beside a group."""
        if isinstance(container, dict) and any(id(key) in self.held for key in container):
            self.keyed.append(container)
        by_group = not isinstance(container, dict) and len(container) == len(self.groups)
        for key, value in container.items() if isinstance(container, dict) else enumerate(container):
            if torch.is_tensor(key):
                self._check(key, value, "state", owner)
            elif isinstance(value, (dict, list, tuple)):
                if id(value) in seen:
                    continue
                seen.add(id(value))
                near = self.groups[key] if by_group else group
                if isinstance(value, list) and (owners := self._owners(value, near)):
                    self.beside.append((key, value, owners))
                else:
                    self._look(value, owner, seen, near)
            elif torch.is_tensor(value) and value.ndim and id(value) not in self.held:
                raise _unmovable(owner, key, value, "and nothing tells which parameter it belongs to")

    def _owners(self, values: list, near: dict | None) -> list | None:
        """The parameters of a group, or of all, if a list with tensors lies beside them."""
        if not any(torch.is_tensor(value) and value.ndim for value in values):
            return None
        several = [near["params"]] if near else [*(group["params"] for group in self.groups), [*self.held.values()]]
        fitting = [params for params in several if len(params) == len(values) and all(map(_fits, params, values))]
        alone = fitting and all([*map(id, params)] == [*map(id, fitting[0])] for params in fitting)
        return fitting[0] if alone else None

    def _check(self, parameter: Tensor, value, key, owner: str):
        """Raises a TypeError for what is kept for a parameter and cannot follow it."""
        if isinstance(value, dict):
            for own, part in value.items():
                self._check(parameter, part, own, owner)
        elif torch.is_tensor(value):
            factor = collapsed_axis(key, parameter) is not None and value.ndim == parameter.ndim
            if value.ndim and value.shape != parameter.shape and not factor:
                raise _unmovable(owner, key, value, f"not that of its parameter, {tuple(parameter.shape)}")
        elif isinstance(value, (list, tuple)):
            for part in value:
                if torch.is_tensor(part) and part.ndim:
                    raise _unmovable(owner, key, part, "in a list, whose order only the optimizer knows")

    # --------------------------------------------------------------------------------------------- replacing

    def plan(self, replaced: list[tuple[nn.Parameter, nn.Parameter, list[Step]]]):
        """Computes what follows when parameters take the places of others; `write` puts it there.

        Args:
            replaced: Old, new, and the steps from one to the other.
        """
        averages = self._averages([old for old, _, _ in replaced])
        for old, new, steps in replaced:
            group = self._group_of(old)
            start = Start(new, group, averages)
            for group in self.groups:
                places = [place for place, parameter in enumerate(group["params"]) if parameter is old]
                self.writes += [(group["params"], place, new) for place in places]
            for key, values, place in self._beside(old):
                value = new if values[place] is old else _followed(values[place], key, steps, start)
                self.writes.append((values, place, value))
            for container in self.keyed:
                if old in container:
                    self.writes.append((container, old, GONE))
                    self.writes.append((container, new, _followed(container[old], None, steps, start)))

    def write(self):
        """Puts everything in its place."""
        for container, key, value in self.writes:
            if value is GONE:
                del container[key]
            else:
                container[key] = value

    def _group_of(self, parameter: Tensor) -> dict:
        return next((group for group in self.groups if any(one is parameter for one in group["params"])), {})

    def _beside(self, parameter: Tensor):
        """Where lists hold something for a parameter: the name of the list, the list, and the place in it."""
        for key, values, owners in self.beside:
            yield from ((key, values, place) for place, one in enumerate(owners) if one is parameter)

    def _averages(self, parameters: list[nn.Parameter]) -> set:
        """The names of what holds averages of weights: they lie near them, as nothing does that is made of gradients.

        Of torch's own optimizers, which are known by name, only ASGD keeps one.
        """
        if all(type(one).__module__.startswith("torch.optim.") for one in self.optimizers):
            return {"ax"}
        sums = {}
        for parameter in parameters:
            kept = [(key, values[place]) for key, values, place in self._beside(parameter)]
            kept += [leaf for container in self.keyed for leaf in _leaves(container.get(parameter), None)]
            weights = parameter.detach().double()
            for key, value in kept:
                if torch.is_tensor(value) and value.shape == parameter.shape:
                    far, length = sums.get(key, (0.0, 0.0))
                    sums[key] = far + (value - weights).square().sum().item(), length + weights.square().sum().item()
        return {"ax"} | {key for key, (far, length) in sums.items() if far < NEAR**2 * length}

    # --------------------------------------------------------------------------------------- joining and leaving

    def add(self, parameter: nn.Parameter, name: str, group: dict):
        """Lets a parameter join a group, in place."""
        for key, _, owners in self.beside:
            if any(owner is one for owner in owners for one in group["params"]):
                raise TypeError(
                    f"an optimizer keeps a list, {key!r}, beside its parameters, and nothing tells what it would hold "
                    "for a new one. Change the structure without `optimizer=`, then start a new optimizer"
                )
        if "param_names" in group:
            group["param_names"].append(name)
        group["params"].append(parameter)
        for one in self.optimizers:
            if isinstance(one, torch.optim.Adagrad) and any(held is group for held in one.param_groups):
                alone = {key: value for key, value in group.items() if key != "param_names"}
                one.state.update(type(one)([{**alone, "params": [parameter]}]).state)  # which it makes when it is built

    def remove(self, gone: set[int]):
        """Takes the parameters of these ids out, in place, and forgets what is kept for them."""
        beside = [(values, owners) for _, values, owners in self.beside]
        beside += [(group["param_names"], group["params"]) for group in self.groups if "param_names" in group]
        for values, owners in beside:
            values[:] = [value for value, owner in zip(values, owners, strict=True) if id(owner) not in gone]
        for group in self.groups:
            group["params"][:] = [parameter for parameter in group["params"] if id(parameter) not in gone]
        for container in self.keyed:
            for parameter in [parameter for parameter in container if id(parameter) in gone]:
                del container[parameter]

    def forget(self, parameter: nn.Parameter, where: Tensor):
        """Starts anew what is kept for the entries of a parameter that are True in `where`."""
        if id(parameter) not in self.held:
            return
        start = Start(parameter, self._group_of(parameter), self._averages([parameter]))
        for container in self.keyed:
            if parameter in container:
                container[parameter] = _restarted(container[parameter], None, where, start)
        for key, values, place in self._beside(parameter):
            if values[place] is not parameter:
                values[place] = _restarted(values[place], key, where, start)


def optimizers_of(optimizer) -> list:
    """All that hold groups of parameters: an optimizer, those of a list, and those inside of a wrapper."""
    found, waiting = {}, [optimizer]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, (list, tuple)):
            waiting += one
        elif one is not None and id(one) not in found:
            found[id(one)] = one
            waiting += [part for part in getattr(one, "__dict__", {}).values() if _holds_groups(part)]
    holding = [one for one in found.values() if hasattr(one, "param_groups")]
    if found and not holding:
        raise TypeError(f"optimizer= takes an optimizer or a list of them, and got a {type(optimizer).__name__}")
    return holding


def _holds_groups(part) -> bool:
    if isinstance(part, (list, tuple)):
        return bool(part) and all(map(_holds_groups, part))
    return hasattr(part, "param_groups") and not isinstance(part, type)


def _followed(value, key, steps: list[Step], start: Start):
    """What was kept for a parameter, after the steps that the parameter went through."""
    if isinstance(value, dict):
        return {own: _followed(part, own, steps, start) for own, part in value.items()}
    if not torch.is_tensor(value) or value.ndim == 0:
        return value
    for step in steps:
        if key in start.averages:
            value = _averaged(value, step)
        elif step.axis != collapsed_axis(key, step.before):
            value = take_or_fill(value, step.axis, step.origin, start.of(key))
    return like_in_memory(value, start.parameter)


def _averaged(value: Tensor, step: Step) -> Tensor:
    """An average of weights goes through what they went through: copied where they were, divided as they were."""
    weights = take_or_fill(step.before, step.axis, step.ancestors, step.after)
    average = take_or_fill(value, step.axis, step.ancestors, step.after)
    return torch.where(weights == step.after, average, average * (step.after / weights).nan_to_num(1.0, 1.0, 1.0))


def _restarted(value, key, where: Tensor, start: Start):
    if isinstance(value, dict):
        return {own: _restarted(part, own, where, start) for own, part in value.items()}
    if not torch.is_tensor(value) or value.shape != where.shape:
        return value
    return torch.where(where, torch.as_tensor(start.of(key)).to(value), value)


def _leaves(value, key):
    if isinstance(value, dict):
        for own, part in value.items():
            yield from _leaves(part, own)
    else:
        yield key, value


def _fits(parameter: Tensor, value) -> bool:
    return not torch.is_tensor(value) or value.ndim == 0 or value.shape == parameter.shape


def _unmovable(owner: str, key, value: Tensor, why: str) -> TypeError:
    return TypeError(
        f"cannot move the state {key!r} of {owner}: its shape {tuple(value.shape)} is {why}. "
        "Change the structure without `optimizer=`, then start a new optimizer"
    )
