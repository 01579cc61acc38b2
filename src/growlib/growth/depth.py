"""deepen: a new layer in a network that has learned, which keeps its function, its optimizer and its schedule."""

from dataclasses import replace

from torch import nn

from growlib.growth.discovery import growable
from growlib.growth.inserted import Block, ChannelBlock, name_of
from growlib.growth.journal import all_or_nothing
from growlib.growth.optimizers import add_parameters, lay_out_alike, rename_parameters
from growlib.growth.putting import Place, examples_of
from growlib.growth.refusals import refuse_changed, refuse_quantised
from growlib.growth.slots import OptimizerSlots
from growlib.growth.starts import identity, residual
from growlib.growth.width import Change, described
from growlib.layers import Hidden, as_written, connections, hidden_of, sparse_layers


def deepen(model: nn.Module, after: Hidden | str, init=None, optimizer=None) -> Change:
    """Puts a new layer behind one of a model, in place; all layers keep their names.

    Args:
        model: A model of growlib.models, or any that `growable` prepared.
        after: A Hidden of the model, or the name of any of its modules.
        init: How the new layer starts: `identity`, `residual`, `repeated` or `untrained`. None takes what models of
            growlib are made of; in others an identity layer where that is exact, and else a residual block.
        optimizer: The one in use, or a list of them: the new tensors join the groups of the nearest of their kind, with
            a fresh state.

    Returns:
        The Change, of the width that the new layer brought.

    Raises:
        ValueError: For an unknown layer, a sparse model, or if outputs would move that the init promises to keep.
        TypeError: For an optimizer that cannot take on tensors. Whatever is raised, nothing has changed then.
    """
    model = as_written(model)
    refuse_quantised(model, "deepen")
    if sparse_layers(model):
        raise ValueError(
            f"cannot deepen a sparse model of {connections(model):,} connections: a new layer would be dense, and "
            "break the budget. Call deepen before sparsify"
        )
    OptimizerSlots(optimizer)  # refuses what cannot take on tensors
    place, reasons = Place(model, _named(model, after)), []
    for trial in [init] if init or hasattr(model, "insert_layer") else [identity, residual]:
        put, moved = place.tried(trial)
        name = getattr(trial, "__name__", "a new layer")
        if moved is not None:
            reasons.append(f"{name} {moved}")
        elif change := _made(model, put, optimizer):
            return change
        else:
            reasons.append(f"{name} would bring units whose readers cannot be followed")
    raise ValueError(
        f"cannot deepen {type(model).__name__} behind {place.after!r}: {', '.join(reasons)}. An identity layer needs a "
        "ReLU before and behind it, and init=residual does not. Nothing was changed"
    )


class _Unfollowed(Exception):
    """New layers whose widths cannot change."""


def _made(model: nn.Module, put, optimizer) -> Change | None:
    """Puts something into a model; None, and nothing has changed, where that brings no width that can change."""
    try:
        with all_or_nothing(model, optimizer):
            names = {id(parameter): name for name, parameter in model.named_parameters()}
            new = put(model)
            lay_out_alike(model, new)
            add_parameters(optimizer, model, new)
            rename_parameters(optimizer, names, model)
            rediscover(model)
            if (hidden := _born(model, new)) is None:
                raise _Unfollowed
            change = described(model, "deepen", hidden.name, 0, hidden.width)
    except _Unfollowed:
        return None
    return replace(change, optimizer=optimizer, inserted=new)


def _named(model: nn.Module, after: Hidden | str) -> str:
    """The name of the module that the new layer follows: of a Hidden its normalisation, or the block that it is in."""
    found, name = {hidden.name: hidden for hidden in hidden_of(model)}, after if isinstance(after, str) else after.name
    if hasattr(model, "insert_layer") or name not in found:
        return name
    if not hasattr(model, "_hidden"):
        raise ValueError(
            f"{type(model).__name__} lists its hidden layers itself, so deepen cannot add to them: leave that to "
            "growable(model, example), or give it methods `insert_layer` and `remove_layer` as MLP has them"
        )
    refuse_changed(model, found[name], "deepen")
    last = (found[name].norms or found[name].producers)[0]
    holders = [path for path, module in model.named_modules() if last in module.modules()]
    block = [path for path in holders if isinstance(model.get_submodule(path), (Block, ChannelBlock))]
    return name_of(model, [*holders, *block[:1]][-1])


def rediscover(model: nn.Module):
    """Finds the widths of a model anew, if `growable` found those that it had."""
    if hasattr(model, "_hidden"):
        args, kwargs = examples_of(model)
        growable(model, *args, **kwargs)


def _born(model: nn.Module, new: tuple[nn.Module, ...]) -> Hidden | None:
    """The width that new modules brought, or else one that they joined, if any."""
    own = {module for part in new for module in part.modules()}
    joined = [hidden for hidden in hidden_of(model) if own & set(hidden.producers)]
    return max(joined, key=lambda hidden: own >= set(hidden.producers), default=None)
