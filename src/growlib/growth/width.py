"""widen and prune: change a network in place and keep its function, its optimizer and its schedule alive."""

from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor, nn

from growlib import costs, generators
from growlib.growth.filling import insert_units, remove_units
from growlib.growth.journal import all_or_nothing
from growlib.growth.refusals import number_of_units, refuse_changed, refuse_quantised, refuse_sparse, units_to_prune
from growlib.growth.slots import OptimizerSlots
from growlib.growth.surgery import TensorReplacer, put_back
from growlib.inits import zero_out
from growlib.layers import NORMS, Entry, Hidden, as_written, evaluating, flat, hidden_of, renew_compiled, uncompiled
from growlib.layers.layouts import coarse


@dataclass(frozen=True)
class Change:
    """What a structural change did.

    Args:
        kind: "widen", "prune", "deepen", "task" (a new one) or "grow" (all layers of a task).
        step: The trainer's step, or None outside a trainer.
        layer: The name of the Hidden, or of the task.
        before: Its width before, 0 for a new layer or task.
        after: Its width after.
        units: The new units, as they are numbered after the change, or those that went, as they were before it.
        parameters: Of the whole model, after the change.
        flops: Of the whole model for one example, after the change (None where the input's shape is not known).
        cause: What fired it, with the values.
    """

    kind: str
    step: int | None
    layer: str
    before: int
    after: int
    units: list[int] = field(repr=False)
    parameters: int
    flops: int | None
    cause: str
    previous: dict[str, Tensor] = field(repr=False, compare=False, default_factory=dict)  # tensors that were replaced
    attributes: dict = field(repr=False, compare=False, default_factory=dict)  # of modules, by name, as they were
    optimizer: object = field(repr=False, compare=False, default=None)  # or a list of them
    inserted: tuple[nn.Module, ...] = field(
        repr=False, compare=False, default=()
    )  # which pass on what they read before

    def record(self) -> dict:
        """The change as a plain dict, as History keeps it."""
        return {part.name: getattr(self, part.name) for part in fields(self) if part.compare}


def widen(model, hidden, by: int, init=zero_out, optimizer=None, probe=None) -> Change:
    """Adds units to a hidden layer, in place.

    Args:
        model: A model with a `hidden` property.
        hidden: A Hidden of the model, or its name.
        by: The number of new units.
        init: How they start, see `growlib.inits`.
        optimizer: The one in use, or a list of them: the new tensors take the places of the old ones, with their state.
        probe: What the init looks at, if it looks at anything.

    Returns:
        The Change.

    Raises:
        ValueError: For an unknown, sparse or quantised layer, one that was replaced or parametrized since `growable`
            found it, or a `by` that is not a positive multiple of the layer's unit.
        TypeError: For an optimizer whose state cannot be moved. Whatever is raised, nothing has changed then.
    """
    hidden = _ready(model, hidden, "widen")
    by, before = number_of_units(by, hidden), hidden.width
    with all_or_nothing(as_written(model), optimizer):
        replacer = TensorReplacer(model, optimizer)
        insert_units(replacer, hidden, by, init, probe)
        replacer.write()
        return _change("widen", replacer, hidden, before, list(range(before, before + by)))


def prune(model, hidden, units, optimizer=None) -> Change:
    """Removes units from a hidden layer, in place.

    Args:
        model: A model with a `hidden` property.
        hidden: A Hidden of the model, or its name.
        units: The indices of the units that go, or a boolean mask of all units, True where one goes.
        optimizer: As in `widen`.

    Returns:
        The Change.

    Raises:
        ValueError: For an unknown, sparse or quantised layer, one that was replaced or parametrized since `growable`
            found it, an unknown unit, a part of a group, scores in place of units, or when no unit would stay.
        TypeError: For an optimizer whose state cannot be moved. Whatever is raised, nothing has changed then.
    """
    hidden = _ready(model, hidden, "prune")
    units, before = units_to_prune(units, hidden), hidden.width
    with all_or_nothing(as_written(model), optimizer):
        replacer = TensorReplacer(model, optimizer)
        remove_units(replacer, hidden, units)
        replacer.write()
        return _change("prune", replacer, hidden, before, units)


def check_growth(model: nn.Module, change: Change, batch) -> dict:
    """Looks for the four things that go wrong unseen when a network grows.

    Args:
        model: The model after the change.
        change: What `widen` returned.
        batch: Inputs, or a pair of inputs and labels (which are not used).

    Returns:
        moved: The largest change of an output, relative to the largest output.
        dead: New units that no gradient reaches or leaves: they can never learn.
        twins: Pairs of units (old or new, new) that compute the same and are read alike: they can never part.
        lost: Trainable tensors that the optimizer does not hold (empty without an optimizer).
    """
    inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
    hidden = _find(model, change.layer)
    with evaluating(model), uncompiled():
        with torch.no_grad():
            outputs = _drawn(model, inputs)
            with as_before(model, change):
                old, again = _drawn(model, inputs), _drawn(model, inputs, seed=1)
        noise, drift = _apart(again, old), _apart(outputs, old)
        with torch.inference_mode(False), torch.enable_grad(), _awake(change.inserted):
            inputs = inputs.clone() if inputs.is_inference() else inputs
            dead = _dead_units(hidden, _drawn(model, inputs), change.before)
    return {
        "moved": 0.0 if drift <= noise else drift,
        "dead": dead,
        "twins": _twins(hidden, change.before),
        "lost": lost_tensors(model, change.optimizer),
    }


