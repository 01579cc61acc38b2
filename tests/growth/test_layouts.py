"""Layouts: where units lie after a reshape, against tensors whose every value tells its unit."""

from math import prod

from hypothesis import given
from hypothesis import strategies as st
from networks import lies_as_told, marked

from growlib.growth.layouts import Axis, Layout, reshaped


@given(
    shape=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    dim=st.integers(0, 3),
    cuts=st.lists(st.integers(1, 5), max_size=3),
)
def test_where_a_layout_is_followed_through_a_reshape_the_units_lie_there(shape, dim, cuts):
    shape = [3, *shape]  # examples
    dim = 1 + dim % (len(shape) - 1)
    after, left = [], prod(shape)
    for cut in cuts:
        if left % cut == 0:
            after.append(cut)
            left //= cut
    after.append(left)
    layout = reshaped(Layout(dim - len(shape), ((Axis(0), 1),)), tuple(shape), tuple(after))
    if layout and shape[dim] > 1:
        assert lies_as_told(marked(shape, dim).reshape(after), layout)


def test_a_wrong_layout_does_not_pass_for_a_right_one():
    """The negative control of the test above."""
    axis = Axis(0)
    assert lies_as_told(marked((2, 3, 4), 1).reshape(2, 12), Layout(-1, ((axis, 4),)))
    assert not lies_as_told(marked((2, 3, 4), 2).reshape(2, 12), Layout(-1, ((axis, 3),)))
    assert reshaped(Layout(-1, ((axis, 1),)), (2, 3, 4), (2, 12)) is None
