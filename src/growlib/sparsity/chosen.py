"""Which layers of a model become sparse, why others can't, and what is left dense."""

import warnings
from collections.abc import Iterable

from torch import Tensor, nn

from growlib import costs
from growlib.layers import Sparse, sparse_layers
from growlib.sparsity.masked import MASKED

BY_DEFAULT = nn.Linear, nn.Conv2d


def chosen(model: nn.Module, names: Iterable[str] | None) -> dict[str, nn.Module]:
    """The layers of these names; None is every linear layer and 2-D convolution, and what is sparse already.

    Args:
        model: Any module.
        names: Of its modules.

    Raises:
        ValueError: For a layer that can't be sparse, with the reason, or a weight that is tied.
    """
    able = {name: module for name, module in model.named_modules() if _refusal(module) is None}
    usual = [name for name, module in able.items() if isinstance(module, (*BY_DEFAULT, Sparse))]
    names = usual if names is None else list(names)
    if not names or (unfit := [name for name in names if name not in able]):
        known = ", ".join(map(repr, able)) or "none"
        what = f"layer {unfit[0]!r}" if names else "layers"
        why = f"{_why_not(model, unfit[0])}; " if names else ""
        raise ValueError(f"no {what} to sparsify: {why}those of this model that can be sparse are {known}")
    owners = {}
    for name, module in model.named_modules():
        for own, parameter in module._parameters.items():
            owners.setdefault(id(parameter), []).append(f"{name}.{own}")
    for name in names:
        if len(tied := owners[id(_weight(able[name]))]) > 1:
            raise ValueError(
                f"cannot sparsify layer {name!r}: its weight is tied, {' = '.join(tied)}. Untie them first"
            )
    return {name: able[name] for name in names}


def warn_of_dense(model: nn.Module, stacklevel: int):
    """Says which weights of a model no mask covers, if there are any, and how dense that leaves the whole.

    Args:
        model: After `sparsify`.
        stacklevel: Of the warning, seen from here.
    """
    covered = {id(_weight(layer)) for layer in sparse_layers(model).values()}
    dense = {name: p for name, p in model.named_parameters() if p.ndim > 1 and id(p) not in covered}
    if not dense:
        return
    absent = sum(int((~layer.mask).sum()) for layer in sparse_layers(model).values())
    kept = costs.parameters(model)
    ways = [_why_not(model, name.rpartition(".")[0]) for name in dense]
    able = [name.rpartition(".")[0] for name, way in zip(dense, ways, strict=True) if way is None]
    listed = ", ".join(f"{name} ({p.numel():,})" for name, p in dense.items())
    remedy = f"name them in layers= beside the others: {', '.join(map(repr, able))}. " if able else ""
    reasons = "; ".join(dict.fromkeys(way for way in ways if way is not None))
    warnings.warn(
        f"sparsify left {sum(p.numel() for p in dense.values()):,} weights dense: {listed}. Of all "
        f"{kept + absent:,} parameters {kept:,} are there, a density of {kept / (kept + absent):.3g} for the whole "
        f"model. {'Where they shall be sparse, ' + remedy if remedy else ''}{reasons}".rstrip(),
        stacklevel=stacklevel + 1,
    )


def _weight(layer: nn.Module) -> Tensor:
    """The parameter that holds a layer's weight."""
    return layer._parameters.get("weight", layer._parameters.get("values"))


def _why_not(model: nn.Module, name: str) -> str | None:
    """Why a module can't be sparse, or None if it can."""
    modules = dict(model.named_modules())
    if name not in modules:
        return "the model has no such layer"
    above = modules.get(name.rpartition(".")[0])
    return _refusal(above if isinstance(above, nn.MultiheadAttention) else modules[name])


def plain_kinds() -> list[str]:
    """The names of torch's layers that can be sparse."""
    return [kind.__name__ for kind in MASKED if kind.__module__.startswith("torch.")]


def _refusal(module: nn.Module) -> str | None:
    kind = type(module)
    if isinstance(module, Sparse):
        return None
    if kind in MASKED and "weight" not in module._parameters:
        return f"the weight of this {kind.__name__} is computed from others (weight_norm, prune): remove that first"
    if isinstance(module, nn.Embedding) and (module.sparse or module.max_norm is not None):
        return "an Embedding with sparse=True or max_norm writes to its table by itself: make it without"
    if kind in MASKED:
        return None
    if isinstance(module, nn.MultiheadAttention):
        return (
            "MultiheadAttention reads the weights of its projections without calling a layer, which a mask could be "
            "put on: use growlib.layers.Attention, which is made of four linear layers"
        )
    if isinstance(module, nn.RNNBase):
        return f"{kind.__name__} hands its weights to one kernel, which knows no mask: leave it dense"
    return f"{kind.__name__} can't be masked: it is none of {', '.join(plain_kinds())}"
