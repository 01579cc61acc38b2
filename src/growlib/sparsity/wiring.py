"""How the connections of a sparse model lie: the proof of its budget, degrees, units that are cut off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from growlib.layers import Hidden, Sparse, hidden_of
from growlib.sparsity.budget import pools

if TYPE_CHECKING:
    import pandas as pd


def budget_report(model: nn.Module) -> pd.DataFrame:
    """The connections of every sparse layer, counted, and what else the model holds.

    Args:
        model: Any module.

    Returns:
        For every sparse layer, and for all together: the connections, the weights there could be, the density, the
        weights that are not zero where there is no connection (0 by law), and the bytes of masks, signs and other
        state of connections. Last the parameters outside of sparse layers, and their biases, which have no mask.
    """
    import pandas as pd

    layers = pools(model, "global")[0]
    rows = {name: _row(layer) for name, layer in layers.items()}
    table = pd.DataFrame(rows.values(), index=list(rows)).fillna(0)
    table.loc["all sparse layers"] = table.sum()
    masked = {id(p) for layer in layers.values() for name, p in layer.named_parameters() if name != "bias"}
    dense = sum(p.numel() for p in model.parameters() if id(p) not in masked)
    table.loc["without masks (biases, norms, dense layers)"] = {"connections": dense, "weights": dense}
    table = table.fillna(0).astype(int)
    table.insert(2, "density", (table.connections / table.weights.clip(lower=1)).round(4))
    return table


def _row(layer: Sparse) -> dict[str, int]:
    mask = layer.mask
    row = {"connections": int(mask.sum()), "weights": mask.numel()}
    row["outside"] = int(layer.weight.detach()[~mask].count_nonzero())
    return row | {f"{name}, bytes": tensor.nbytes for name, tensor in layer.named_buffers()}


def degrees(layer: Sparse) -> tuple[Tensor, Tensor]:
    """How many connections every output of a layer has, and every input.

    Args:
        layer: A sparse layer; a connection of a convolution is one entry of a kernel, one of an embedding leads from a
            token to a feature.

    Returns:
        (outputs,) and (inputs,); with groups, the inputs of one group, and of a transposed convolution all inputs.
    """
    mask = layer.mask.flatten(2) if layer.mask.ndim > 2 else layer.mask[:, :, None]  # (outputs, inputs, kernel)
    if layer.inputs_first:
        groups = mask.unflatten(0, (getattr(layer, "groups", 1), -1))  # (groups, inputs, outputs, kernel)
        return groups.sum((1, 3)).flatten(), mask.sum((1, 2))
    return mask.sum((1, 2)), mask.sum((0, 2))


def cut_off(model: nn.Module) -> dict[str, list[int]]:
    """The units of every hidden layer that nothing feeds or that nothing reads: they say nothing about the input.

    Args:
        model: One whose hidden layers growlib knows.

    Returns:
        Their indices, by the name of the Hidden.
    """
    found = {}
    for hidden in hidden_of(model):
        fed = torch.zeros(hidden.width, dtype=torch.bool)
        read = torch.zeros(hidden.width, dtype=torch.bool)
        for producer in hidden.producers:
            fed |= _there_by_unit(hidden, producer, "producer")
        for consumer in hidden.consumers:
            read |= _there_by_unit(hidden, consumer, "consumer")
        found[hidden.name] = (~(fed & read)).nonzero().flatten().tolist()
    return found


def _there(layer: nn.Module) -> Tensor:
    return layer.mask if isinstance(layer, Sparse) else torch.ones_like(layer.weight, dtype=torch.bool)


def _there_by_unit(hidden: Hidden, layer: nn.Module, role: str) -> Tensor:
    return hidden.gathered(hidden.entry(layer, role), _there(layer)).any(1).cpu()
