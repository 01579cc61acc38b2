"""The matrix of accuracies, and the numbers read from it, against the formulas as loops."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks import Heads, halves, make

from growlib import MLP, Callback, load
from growlib.continual import (
    Accuracies,
    accuracy_matrix,
    average_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
)


@pytest.fixture(scope="module")
def tasks():
    return halves(load("digits"), 100)


def a_matrix(rows):
    names = [f"task{number}" for number in range(len(rows))]
    return pd.DataFrame(rows, index=pd.Index(names, name="after"), columns=names, dtype=float)


TINY = a_matrix([[0.9, 0.5, 0.4], [0.6, 0.8, 0.5], [0.7, 0.4, 1.0]])


def test_a_matrix_small_enough_for_the_head():
    assert average_accuracy(TINY) == pytest.approx((0.7 + 0.4 + 1.0) / 3)
    assert forgetting(TINY) == pytest.approx((0.9 - 0.7 + 0.8 - 0.4) / 2)
    assert backward_transfer(TINY) == pytest.approx((0.7 - 0.9 + 0.4 - 0.8) / 2)
    assert forward_transfer(TINY, 0.5) == pytest.approx((0.5 - 0.5 + 0.5 - 0.5) / 2)
    assert forward_transfer(TINY, {"task1": 0.1, "task2": 0.3}) == pytest.approx((0.4 + 0.2) / 2)


squares = st.integers(2, 6).flatmap(
    lambda size: st.lists(st.lists(st.floats(0, 1), min_size=size, max_size=size), min_size=size, max_size=size)
)


@given(squares)
def test_the_numbers_are_those_of_the_papers(rows):
    matrix, size = a_matrix(rows), len(rows)
    assert average_accuracy(matrix) == pytest.approx(sum(rows[-1]) / size)
    moved = sum(rows[-1][i] - rows[i][i] for i in range(size - 1)) / (size - 1)
    assert backward_transfer(matrix) == pytest.approx(moved)
    best = [max(rows[line][j] for line in range(size - 1)) for j in range(size - 1)]
    lost = sum(best[j] - rows[-1][j] for j in range(size - 1)) / (size - 1)
    assert forgetting(matrix) == pytest.approx(lost)
    ahead = sum(rows[i - 1][i] - 0.1 for i in range(1, size)) / (size - 1)
    assert forward_transfer(matrix, 0.1) == pytest.approx(ahead)
    assert forgetting(matrix) >= -backward_transfer(matrix) - 1e-12  # the best accuracy is at least the first one


def test_forgetting_is_not_backward_transfer_with_another_sign():
    later = a_matrix([[0.5, 0, 0], [0.9, 0.8, 0], [0.5, 0.8, 1]])  # better in between, and then as at first
    assert backward_transfer(later) == 0 and forgetting(later) == pytest.approx(0.2)


def test_what_is_not_known_yet_is_no_zero():
    rows = np.where(np.tri(3, dtype=bool), TINY, np.nan)
    lower = a_matrix(rows)
    for metric in (average_accuracy, forgetting, backward_transfer):
        assert metric(lower) == pytest.approx(metric(TINY))
    with pytest.raises(ValueError, match="the model did not know 'task1' when it had learned 'task0'"):
        forward_transfer(lower, 0.5)


def test_a_task_that_comes_twice_counts_once():
    twice = TINY.iloc[[0, 1, 0, 2]]
    assert backward_transfer(twice) == backward_transfer(TINY)
    assert forgetting(twice) == forgetting(TINY)


@pytest.mark.parametrize("metric", [forgetting, backward_transfer, lambda matrix: forward_transfer(matrix, 0.5)])
def test_one_task_can_not_be_forgotten(metric):
    with pytest.raises(ValueError, match="needs at least two tasks"):
        metric(TINY.iloc[:1, :1])
    with pytest.raises(ValueError, match="pass the data of task0 to Accuracies too"):
        metric(TINY.drop(columns="task0"))


class Look(Callback):
    rows = ()

    def __init__(self, data):
        self.data = data

    def after_task(self, trainer):
        self.rows = (*self.rows, [trainer.evaluate(data, "val")["accuracy"] for data in self.data])


def test_accuracies_are_measured_when_a_task_ends(tasks):
    look = Look(tasks)
    trainer = make([look, Accuracies(*tasks, split="val")], tasks, model=MLP(64, [12], 5))
    history = trainer.fit(*tasks, epochs=3)
    matrix = accuracy_matrix(history, "val")
    assert list(matrix.index) == list(matrix.columns) == [data.name for data in tasks]
    assert matrix.to_numpy().tolist() == [list(row) for row in look.rows]
    assert matrix.iloc[0, 0] != matrix.iloc[1, 0]
    again = accuracy_matrix(json.loads(json.dumps(history.records)), "val")  # as results keep it
    pd.testing.assert_frame_equal(again, matrix)
    assert len(history.records) == 6
    with pytest.raises(ValueError, match=r"no column test_accuracy_... in History: train with Accuracies"):
        accuracy_matrix(history)


def test_tasks_that_the_model_does_not_know_are_left_out(tasks):
    trainer = make([Accuracies(*tasks)], tasks, model=Heads([tasks[0].name]))
    matrix = accuracy_matrix(trainer.fit(tasks[0], epochs=1))
    assert list(matrix) == [tasks[0].name]


def test_bad_settings_are_refused(tasks):
    with pytest.raises(ValueError, match="needs data sets of different names, and got digits-1, digits-1"):
        Accuracies(tasks[0], tasks[0])
    with pytest.raises(ValueError, match="needs data sets of different names, and got none"):
        Accuracies()
    with pytest.raises(ValueError, match="unknown split 'exam'"):
        Accuracies(*tasks, split="exam")
    assert repr(Accuracies(*tasks)) == "Accuracies('digits-1', 'digits-2', split='test')"
