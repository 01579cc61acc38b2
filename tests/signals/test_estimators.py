"""Estimates of mutual information against truths that are known, and where they fail."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

from growlib.signals import binned, gaussian, ksg


def pair(samples, dimensions, correlation, seed=0):
    """Two Gaussian vectors, correlated coordinate by coordinate, and what they tell about one another, in nats."""
    generator = torch.Generator().manual_seed(seed)
    x, noise = torch.randn(2, samples, dimensions, generator=generator, dtype=torch.float64)
    y = correlation * x + math.sqrt(1 - correlation**2) * noise
    return x, y, -dimensions / 2 * math.log(1 - correlation**2)


@pytest.mark.parametrize("dimensions", range(1, 11))
@pytest.mark.parametrize("correlation", [0.5, 0.8])
def test_gaussian_is_within_a_tenth_up_to_ten_dimensions(dimensions, correlation):
    x, y, truth = pair(2000, dimensions, correlation)
    assert gaussian(x, y).item() == pytest.approx(truth, rel=0.1)


def test_gaussian_has_no_bias():
    found = [gaussian(*pair(60, 5, 0.5, seed)[:2]).item() for seed in range(400)]
    truth, few = pair(60, 5, 0.5)[2], torch.tensor(found)
    assert abs(few.mean() - truth) < 4 * few.std() / math.sqrt(len(few))
    x, y, _ = pair(60, 5, 0.5)
    plug_in = -0.5 * torch.linalg.slogdet(torch.cat([x, y], 1).T.corrcoef())[1] + 0.5 * (
        torch.linalg.slogdet(x.T.corrcoef())[1] + torch.linalg.slogdet(y.T.corrcoef())[1]
    )
    assert plug_in - gaussian(x, y) > 0.15  # what the correction takes away


@pytest.mark.parametrize(("dimensions", "correlation"), [(1, 0.6), (1, 0.9), (2, 0.6), (3, 0.6)])
def test_ksg_is_within_a_tenth_where_it_promises_that(dimensions, correlation):
    x, y, truth = pair(3000, dimensions, correlation)
    assert ksg(x, y).item() == pytest.approx(truth, rel=0.1)


def test_ksg_falls_short_in_many_dimensions():
    x, y, truth = pair(2000, 10, 0.8)
    assert ksg(x, y) < 0.8 * truth


@pytest.mark.parametrize("correlation", [0.0, 0.4, 0.95])
def test_ksg_of_scalars_is_that_of_scikit_learn(correlation):
    x, y, _ = pair(500, 1, correlation)
    wanted = mutual_info_regression(x.numpy(), y[:, 0].numpy(), n_neighbors=3, random_state=0)[0]
    assert ksg(x, y).item() == pytest.approx(wanted, abs=1e-6)
    labels = (y[:, 0] > 0.3).long() + (y[:, 0] > 1).long()
    wanted = mutual_info_classif(x.numpy(), labels.numpy(), n_neighbors=3, random_state=0)[0]
    assert ksg(x[:, 0], labels).item() == pytest.approx(wanted, abs=1e-6)


def test_binned_of_scalars_is_near_the_truth_and_blurred_by_wide_bins():
    x, y, truth = pair(20000, 1, 0.8)
    assert binned(x[:, 0], y[:, 0], bins=20).item() == pytest.approx(truth, rel=0.1)
    assert binned(x[:, 0], y[:, 0], bins=4) < 0.8 * truth


def test_binned_against_counting():
    torch.manual_seed(0)
    x, labels = torch.rand(50, 2), torch.randint(3, (50,))
    cells = [[min(7, int((v - c.min()) / ((c.max() - c.min()) / 8))) for v in c] for c in x.T]
    for column in range(2):
        joint = list(zip(cells[column], labels.tolist(), strict=True))
        wanted = sum(_entropy(part) for part in (cells[column], labels.tolist())) - _entropy(joint)
        assert binned(x, labels)[column].item() == pytest.approx(max(0, wanted), abs=1e-9)
        assert binned(x[:, column], labels).item() == pytest.approx(max(0, wanted), abs=1e-9)


def _entropy(values):
    shares = [values.count(value) / len(values) for value in set(values)]
    return -sum(share * math.log(share) for share in shares) + (len(shares) - 1) / (2 * len(values))


def test_the_correction_of_binned_takes_most_of_the_bias():
    generator = torch.Generator().manual_seed(0)
    x, labels = torch.rand(500, 200, generator=generator), torch.arange(500) % 10
    assert binned(x, labels).mean() < 0.02  # the truth is 0
    without = (binned(x, labels) + 63 / (2 * 500)).mean()
    assert without > 0.06


@given(samples=st.integers(1, 8), labelled=st.booleans())
@settings(max_examples=20, deadline=None)
def test_constants_tell_nothing(samples, labelled):
    torch.manual_seed(samples)
    constant, other = torch.full((samples,), 3.0), torch.randn(samples)
    for estimator in (binned, ksg):
        assert estimator(constant, other).item() == 0
        assert estimator(other, constant.long() if labelled else constant).item() == 0
    if samples > 3:
        assert gaussian(constant, other).item() == 0


def test_gaussian_refuses_labels_and_too_few_samples():
    with pytest.raises(ValueError, match="y holds labels"):
        gaussian(torch.randn(9), torch.arange(9))
    with pytest.raises(ValueError, match="4 of 6 dimensions"):
        gaussian(torch.randn(4, 3), torch.randn(4, 3))


def test_labels_that_stand_alone_are_left_out():
    assert ksg(torch.randn(5), torch.arange(5)).item() == 0
