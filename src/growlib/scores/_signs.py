"""The score of Deep Rewiring: a connection that wants to change its sign goes."""

import torch
from torch import Tensor, nn

from growlib.signals import Probe


def sign_flip(layer: nn.Module, probe: Probe | None = None) -> Tensor:
    """How far every weight is on the side of zero where it was born: weight x sign at birth.

    It brings its own number of drops: as many as have crossed zero. The signs are a buffer `signs` of the layer that
    `sign_flip.begin(layer)` makes; new connections draw theirs from torch's generator and start at zero, which is on
    neither side, so none is dropped before it has moved.

    Args:
        layer: A sparse layer.
        probe: Not used.

    Returns:
        As the weight.

    Raises:
        ValueError: If the layer has no signs.

    Source: Bellec, Kappel, Maass, Legenstein, "Deep Rewiring: Training very sparse deep networks" (2018), algorithm 1;
        there every possible connection has one sign for good, here it draws a new one at each birth.
    """
    if not hasattr(layer, "signs"):
        raise ValueError(
            f"sign_flip does not know the signs at birth of this {type(layer).__name__}: Rewire(drop=sign_flip) notes "
            "them before training; elsewhere call sign_flip.begin(layer)"
        )
    return layer.signs * layer.weight.detach()


def _begin(layer: nn.Module):
    """Notes the signs of the weights, once; those of weights that are zero are drawn."""
    if not hasattr(layer, "signs"):
        signs = layer.weight.detach().sign().to(torch.int8)
        layer.register_buffer("signs", torch.where(signs == 0, _drawn(signs), signs))


def _born(layer: nn.Module, indices: Tensor):
    """Draws the signs of new connections."""
    signs = layer.signs.flatten().clone()  # so that a rewiring that fails leaves those that were there
    signs[indices] = _drawn(signs[indices])
    layer.signs = layer.signs.clone().copy_(signs.view(layer.signs.shape))


def _drawn(signs: Tensor) -> Tensor:
    return torch.randint_like(signs, 2) * 2 - 1


def _crossed(worth: Tensor) -> int:
    return int((worth < 0).sum())


sign_flip.begin, sign_flip.born, sign_flip.count = _begin, _born, _crossed
