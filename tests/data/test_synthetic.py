"""Drawn tasks: what they promise."""

import numpy as np
import pytest
import torch

from growlib import load


@pytest.mark.parametrize(("bits", "n"), [(8, None), (12, None), (30, 500)])
def test_parity_counts_ones_and_no_pattern_is_in_two_splits(bits, n):
    data = load("parity", bits=bits, n=n)
    seen = set()
    for split in (data.train, data.val, data.test):
        ones = (split.images > 0).sum(1)
        assert torch.equal(ones % 2, split.labels) and set(split.images.unique().tolist()) == {-1.0, 1.0}
        patterns = {tuple(row.tolist()) for row in split.images}
        assert len(patterns) == len(split) and not patterns & seen
        seen |= patterns
    assert len(seen) == (n or 2**bits)


def test_spirals_lie_on_their_arms():
    data = load("spirals", noise=0.0)
    radius, angle = data.train.images.norm(dim=1), torch.atan2(data.train.images[:, 1], data.train.images[:, 0])
    turns = (angle / (2 * torch.pi) - 1.25 * radius - data.train.labels / 2) % 1
    assert torch.minimum(turns, 1 - turns).max() < 1e-4


def test_shapes_are_balanced_and_differ():
    data = load("shapes", n=600)
    labels = torch.cat([split.labels for split in (data.train, data.val, data.test)])
    assert np.bincount(labels).tolist() == [60] * 10 and data.shape == (3, 32, 32)
    assert len(data.train.images.flatten(1).unique(dim=0)) == len(data.train)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("parity", {"bits": 1}, "2 to 62 bits"),
        ("parity", {"bits": 30}, "say how many"),
        ("parity", {"bits": 4, "n": 20}, "16 distinct patterns"),
        ("spirals", {"classes": 1}, "2 to 10 classes"),
        ("spirals", {"n": 5}, "at least 12 points"),
        ("spirals", {"noise": -1}, "from 0 to 1"),
        ("shapes", {"n": 10}, "at least 60 pictures"),
    ],
)
def test_settings_out_of_range_are_refused_with_the_values(name, settings, message):
    with pytest.raises(ValueError, match=message):
        load(name, **settings)
