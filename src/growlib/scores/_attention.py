"""The score of the projections of an attention block."""

import torch
from torch import Tensor, nn

from growlib.layers import Attention
from growlib.signals import Probe


def attention(layer: nn.Linear, probe: Probe) -> Tensor:
    """How closely what stands at the two ends of attention's links varies together, every link weighted by its mass.

    It is the size of the covariance of what a projection reads and of what that meets. Query reads a token, which meets
    the keys that it looks at; key reads a token, which meets the queries that look at it. Value reads, head by head,
    what has been gathered from all tokens, and meets what it makes of it; project reads that, and meets its own output.

    Args:
        layer: One of the four projections of a `growlib.layers.Attention`.
        probe: A batch.

    Returns:
        As the weight.
    """
    block = next((m for m in probe.model.modules() if isinstance(m, Attention) and layer in m.children()), None)
    if block is None:
        raise ValueError(
            f"attention scores query, key, value and project of a growlib.layers.Attention, and {layer} is none of "
            "them: score the other layers in another way, or leave them dense with sparsify(layers=)"
        )
    read, met = probe.inputs_of(layer), probe.outputs_of(layer)  # (B, tokens, width)
    queries, keys = probe.outputs_of(block.query), probe.outputs_of(block.key)
    mass = block.mass(queries, keys)  # (B, heads, tokens that look, tokens looked at)
    if layer is block.query:
        met = block.gather(mass, keys)
    elif layer is block.key:
        met = block.gather(mass.transpose(2, 3), queries)
    elif layer is block.value:
        met = block.gather(mass, met)
    met = met - met.mean((0, 1))  # to centre one side centres the product
    if layer is block.value:
        read = torch.einsum("bhqk,bki->bqhi", mass, read)
        product = torch.einsum("bqhi,bqho->hoi", read, met.unflatten(2, (block.heads, -1))).flatten(0, 1)
    else:
        product = torch.einsum("bqi,bqo->oi", read, met)
    return (product / met[..., 0].numel()).abs()
