"""widen and prune: change a network in place and keep its function, its optimizer and its schedule alive."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer

from growlib import costs
from growlib.inits import zero_out
from growlib.layers import Hidden, evaluating
from growlib.surgery import Surgeon


@dataclass(frozen=True)
class Change:
    """What a structural change did.

    Args:
        kind: "widen" or "prune".
        step: The trainer's step, or None outside a trainer.
        layer: The name of the Hidden.
        before: Its width before.
        after: Its width after.
        parameters: Of the whole model, after the change.
        flops: Of the whole model for one example, after the change (None where the input's shape is not known).
        cause: What fired it, with the values.
    """

    kind: str
    step: int | None
    layer: str
    before: int
    after: int
    parameters: int
    flops: int | None
    cause: str
    previous: dict[str, Tensor] = field(repr=False, compare=False, default_factory=dict)  # tensors that were replaced
    optimizer: Optimizer | None = field(repr=False, compare=False, default=None)

    def record(self) -> dict:
        """The change as a plain dict, as History keeps it."""
        return {name: value for name, value in vars(self).items() if name not in ("previous", "optimizer")}


def hidden_of(model: nn.Module) -> list[Hidden]:
    """The widths of a model that can change."""
    if not hasattr(model, "hidden"):
        raise TypeError(f"{type(model).__name__} has no hidden layers that growlib knows: give it a `hidden` property")
    return model.hidden


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
        ValueError: For an unknown layer, or a `by` that is not a positive multiple of the layer's unit.
        TypeError: For an optimizer whose state cannot be moved. Nothing has changed then.
    """
    hidden = _find(model, hidden)
    if not isinstance(by, int) or by < 1 or by % hidden.unit:
        whole = "a positive number" if hidden.unit == 1 else f"a positive multiple of {hidden.unit}"
        raise ValueError(f"cannot widen layer {hidden.name!r} ({hidden.width} units) by {by!r}: give {whole}")
    surgeon = Surgeon(model, optimizer)
    before = hidden.width
    with torch.no_grad():
        incoming, bias, outgoing = init(hidden, by, probe)
        sources = init.sources(hidden, by) if hasattr(init, "sources") else None
        spreads = [hidden.spread(consumer) for consumer in hidden.consumers]
        for producer, rows, biases in zip(hidden.producers, _listed(incoming), _listed(bias), strict=True):
            surgeon.extend(producer, "weight", rows)
            if producer.bias is not None:
                surgeon.extend(producer, "bias", biases)
        for norm in hidden.norms:
            _widen_norm(surgeon, norm, by, sources)
        for consumer, columns, spread in zip(hidden.consumers, _listed(outgoing), spreads, strict=True):
            if columns.shape[1] == by * spread:  # only the new ones
                columns = torch.cat([consumer.weight, columns], 1)
            surgeon.put(consumer, "weight", columns, axis=1)
    return _change("widen", surgeon, hidden, before)


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
        ValueError: For an unknown layer or unit, or when no unit would stay.
    """
    hidden = _find(model, hidden)
    units = sorted({int(unit) for unit in units})
    before = hidden.width
    for unit in units:
        if not 0 <= unit < before:
            raise ValueError(f"cannot prune unit {unit}: layer {hidden.name!r} has {before} units")
    if not units or len(units) == before:
        count = "no unit" if not units else f"all {before} units"
        raise ValueError(f"cannot prune {count} of layer {hidden.name!r}: name at least one, and leave at least one")
    surgeon = Surgeon(model, optimizer)
    device = hidden.producers[0].weight.device
    keep = torch.tensor([unit for unit in range(before) if unit not in set(units)], device=device)
    spreads = [hidden.spread(consumer) for consumer in hidden.consumers]
    with torch.no_grad():
        for module in (*hidden.producers, *hidden.norms):
            for name in _tensors_by_unit(module, before):
                surgeon.keep(module, name, keep, axis=0)
        for consumer, spread in zip(hidden.consumers, spreads, strict=True):
            inputs = (keep[:, None] * spread + torch.arange(spread, device=device)).flatten()
            surgeon.keep(consumer, "weight", inputs, axis=1)
    return _change("prune", surgeon, hidden, before)


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
    with evaluating(model), torch.enable_grad():
        outputs = model(inputs)
        dead = _dead_units(hidden, outputs, change.before)
        with torch.no_grad():
            old = functional_call(model, change.previous, (inputs,), strict=False)
            moved = ((outputs - old).abs().max() / old.abs().max().clamp_min(1e-30)).item()
    return {
        "moved": moved,
        "dead": dead,
        "twins": _twins(hidden, change.before),
        "lost": lost_tensors(model, change.optimizer),
    }


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
            by_unit = gradient if position < len(hidden.producers) else gradient.transpose(0, 1)
            alive |= by_unit.reshape(hidden.width, -1).ne(0).any(1)
    return [unit for unit in range(before, hidden.width) if not alive[unit]]


@torch.no_grad()
def _twins(hidden: Hidden, before: int) -> list[tuple[int, int]]:
    width = hidden.width
    tensors = [getattr(m, n) for m in (*hidden.producers, *hidden.norms) for n in ("weight", "bias")]
    made = torch.cat([tensor.reshape(width, -1) for tensor in tensors if tensor is not None], 1)
    read = torch.cat([c.weight.transpose(0, 1).reshape(width, -1) for c in hidden.consumers], 1)
    read = nn.functional.normalize(read.double(), dim=1)
    pairs = []
    for new in range(before, width):
        same = (made[:new] == made[new]).all(1) & (read[:new] - read[new]).abs().amax(1).lt(1e-6)
        pairs += [(int(old), new) for old in same.nonzero()]
    return pairs


def _change(kind: str, surgeon: Surgeon, hidden: Hidden, before: int) -> Change:
    model = surgeon.model
    hidden = _find(model, hidden.name)
    size, work = costs.parameters(model), costs.flops(model)
    return Change(kind, None, hidden.name, before, hidden.width, size, work, "", surgeon.previous, surgeon.optimizer)


def _widen_norm(surgeon: Surgeon, norm: nn.Module, by: int, sources: Tensor | None):
    for name in _tensors_by_unit(norm, len(norm.weight)):
        tensor = getattr(norm, name)
        neutral = 1.0 if name in ("weight", "running_var") else 0.0
        surgeon.extend(norm, name, tensor.new_full((by,), neutral) if sources is None else tensor[sources])


def _tensors_by_unit(module: nn.Module, width: int) -> list[str]:
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return [name for name, tensor in tensors if tensor.ndim and len(tensor) == width]


def _listed(tensors):
    return tensors if isinstance(tensors, (list, tuple)) else [tensors]


def _find(model: nn.Module, hidden: Hidden | str) -> Hidden:
    name = hidden if isinstance(hidden, str) else hidden.name
    found = {h.name: h for h in hidden_of(model)}
    if name not in found:
        raise ValueError(f"no hidden layer {name!r}: the model has {', '.join(map(repr, found)) or 'none'}")
    return found[name]