def _drawn(model: nn.Module, inputs: Tensor, seed: int = 0) -> Tensor:
    """Outputs for which a model that draws noise in eval mode too always draws the same."""
    with generators.kept(inputs.device):
        torch.manual_seed(seed)
        return flat(model(inputs))


def _apart(outputs: Tensor, old: Tensor) -> float:
    return ((outputs - old).abs().max() / old.abs().max().clamp_min(1e-30)).item()


@contextmanager
def as_before(model: nn.Module, change: Change):
    """Puts the tensors that a change replaced back for a while, and passes by the modules that it put in."""
    hooks = [module.register_forward_hook(lambda module, inputs, outputs: inputs[0]) for module in change.inserted]
    now = put_back(model, {**change.previous, **change.attributes})
    try:
        yield model
    finally:
        put_back(model, now)
        for hook in hooks:
            hook.remove()


@contextmanager
def _awake(modules: Iterable[nn.Module]):
    """Opens branches that start at zero for a while: behind weights of zero, which learn at once, all look dead."""
    named = [pair for module in modules for pair in module.named_parameters()]
    asleep = [parameter.detach() for name, parameter in named if name.endswith("weight") and not parameter.any()]
    try:
        for weight in asleep:
            weight.fill_(1.0)
        yield
    finally:
        for weight in asleep:
            weight.zero_()


def lost_tensors(model: nn.Module, optimizer) -> list[str]:
    """Names of the trainable parameters of a model that its optimizer does not hold, and so never moves."""
    if optimizer is None:
        return []
    held = OptimizerSlots(optimizer).held
    return [n for n, parameter in model.named_parameters() if parameter.requires_grad and id(parameter) not in held]


def _dead_units(hidden: Hidden, outputs: Tensor, before: int) -> list[int]:
    entries = [entry for entry in _by_unit(hidden, "producer", "consumer") if entry.tensor.requires_grad]
    directions = torch.arange(1.0, outputs.numel() + 1, device=outputs.device).cos().view_as(outputs)
    weights = [entry.tensor for entry in entries]
    gradients = torch.autograd.grad((outputs * directions).sum(), weights, allow_unused=True) if weights else ()
    alive = torch.zeros(hidden.width, dtype=torch.bool, device=outputs.device)
    for entry, gradient in zip(entries, gradients, strict=True):
        if gradient is not None:
            alive |= hidden.gathered(entry, gradient).ne(0).any(1)
    return [unit for unit in range(before, hidden.width) if not alive[unit]]


@torch.no_grad()
def _twins(hidden: Hidden, before: int) -> list[tuple[int, int]]:
    made = torch.cat([hidden.gathered(entry) for entry in _by_unit(hidden, "producer", "bias", "add", *NORMS)], 1)
    read = torch.cat([hidden.gathered(entry) for entry in _by_unit(hidden, "consumer")], 1)
    pairs = []
    for new in range(before, hidden.width):
        near = (made[:new, :8] == made[new, :8]).all(1).nonzero().flatten()  # of few of which more has to be looked at
        old = near[(made[near] == made[new]).all(1)]
        if len(old):
            shares = nn.functional.normalize(read[torch.cat([old, old.new_tensor([new])])].double(), dim=1)
            alike = (shares[:-1] - shares[-1]).abs().amax(1) < 1e-6
            pairs += [(int(one), new) for one in old[alike]]
    return pairs


def _by_unit(hidden: Hidden, *roles: str) -> list[Entry]:
    """The entries in some roles that have something for every unit of its own."""
    found = [entry for entry in hidden.entries if {entry.role, *entry.also}.intersection(roles)]
    return [entry for entry in found if not coarse(entry.layout, hidden.own)]


def _change(kind: str, replacer: TensorReplacer, hidden: Hidden, before: int, units: list[int]) -> Change:
    after = _find(replacer.model, hidden.name).width
    change = described(replacer.model, kind, hidden.name, before, after, units)
    tensors = {name: old for name, old in replacer.previous.items() if torch.is_tensor(old)}
    attributes = {name: old for name, old in replacer.previous.items() if name not in tensors}
    return replace(change, previous=tensors, attributes=attributes, optimizer=replacer.optimizer)


def described(model: nn.Module, kind: str, layer: str, before: int, after: int, units=None) -> Change:
    """The Change that a model has just gone through; `units` are the last ones unless they are told."""
    renew_compiled(model)
    units = list(range(before, after)) if units is None else units
    return Change(kind, None, layer, before, after, units, costs.parameters(model), costs.flops(model), "")


def _ready(model: nn.Module, hidden: Hidden | str, deed: str) -> Hidden:
    """The Hidden of a model, if it can change as it is."""
    refuse_quantised(model, deed)
    hidden = _find(model, hidden)
    refuse_sparse(hidden, deed)
    refuse_changed(model, hidden, deed)
    return hidden


def _listed(tensors):
    return tensors if isinstance(tensors, (list, tuple)) else [tensors]


def _find(model: nn.Module, hidden: Hidden | str) -> Hidden:
    name = hidden if isinstance(hidden, str) else hidden.name
    found = {h.name: h for h in hidden_of(model)}
    if name not in found:
        raise ValueError(f"no hidden layer {name!r}: the model has {', '.join(map(repr, found)) or 'none'}")
    return found[name]
