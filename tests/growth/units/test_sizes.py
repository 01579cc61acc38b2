"""Sizes: what calls make equal, take apart and put together."""

from hypothesis import given
from hypothesis import strategies as st

from growlib.growth.units.frozen import together
from growlib.growth.units.shapes import reshape
from growlib.growth.units.sizes import Size, cut, equal, factors_of, fixed, product, segments_of, split, total

WHY = "for a test"


@given(heads=st.integers(1, 4), entries=st.integers(1, 5), rest=st.integers(1, 3))
def test_a_reshape_takes_a_free_size_apart_and_puts_it_together(heads, entries, rest):
    whole = Size(heads * entries)
    apart = reshape([fixed(2), whole], (2, heads, entries, *[1] * (rest - 1)), WHY)
    assert [size.size for size in apart] == [2, heads, entries, *[1] * (rest - 1)]
    together_again = reshape(apart, (2, heads * entries), WHY)
    assert together_again[1].size == heads * entries
    assert set(together_again[1].free()) == set(whole.free())


def test_a_reshape_across_dimensions_refuses_them():
    left, right = Size(4), Size(6)
    reshape([left, right], (3, 8), WHY)
    assert left.free() == right.free() == [] and left.why() == WHY


def test_equal_sizes_share_what_they_are_made_of():
    whole, other = Size(24), Size(24)
    heads, entries = split(whole, 3, WHY)
    equal(whole, other, WHY)
    assert [leaf.size for leaf in other.free()] == [3, 8] and set(other.free()) == {heads, entries}
    finer = Size(24)
    equal(product([Size(3), Size(2), Size(4)]), other, WHY)
    equal(finer, other, WHY)
    assert [factor.size for factor in factors_of(finer)] == [3, 2, 4]


def test_sizes_that_were_taken_apart_in_different_ways_are_refused():
    one, two = Size(12), Size(12)
    split(one, 3, WHY), split(two, 4, WHY)
    equal(one, two, "another order")
    assert one.why() == two.why() == "another order"


def test_what_meets_a_fixed_size_is_fixed_with_its_reason():
    size = Size(3)
    equal(size, fixed(3, "the input"), WHY)
    assert size.why() == "the input" and not size.free()


@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4), cuts=st.data())
def test_pieces_of_a_sum_are_sums(lengths, cuts):
    parts = [Size(length) for length in lengths]
    whole = total(parts)
    first = cuts.draw(st.integers(0, whole.size))
    pieces = cut(whole, [n for n in (first, whole.size - first) if n], WHY)
    assert sum(piece.size for piece in pieces) == whole.size
    again = [segment for piece in pieces for segment in segments_of(piece)]
    assert [segment.size for segment in again] == [segment.size for segment in segments_of(whole)]


def test_a_channel_shuffle_makes_its_halves_equal():
    left, right = Size(6), Size(6)
    groups, channels = split(total([left, right]), 2, WHY)
    assert groups.why() == WHY and left.root is right.root is channels.root


def test_a_size_never_contains_itself():
    size = Size(4)
    equal(size, product([size, Size(1)]), WHY)
    assert size.free() == [] and size.leaves()
    stuck = fixed(4, "stuck")
    equal(product([stuck, Size(1)]), stuck, WHY)
    assert stuck.leaves()


def test_groups_of_different_sizes_change_by_what_both_divide():
    channels = Size(24)
    groups, own = split(channels, 6, WHY)  # 6 groups of 4
    own.fix("groups keep their size")
    others, size = split(channels, 8, WHY)  # 8 groups of 3
    (free,) = channels.free()
    assert (free.size, size.size, others.size) == (2, 3, 8)
    assert together([channels], free) == 12
