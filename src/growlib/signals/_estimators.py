"""Mutual information from samples, three ways, in nats: binned, KSG and Gaussian.

None is right everywhere. `binned` counts and is cheap; its bins blur, and its bias grows with the number of cells a
sample. `ksg` looks at nearest neighbours and fits smooth densities of few dimensions; it falls short where the
dependence is strong or the dimensions are many. `gaussian` is free of bias in any dimension, for Gaussians, and sees
linear dependence only.
"""

import math

import numpy as np
import torch
from torch import Tensor


def binned(x: Tensor, y: Tensor, bins: int = 8) -> Tensor:
    """Counts in bins of equal width.

    Corrected for the number of occupied cells, the bias left is of order cells / samples squared; bins that are too
    wide lower it.

    Args:
        x: (N,), or (N, columns), each of which is asked by itself; floats.
        y: (N,), integers, which are labels, or floats.
        bins: Of floats, from the smallest value to the largest.

    Returns:
        () or (columns,), at least 0; 0 where one of them is constant.

    Source: Miller, "Note on the bias of information estimates" (1955), for the correction.
    """
    columns = _numbers(x.reshape(len(x), -1), bins)  # (N, columns)
    others = _numbers(y[:, None], bins)[:, 0] if y.is_floating_point() else y.unique(return_inverse=True)[1]
    size, width = int(others.max()) + 1, columns.shape[1]
    cells = (torch.arange(width, device=x.device) * bins + columns) * size + others[:, None]  # (N, columns)
    counts = torch.bincount(cells.flatten(), minlength=width * bins * size).view(width, bins, size)
    found = _entropy(counts.sum(2)) + _entropy(counts.sum(1)) - _entropy(counts.flatten(1))
    return found.clamp_min(0).reshape(x.shape[1:])


def ksg(x: Tensor, y: Tensor, neighbours: int = 3) -> Tensor:
    """Compares the distances to the nearest neighbours in x, in y and in both.

    It is low by more than a tenth where the variables determine one another nearly, and from about four dimensions
    each on with some thousand samples. Values that repeat are told apart by noise of 1e-10 of their spread.

    Args:
        x: (N,) or (N, d), floats.
        y: (N,) or (N, e) of floats, or (N,) of integers, which are labels.
        neighbours: More of them vary less and are further away.

    Returns:
        At least 0; 0 where one of them is constant.

    Raises:
        ImportError: scikit-learn is not installed.

    Source: Kraskov, Stögbauer, Grassberger, "Estimating mutual information" (2004), equation 8; for labels Ross,
        "Mutual Information between Discrete and Continuous Data Sets" (2014), equation 2.
    """
    labelled = not y.is_floating_point()
    left, right = _apart(x), (y.cpu().numpy() if labelled else _apart(y))
    if left is None or right is None or labelled and len(np.unique(right)) == 1:
        return torch.zeros((), dtype=torch.float64)
    found = _against_labels(left, right, neighbours) if labelled else _against_values(left, right, neighbours)
    return torch.tensor(max(0.0, found), dtype=torch.float64)


def gaussian(x: Tensor, y: Tensor) -> Tensor:
    """Takes both for Gaussian: half the logarithm of a ratio of determinants, less its bias, which is known exactly.

    Args:
        x: (N,) or (N, d), floats.
        y: (N,) or (N, e), floats.

    Returns:
        At least 0; 0 where one of them is constant.

    Raises:
        ValueError: There are labels, or not more samples than dimensions.

    Source: Cover, Thomas, "Elements of Information Theory" (2006), equation 8.56; the moments of determinants are
        those of Anderson, "An Introduction to Multivariate Statistical Analysis" (2003), section 7.5.
    """
    if not y.is_floating_point():
        raise ValueError("gaussian takes numbers, and y holds labels: use binned or ksg")
    left, right = (part.double().reshape(len(part), -1) for part in (x, y))
    both = torch.cat([left, right], 1)
    if len(both) <= both.shape[1] + 1:
        raise ValueError(f"gaussian needs more samples than dimensions: {len(both)} of {both.shape[1]} dimensions")
    found = (_log_volume(left) + _log_volume(right) - _log_volume(both)) / 2
    return found.clamp_min(0) if found.isfinite() else found.new_zeros(())


def _numbers(values: Tensor, bins: int) -> Tensor:
    """The number of the bin of every value, column by column."""
    low, high = values.amin(0), values.amax(0)
    width = (high - low).clamp_min(torch.finfo(values.dtype).tiny) / bins
    return ((values - low) / width).long().clamp(0, bins - 1)


def _entropy(counts: Tensor) -> Tensor:
    """Of counts (columns, cells): plug-in, and half a cell a sample for every occupied cell but one."""
    counts = counts.double()
    total = counts.sum(1, keepdim=True)
    return torch.special.entr(counts / total).sum(1) + ((counts > 0).sum(1) - 1) / (2 * total[:, 0])


def _log_volume(values: Tensor) -> Tensor:
    """The logarithm of the determinant of the covariance, without bias for Gaussians."""
    degrees, dimensions = len(values) - 1, values.shape[1]
    halves = (degrees - torch.arange(dimensions, dtype=torch.float64)) / 2
    bias = torch.digamma(halves).sum() + dimensions * math.log(2 / degrees)
    return torch.linalg.slogdet(values.T.cov().reshape(dimensions, dimensions))[1] - bias


def _apart(values: Tensor) -> np.ndarray | None:
    """Rows of deviation one and no two alike; None if there is but one value."""
    rows = values.detach().cpu().double().reshape(len(values), -1).numpy()
    spread = rows.std(0)
    if not spread.any():
        return None
    rows = rows[:, spread > 0] / spread[spread > 0]
    return rows + 1e-10 * np.random.default_rng(0).standard_normal(rows.shape)


def _against_values(x: np.ndarray, y: np.ndarray, neighbours: int) -> float:
    count = min(neighbours, len(x) - 1)
    reach = _distances(np.hstack([x, y]), count)
    within = sum(_digamma(_closer(part, reach) + 1).mean() for part in (x, y))
    return _digamma(len(x)) + _digamma(count) - within


def _against_labels(x: np.ndarray, labels: np.ndarray, neighbours: int) -> float:
    """Examples whose label nobody else has are left out: they have no neighbour."""
    sizes = np.unique(labels, return_inverse=True, return_counts=True)
    size = sizes[2][sizes[1]]  # of the example's class
    x, labels, size = x[size > 1], labels[size > 1], size[size > 1]
    if not len(x):
        return 0.0
    count, reach = np.minimum(neighbours, size - 1), np.empty(len(x))
    for label in np.unique(labels):
        own = labels == label
        reach[own] = _distances(x[own], count[own][0])
    return _digamma(len(x)) + (_digamma(count) - _digamma(size) - _digamma(_closer(x, reach) + 1)).mean()


def _distances(rows: np.ndarray, count: int) -> np.ndarray:
    """To the count-th nearest other row, along the coordinate that differs most."""
    return _tree(rows).query(rows, k=count + 1)[0][:, -1]


def _closer(rows: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """How many other rows are closer than that."""
    return _tree(rows).query_radius(rows, np.nextafter(reach, 0), count_only=True) - 1


def _tree(rows: np.ndarray):
    try:
        from sklearn.neighbors import KDTree
    except ImportError as error:
        raise ImportError("ksg needs scikit-learn: pip install 'growlib[analysis]'") from error
    return KDTree(rows, metric="chebyshev")


def _digamma(values) -> np.ndarray:
    return torch.digamma(torch.as_tensor(values, dtype=torch.float64)).numpy()
