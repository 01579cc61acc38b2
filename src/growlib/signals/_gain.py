"""What new units would be good for."""

import torch
from torch import Tensor

from growlib.layers import Hidden
from growlib.signals._patches import growth_matrix, patches
from growlib.signals._probe import Probe
from growlib.signals._ranks import squares

DAMPING = 0.01  # of the kernel's trace: what a batch shows of many inputs is mostly chance


def gradmax_gain(probe: Probe, hidden: Hidden) -> Tensor:
    """The largest gradient that the incoming weights of one new unit can get, with outgoing weights of length one.

    Args:
        probe: A batch.
        hidden: The layer, where `gradmax` could widen it.

    Returns:
        A number of at least 0, in units of loss a unit of weight.

    Raises:
        ValueError: gradmax refuses the layer.

    Source: Evci et al., "GradMax: Growing Neural Networks using Gradient Information" (2022), section 3.
    """
    return squares(torch.cat([growth_matrix(hidden, c, probe) for c in hidden.consumers]))[-1].sqrt()


def natural_gain(probe: Probe, hidden: Hidden) -> Tensor:
    """The share of the next layer's natural expansion score that it lacks because it cannot read this layer's inputs.

    The score, g F^-1 g with a Kronecker-factored Fisher matrix F, tells how far the loss would fall in one natural
    step. In that form it is the part of the whitened gradient at the next layer's outputs that is linear in what the
    layer reads. What new units could add at best, before their activation, is linear in what they read.

    Args:
        probe: A batch.
        hidden: The layer, with one producer and one consumer that look at the same positions.

    Returns:
        From 0, where new units could add nothing, to 1.

    Raises:
        ValueError: There are several producers or consumers, or the positions differ.

    Source: Mitchell et al., "Self-Expanding Neural Networks" (2023), section 3, for the score and its rise as the
        reason to expand. There candidates are optimised, with their activations; here the kernel is damped by 0.01 of
        its trace.
    """
    read, heard, gradient = _rows(probe, hidden)
    if not gradient.norm() > 0:
        return gradient.new_zeros(())
    white = _whitened(gradient)
    now, then = _captured(white, heard), _captured(white, torch.cat([heard, read], 1))
    return (1 - now / then).clamp_min(0) if then > 0 else torch.zeros_like(then)


def _rows(probe: Probe, hidden: Hidden) -> tuple[Tensor, Tensor, Tensor]:
    """What the producer reads, what the consumer reads, and the gradient at its outputs, a row a position."""
    if len(hidden.producers) > 1 or len(hidden.consumers) > 1:
        raise ValueError(
            f"natural_gain of layer {hidden.name!r}: it has {len(hidden.producers)} producers and "
            f"{len(hidden.consumers)} consumers, and needs one of each. Use effective_rank, which asks for neither"
        )
    producer, consumer = hidden.producers[0], hidden.consumers[0]
    read, heard = (patches(layer, probe.inputs_of(layer)) for layer in (producer, consumer))
    gradient = probe.gradient_of(consumer)
    gradient = gradient.flatten(2).transpose(1, 2) if gradient.ndim == 4 else gradient.reshape(*heard.shape[:2], -1)
    if read.shape[1] != heard.shape[1]:
        raise ValueError(
            f"natural_gain of layer {hidden.name!r}: its producer works at {read.shape[1]} positions and its consumer "
            f"at {heard.shape[1]}. Use effective_rank, which does not ask"
        )
    return tuple(_scaled(rows.flatten(0, 1).double()) for rows in (read, heard, gradient))


def _scaled(rows: Tensor) -> Tensor:
    return rows / rows.norm().clamp_min(torch.finfo(rows.dtype).tiny)


def _whitened(rows: Tensor) -> Tensor:
    """An orthonormal basis of the columns, (rows, directions), by way of the smaller Gram matrix."""
    tall = len(rows) > rows.shape[1]
    values, axes = torch.linalg.eigh(rows.T @ rows if tall else rows @ rows.T)
    seen = values > 1e-10 * values[-1]  # logits of one example share a gradient of zero in all
    values, axes = values[seen], axes[:, seen]
    return rows @ (axes / values.sqrt()) if tall else axes


def _captured(target: Tensor, features: Tensor) -> Tensor:
    """How much of a target is linear in features, damped: trace(target' K (K + damping)^-1 target), K = FF'."""
    tall = len(features) > features.shape[1]
    gram = features.T @ features if tall else features @ features.T
    factor = torch.linalg.cholesky(gram + DAMPING * torch.eye(len(gram)).to(gram))
    found = torch.linalg.solve_triangular(factor, features.T @ target if tall else target, upper=False)
    return found.square().sum() if tall else target.square().sum() - DAMPING * found.square().sum()
