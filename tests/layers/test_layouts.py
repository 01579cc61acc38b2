"""Layouts, against axes whose every entry is marked with what it is."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from growlib.growth.units.frozen import frozen
from growlib.growth.units.sizes import Size, fixed, product
from growlib.layers.layouts import coarse, kept, labels, positions, size_of, widths_in


def layouts():
    leaf = st.sampled_from(["a", "b", 2, 3])
    return st.recursive(leaf, lambda inner: st.tuples(st.sampled_from("+*"), inner, inner), max_leaves=4)


def marked(layout, sizes):
    """What every entry of an axis is, by a slow walk: a tuple of the units that it belongs to."""
    if isinstance(layout, str):
        return [(f"{layout}{unit}",) for unit in range(sizes[layout])]
    if isinstance(layout, int):
        return [(f"fixed{entry}",) for entry in range(layout)]
    first, second = (marked(part, sizes) for part in layout[1:])
    if layout[0] == "+":
        return [("left", *mark) for mark in first] + [("right", *mark) for mark in second]
    return [mark + other for mark in first for other in second]


@given(layout=layouts(), a=st.integers(1, 3), b=st.integers(1, 3), more=st.integers(0, 2))
def test_old_entries_are_found_again_after_growth(layout, a, b, more):
    before, after = {"a": a, "b": b}, {"a": a + more, "b": b + 1}
    old, new = marked(layout, before), marked(layout, after)
    assert size_of(layout, before) == len(old)
    assert [new[place] for place in kept(layout, before, after)] == old


@given(layout=layouts(), a=st.integers(1, 3))
def test_labels_tell_the_unit(layout, a):
    sizes = {"a": a, "b": 2}
    for mark, unit in zip(marked(layout, sizes), labels(layout, "a", sizes).tolist(), strict=True):
        assert (f"a{unit}" in mark) if unit >= 0 else not any(part.startswith("a") for part in mark)


def test_units_that_come_in_groups_are_listed_one_by_one():
    groups, own = Size(3), fixed(4)
    names = {groups: ("g", 4)}
    assert frozen(product([groups, own]), names) == "g"
    assert frozen(product([fixed(3), groups, own, fixed(5)]), names) == ("*", 3, "g", 5)
    assert coarse(frozen(groups, names), "g") and not coarse("g", "g")
    assert labels(frozen(groups, names), "g", {"g": 12}).tolist() == [0, 4, 8]
    assert positions(("*", "g", 2), "g", {"g": 3}).tolist() == [[0, 1], [2, 3], [4, 5]]
    assert widths_in(("+", "g", ("*", 3, "h"))) == {"g", "h"}


@pytest.mark.parametrize(
    "layout, places", [(("+", "a", "b", "a"), [[0, 4], [1, 5]]), (("*", 2, "a"), [[0, 2], [1, 3]])]
)
def test_positions(layout, places):
    assert torch.equal(positions(layout, "a", {"a": 2, "b": 2}), torch.tensor(places))
