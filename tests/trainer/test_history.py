"""History: plain records that merge, count and load."""

import pytest

from growlib.trainer import History


def test_values_of_one_step_are_one_record():
    history = History()
    history.log(10, val_loss=0.5)
    history.log(10, test_loss=0.6)
    history.log(20, val_loss=0.4)
    assert history.records == [{"step": 10, "val_loss": 0.5, "test_loss": 0.6}, {"step": 20, "val_loss": 0.4}]
    assert history.column("val_loss") == [0.5, 0.4]
    assert history.column("val_loss", since=10) == [0.4]
    assert history.column("test_loss") == [0.6]


def test_the_frame_has_a_column_for_every_width():
    history = History([{"step": 1, "widths": {"hidden1": 4, "hidden2": 3}}, {"step": 2, "widths": {"hidden1": 6}}])
    frame = history.frame()
    assert frame["widths.hidden1"].tolist() == [4, 6] and frame["widths.hidden2"].isna().tolist() == [False, True]


def test_state_loads_into_another():
    history = History([{"step": 1, "val_loss": 0.5}], [{"kind": "widen", "step": 1}], [0.7])
    other = History()
    other.load_state_dict(history.state_dict())
    assert other.state_dict() == history.state_dict()
    assert repr(other) == "History(1 epochs, 1 steps, 1 changes; val_loss 0.5000)"


def test_an_unknown_column_is_an_error_but_an_empty_history_is_not():
    assert History().column("val_loss") == []
    with pytest.raises(ValueError, match="no column 'val_los' in History: there are step, val_loss"):
        History([{"step": 1, "val_loss": 0.5}]).column("val_los")
