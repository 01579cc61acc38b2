"""How many directions a layer uses.

The activations of a layer on a batch form a matrix, an example (and position) a row and a unit a column, and so do its
weights, a unit a row. Ranks are divided by the largest that is possible, the smaller side of the matrix.
"""

import torch
from torch import Tensor

from growlib.layers import Hidden
from growlib.signals._activity import samples
from growlib.signals._probe import Probe


def effective_rank(probe: Probe, hidden: Hidden) -> Tensor:
    """How evenly the activations spread over the directions open to them: exp(entropy of the singular values).

    Args:
        probe: A batch.
        hidden: The layer.

    Returns:
        From 1 / min(width, batch), where all examples look alike, to 1.

    Source: Roy, Vetterli, "The effective rank: a measure of effective dimensionality" (2007), definition 1; there it is
        not divided.
    """
    return _effective(_spectrum(probe, hidden))


def stable_rank(probe: Probe, hidden: Hidden) -> Tensor:
    """The same question, asked of the squares: the sum of the squared singular values over the largest of them.

    Args:
        probe: A batch.
        hidden: The layer.

    Returns:
        From 1 / min(width, batch) to 1.

    Source: Rudelson, Vershynin, "Sampling from large matrices: An approach through geometric functional analysis"
        (2007), section 1; there it is called numerical rank and not divided.
    """
    return _stable(_spectrum(probe, hidden))


def weight_effective_rank(probe: Probe | None, hidden: Hidden) -> Tensor:
    """The effective rank of the weights that make the units.

    Args:
        probe: Keeps what both ranks need; None will do.
        hidden: The layer.

    Returns:
        From 1 / min(width, fan-in) to 1.
    """
    return _effective(_weight_spectrum(probe, hidden))


def weight_stable_rank(probe: Probe | None, hidden: Hidden) -> Tensor:
    """The stable rank of the weights that make the units.

    Args:
        probe: Keeps what both ranks need; None will do.
        hidden: The layer.

    Returns:
        From 1 / min(width, fan-in) to 1.
    """
    return _stable(_weight_spectrum(probe, hidden))


def orthogonality_gap(probe: Probe, hidden: Hidden) -> Tensor:
    """How far the units are from being orthogonal and equally loud on a batch.

    It is the distance of their Gram matrix, divided by its trace, from the identity, divided by its own.

    Args:
        probe: A batch.
        hidden: The layer.

    Returns:
        From 0 to sqrt(1 - 1 / width), which a silent layer gets too.

    Source: Daneshmand, Joudaki, Bach, "Batch Normalization Orthogonalizes Representations in Deep Random Networks"
        (2021), section 2; a trigger in Maile et al., "When, where, and how to add new neurons to ANNs" (2022).
    """
    values, width = _spectrum(probe, hidden), hidden.width
    if not values.sum() > 0:
        return values.new_tensor((1 - 1 / width) ** 0.5)
    # The identity over the width meets the Gram matrix in its trace only.
    return ((values / values.sum()).square().sum() - 1 / width).clamp_min(0).sqrt()


def squares(matrix: Tensor) -> Tensor:
    """The squares of the singular values of a matrix, in double precision, the smallest first.

    They are the eigenvalues of the smaller Gram matrix, far cheaper than singular values.
    """
    matrix = matrix.double()
    values = torch.linalg.eigvalsh(matrix @ matrix.T if len(matrix) < matrix.shape[1] else matrix.T @ matrix)
    return values.where(values > 1e-14 * len(values) * values[-1], 0)  # what is less, is rounding


def _spectrum(probe: Probe, hidden: Hidden) -> Tensor:
    return probe.once("spectrum", hidden.producers, lambda: squares(samples(probe, hidden)))


def _effective(values: Tensor) -> Tensor:
    if not values.sum() > 0:
        return values.new_tensor(1 / len(values))
    shares = values.sqrt() / values.sqrt().sum()
    return torch.special.entr(shares).sum().exp() / len(values)


def _stable(values: Tensor) -> Tensor:
    if not values.sum() > 0:
        return values.new_tensor(1 / len(values))
    return values.sum() / values[-1] / len(values)


def _weight_spectrum(probe: Probe | None, hidden: Hidden) -> Tensor:
    weights = [hidden.made(producer).detach() for producer in hidden.producers]
    if probe is None:
        return squares(torch.cat(weights, 1))  # (width, fan-in)
    return probe.once("weight spectrum", hidden.producers, lambda: squares(torch.cat(weights, 1)))
