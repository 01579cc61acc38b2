"""widen and prune: change a network in place and keep its function, its optimizer and its schedule alive."""

from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from growlib import costs
from growlib.growth.surgery import Surgeon, places_of, tensors_by_unit
from growlib.inits import mean_row, zero_out
from growlib.layers import Hidden, Sparse, as_written, evaluating, hidden_of, renew_compiled, uncompiled


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
    optimizer: Optimizer | None = field(repr=False, compare=False, default=None)
    inserted: tuple[nn.Module, ...] = field(
        repr=False, compare=False, default=()
    )  # which pass on what they read before

    def record(self) -> dict:
        """The change as a plain dict, as History keeps it."""
        return {part.name: getattr(self, part.name) for part in fields(self) if part.compare}


def widen(model, hidden, by: int, init=zero_out, optimizer: Optimizer | None = None, probe=None) -> Change:
    """Adds units to a hidden layer, in place.

    Args:
        model: A model with a `hidden` property.
        hidden: A Hidden of the model, or its name.
        by: The number of new units.
        init: How they start, see `growlib.inits`.
        optimizer: The optimizer in use: the new tensors take the places of the old ones, with their state.
        probe: What the init looks at, if it looks at anything.

    Returns:
        The Change.

    Raises:
        ValueError: For an unknown or sparse layer, or a `by` that is not a positive multiple of the layer's unit.
        TypeError: For an optimizer whose state cannot be moved. Nothing has changed then.
    """
    hidden = _find(model, hidden)
    refuse_sparse(hidden, "widen")
    if not isinstance(by, int) or by < 1 or by % hidden.unit:
        whole = (
            "a positive number" if hidden.unit == 1 else f"a positive multiple of {hidden.unit}, the size of a group"
        )
        raise ValueError(f"cannot widen layer {hidden.name!r} ({hidden.width} units) by {by!r}: give {whole}")
    surgeon = Surgeon(model, optimizer)
    before = hidden.width
    insert_units(surgeon, hidden, by, init, probe)
    return _change("widen", surgeon, hidden, before, list(range(before, before + by)))


@torch.no_grad()
def insert_units(surgeon: Surgeon, hidden: Hidden, by: int, init=zero_out, probe=None):
    """Gives every module of a Hidden the tensors of new units."""
    before = hidden.width
    if getattr(init, "preserves", False) and any(isinstance(norm, nn.LayerNorm) for norm in hidden.norms):
        init = mean_row
    incoming, bias, outgoing = init(hidden, by, probe)
    sources = init.sources(hidden, by) if hasattr(init, "sources") else None
    places = places_of(hidden, torch.arange(before), by)
    for producer, rows, biases in zip(hidden.producers, _listed(incoming), _listed(bias), strict=True):
        surgeon.insert(producer, "weight", rows, 0, places[producer, 0])
        if producer.bias is not None:
            surgeon.insert(producer, "bias", biases, 0, places[producer, 0])
    for norm in hidden.norms:
        surgeon.widen_norm(norm, places[norm, 0], sources)
        if init is mean_row:  # the deviations stay, and their mean square is smaller
            norm.weight.mul_((before / hidden.width) ** 0.5)
    for consumer, columns in zip(hidden.consumers, _listed(outgoing), strict=True):
        surgeon.insert(consumer, "weight", columns, 1, places[consumer, 1])


def prune(model, hidden, units: Iterable[int], optimizer: Optimizer | None = None) -> Change:
    """Removes units from a hidden layer, in place.

    Args:
        model: A model with a `hidden` property.
        hidden: A Hidden of the model, or its name.
        units: The indices of the units that go.
        optimizer: The optimizer in use, as in `widen`.

    Returns:
        The Change.

    Raises:
        ValueError: For an unknown or sparse layer, an unknown unit, a part of a group, or when no unit would stay.
    """
    hidden = _find(model, hidden)
    refuse_sparse(hidden, "prune")
    units = sorted({int(unit) for unit in units})
    before = hidden.width
    for unit in units:
        if not 0 <= unit < before:
            raise ValueError(f"cannot prune unit {unit}: layer {hidden.name!r} has {before} units")
    if not units or len(units) == before:
        count = "no unit" if not units else f"all {before} units"
        raise ValueError(f"cannot prune {count} of layer {hidden.name!r}: name at least one, and leave at least one")
    for unit in units if hidden.unit > 1 else ():
        group = unit // hidden.unit * hidden.unit
        if not set(range(group, group + hidden.unit)) <= set(units):
            raise ValueError(
                f"cannot prune unit {unit} of layer {hidden.name!r} by itself: units go in groups of {hidden.unit}, "
                f"here {group} to {group + hidden.unit - 1}"
            )
    surgeon = Surgeon(model, optimizer)
    kept = torch.tensor([unit for unit in range(before) if unit not in set(units)])
    places = places_of(hidden, kept, 0)
    with torch.no_grad():
        for module in (*hidden.producers, *hidden.norms):
            for name in tensors_by_unit(module):
                surgeon.keep(module, name, 0, places[module, 0])
        for consumer in hidden.consumers:
            surgeon.keep(consumer, "weight", 1, places[consumer, 1])
    return _change("prune", surgeon, hidden, before, units)


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
            outputs = model(inputs)
            with as_before(model, change):
                old = model(inputs)
            drift = ((outputs - old).abs().max() / old.abs().max().clamp_min(1e-30)).item()
        with torch.enable_grad(), _awake(change.inserted):
            dead = _dead_units(hidden, model(inputs), change.before)
    return {
        "moved": drift,
        "dead": dead,
        "twins": _twins(hidden, change.before),
        "lost": lost_tensors(model, change.optimizer),
    }


