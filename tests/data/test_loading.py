"""Loading: what is asked for or an error, and a word about classes that can't be learned."""

import warnings

import numpy as np
import pytest

from growlib import load, split_by_class


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load("mnits"), "unknown data set 'mnits': did you mean 'mnist'"),
        (lambda: load("MNIST"), "did you mean 'mnist'"),
        (lambda: load("weather"), "unknown data set 'weather'. There are mnist"),
        (lambda: load("digits", validation=1.5), "validation=1.5 must be a share"),
        (lambda: load("digits", validation=1e-9), "leaves an empty split"),
    ],
)
def test_bad_requests_are_told_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_settings_belong_to_drawn_data():
    with pytest.raises(TypeError, match="digits takes no settings, and got bits"):
        load("digits", bits=3)


def test_any_file_of_the_format_loads(tmp_path):
    arrays = {
        "train_images": np.random.default_rng(0).integers(0, 255, (20, 3, 4, 4)).astype(np.uint8),
        "train_labels": np.arange(20) % 2,
        "test_images": np.zeros((4, 3, 4, 4), np.uint8),
        "test_labels": np.zeros(4, np.int64),
        "classes": np.array(["cat", "dog"]),
    }
    np.savez(tmp_path / "mine.npz", **arrays)
    data = load(tmp_path / "mine.npz")
    assert (data.name, data.shape, data.classes) == ("mine", (3, 4, 4), ["cat", "dog"])
    assert len(data.train) == 18 and len(data.val) == 2


def labelled(path, counts, classes=None):
    """A file with so many training examples of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    arrays = {
        "train_images": np.zeros((len(labels), 2), np.float32),
        "train_labels": labels,
        "test_images": np.zeros((2, 2), np.float32),
        "test_labels": np.zeros(2, np.int64),
        "classes": np.array(classes or [f"class {label}" for label in range(len(counts))]),
    }
    np.savez(path, **arrays)
    return path


def test_a_class_without_training_examples_is_told(tmp_path):
    path = labelled(tmp_path / "mine.npz", [20, 0, 20])
    with pytest.warns(UserWarning, match=r"mine has no training example of 1 of its 3 classes: 'class 1' \(0 in val\)"):
        load(path)
    path = labelled(tmp_path / "mine.npz", [20, 1, 20])
    told = []
    for seed in range(30):  # one example is either learned from, or laid aside
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            data = load(path, seed=seed)
        told.append(bool(caught))
        assert told[-1] == bool((data.val.labels == 1).any())
        assert not caught or "'class 1' (1 in val)" in str(caught[0].message)
    assert set(told) == {True, False}


@pytest.mark.parametrize("name", ["digits", "fashion_mini", "parity", "shapes", "spirals"])
def test_where_all_classes_are_there_nothing_is_told(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load(name)
        tasks = split_by_class(data, len(data.classes) // 2)  # each has fewer, and names them so
    assert all(set(task.train.labels.tolist()) == {0, 1} for task in tasks)
