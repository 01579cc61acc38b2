"""Numbers that modules keep beside their tensors: `in_features`, `groups`, `num_heads`."""

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from growlib.layers.sparse import Sparse


def note(module: nn.Module):
    """Lets a module know of the sizes of its tensors."""
    values = noted(module)
    if "eps" in values:  # which depends on the width alone, not on the way there
        vars(module).setdefault("first", (module.eps, module.normalized_shape[0]))
    for name, value in values.items():
        setattr(module, name, value)


def noted(module: nn.Module) -> dict:
    """The numbers that a module of torch, or one derived from it, must keep for the tensors that it has now."""
    if isinstance(module, Sparse):  # whose widths do not change
        return {}
    return next((function(module) for kind, function in TABLE.items() if isinstance(module, kind)), {})


def _linear(module) -> dict:
    return {"out_features": module.weight.shape[0], "in_features": module.weight.shape[1]}


def _convolution(module) -> dict:
    """Groups keep their size, and their number follows."""
    rows, columns = module.weight.shape[:2]
    groups = module.groups if module.groups == 1 else rows // (module.out_channels // module.groups)
    return {"out_channels": rows, "groups": groups, "in_channels": columns * groups}


def _transposed(module) -> dict:
    columns, rows = module.weight.shape[:2]
    groups = module.groups if module.groups == 1 else columns // (module.in_channels // module.groups)
    return {"in_channels": columns, "groups": groups, "out_channels": rows * groups}


def _features(module) -> dict:
    tensor = module.weight if module.weight is not None else module.running_mean
    return {} if tensor is None else {"num_features": len(tensor)}


def _group_norm(module) -> dict:
    if module.weight is None:
        return {}
    channels = len(module.weight)
    return {"num_channels": channels, "num_groups": channels // (module.num_channels // module.num_groups)}


def _layer_norm(module) -> dict:
    """The sum of squares stays when units repeat the mean, and is divided by more: eps follows."""
    if module.weight is None:
        return {}
    found = {"normalized_shape": tuple(module.weight.shape)}
    if module.eps is not None and module.weight.ndim == 1:
        eps, width = vars(module).get("first", (module.eps, module.normalized_shape[0]))
        found["eps"] = eps * (width / len(module.weight))
    return found


def _attention(module) -> dict:
    """Heads keep their size."""
    width, head = module.out_proj.weight.shape[0], module.embed_dim // module.num_heads
    found = {"embed_dim": width, "num_heads": width // head}
    for name, weight in (("kdim", module.k_proj_weight), ("vdim", module.v_proj_weight)):
        found[name] = width if module.in_proj_weight is not None else weight.shape[1]
    return found


TABLE = {
    nn.Linear: _linear,
    _ConvTransposeNd: _transposed,
    _ConvNd: _convolution,
    _NormBase: _features,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _layer_norm,
    nn.Embedding: lambda module: {"embedding_dim": module.weight.shape[1]},
    nn.PReLU: lambda module: {"num_parameters": len(module.weight)},
    nn.MultiheadAttention: _attention,
}