@contextmanager
def as_before(model: nn.Module, change: Change):
    """Puts the tensors that a change replaced back for a while, and passes by the modules that it put in."""
    hooks = [module.register_forward_hook(lambda module, inputs, outputs: inputs[0]) for module in change.inserted]
    now = put_back(model, change.previous)
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


def put_back(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Puts tensors in their places, by name, and returns what was there."""
    modules, touched, now = dict(as_written(model).named_modules()), {}, {}
    for path, tensor in tensors.items():
        holder, _, name = path.rpartition(".")
        module = modules[holder]
        now[path] = getattr(module, name)
        setattr(module, name, tensor)
        touched[holder] = module
    for module in touched.values():
        module.note_widths()
    return now


def lost_tensors(model: nn.Module, optimizer: Optimizer | None) -> list[str]:
    """Names of the trainable parameters of a model that its optimizer does not hold, and so never moves."""
    if optimizer is None:
        return []
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return [n for n, parameter in model.named_parameters() if parameter.requires_grad and id(parameter) not in held]


def _dead_units(hidden: Hidden, outputs: Tensor, before: int) -> list[int]:
    weights = [module.weight for module in (*hidden.producers, *hidden.consumers)]
    directions = torch.arange(1.0, outputs.numel() + 1, device=outputs.device).cos().view_as(outputs)
    gradients = torch.autograd.grad((outputs * directions).sum(), weights, allow_unused=True)
    alive = torch.zeros(hidden.width, dtype=torch.bool, device=outputs.device)
    for position, gradient in enumerate(gradients):
        if gradient is not None:
            reader = position - len(hidden.producers)
            rows = gradient if reader < 0 else hidden.by_unit(hidden.consumers[reader], gradient.transpose(0, 1))
            alive |= rows.reshape(hidden.width, -1).ne(0).any(1)
    return [unit for unit in range(before, hidden.width) if not alive[unit]]


@torch.no_grad()
def _twins(hidden: Hidden, before: int) -> list[tuple[int, int]]:
    width = hidden.width
    made = [getattr(p, name).reshape(width, -1) for p in hidden.producers for name in tensors_by_unit(p)]
    made += [hidden.by_unit(n, getattr(n, name)) for n in hidden.norms for name in tensors_by_unit(n)]
    made = torch.cat(made, 1)
    read = torch.cat([hidden.read(consumer) for consumer in hidden.consumers], 1)
    read = nn.functional.normalize(read.double(), dim=1)
    pairs = []
    for new in range(before, width):
        same = (made[:new] == made[new]).all(1) & (read[:new] - read[new]).abs().amax(1).lt(1e-6)
        pairs += [(int(old), new) for old in same.nonzero()]
    return pairs


def _change(kind: str, surgeon: Surgeon, hidden: Hidden, before: int, units: list[int]) -> Change:
    after = _find(surgeon.model, hidden.name).width
    change = described(surgeon.model, kind, hidden.name, before, after, units)
    return replace(change, previous=surgeon.previous, optimizer=surgeon.optimizer)


def described(model: nn.Module, kind: str, layer: str, before: int, after: int, units=None) -> Change:
    """The Change that a model has just gone through; `units` are the last ones unless they are told."""
    renew_compiled(model)
    units = list(range(before, after)) if units is None else units
    return Change(kind, None, layer, before, after, units, costs.parameters(model), costs.flops(model), "")


def refuse_sparse(hidden: Hidden, deed: str):
    """Raise ValueError for a layer whose number of connections is fixed."""
    if sparse := [module for module in (*hidden.producers, *hidden.consumers) if isinstance(module, Sparse)]:
        count = " and ".join(f"{int(layer.mask.sum()):,}" for layer in sparse)
        raise ValueError(
            f"cannot {deed} layer {hidden.name!r}: the layers that make and read its units are sparse, with {count} "
            f"connections that may move but not change in number. Call {deed} before sparsify"
        )


def _listed(tensors):
    return tensors if isinstance(tensors, (list, tuple)) else [tensors]


def _find(model: nn.Module, hidden: Hidden | str) -> Hidden:
    name = hidden if isinstance(hidden, str) else hidden.name
    found = {h.name: h for h in hidden_of(model)}
    if name not in found:
        raise ValueError(f"no hidden layer {name!r}: the model has {', '.join(map(repr, found)) or 'none'}")
    return found[name]
