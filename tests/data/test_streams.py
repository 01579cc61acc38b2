"""Streams: one data set as several tasks; and images in another shape."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from growlib import load, permuted, relabelled, split_by_class
from growlib.data import Split


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def test_tasks_share_the_classes_evenly_and_lose_no_image(digits):
    stream = split_by_class(digits, 5)
    assert [task.name for task in stream] == [f"digits-{number}" for number in range(1, 6)]
    assert [task.classes for task in stream] == [digits.classes[2 * n : 2 * n + 2] for n in range(5)]
    for split in ("train", "val", "test"):
        assert sum(len(getattr(task, split)) for task in stream) == len(getattr(digits, split))
        whole = getattr(digits, split)
        for number, task in enumerate(stream):
            part = getattr(task, split)
            assert torch.equal(part.images, whole.images[whole.labels // 2 == number])
            assert torch.equal(part.labels + 2 * number, whole.labels[whole.labels // 2 == number])
    assert stream[2].provenance["sizes"]["train"] == len(stream[2].train) and "digits-3" in repr(stream[2])


def test_permuted_tasks_shuffle_all_images_alike(digits):
    first, second, third = permuted(digits, 3, seed=1)
    assert torch.equal(first.train.images, digits.train.images) and first.name == "digits-1"
    old, new = digits.train.images.flatten(2), second.train.images.flatten(2)
    order = [int((old == new[:, :, i : i + 1]).all(0).all(0).nonzero()[0]) for i in (9, 20, 50)]
    assert all(torch.equal(new[:, :, i], old[:, :, o]) for i, o in zip((9, 20, 50), order, strict=True))
    assert torch.equal(new.sort(2).values, old.sort(2).values)
    assert not torch.equal(second.test.images, third.test.images)
    assert torch.equal(permuted(digits, 2, seed=1)[1].test.images, second.test.images)


def test_relabelled_tasks_give_every_class_another_number(digits):
    first, second, third = relabelled(digits, 3, seed=1)
    assert torch.equal(first.train.labels, digits.train.labels) and first.classes == digits.classes
    assert second.name == "digits-2" and second.train.images is digits.train.images
    for task in (second, third):
        for split in ("train", "val", "test"):
            for old, new in zip(getattr(digits, split).labels, getattr(task, split).labels, strict=True):
                assert task.classes[new] == digits.classes[old]
    assert second.classes != third.classes and sorted(second.classes) == digits.classes
    assert relabelled(digits, 2, seed=1)[1].classes == second.classes != relabelled(digits, 2, seed=2)[1].classes


def test_labels_of_pixels_are_not_given_other_numbers(digits):
    labelled = replace(digits, train=Split(digits.train.images, digits.train.images[:, 0].long()))
    with pytest.raises(ValueError, match="digits has labels of every pixel"):
        relabelled(labelled, 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda d: split_by_class(d, 3),
        lambda d: split_by_class(d, 0),
        lambda d: permuted(d, 0),
        lambda d: relabelled(d, 1.5),
    ],
)
def test_streams_that_cannot_be_are_refused(digits, make):
    with pytest.raises(ValueError, match="tasks"):
        make(digits)


@pytest.mark.parametrize("name, factor, frame", [("digits", 4, 0), ("fashion_mini", 1, 2)])
def test_images_take_another_shape_pixel_by_pixel(name, factor, frame):
    data = load(name)
    wide = data.reshaped((3, 32, 32))
    assert wide.shape == (3, 32, 32) and len(wide.mean) == len(wide.std) == 3
    for split in ("train", "val", "test"):
        old = getattr(data, split).images[:5, 0].numpy()
        expected = np.pad(np.kron(old, np.ones((1, factor, factor), np.uint8)), ((0, 0), (frame,) * 2, (frame,) * 2))
        for channel in range(3):
            assert np.array_equal(getattr(wide, split).images[:5, channel].numpy(), expected)
    inputs, labels = wide.augmented(shift=2, flip=True).batch("train", torch.arange(4), torch.Generator())
    assert inputs.shape == (4, 3, 32, 32) and torch.equal(labels, data.train.labels[:4])
    plain = wide.batch("val", torch.arange(2))[0]
    inner = data.batch("val", torch.arange(2))[0].repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    assert torch.equal(plain[:, :1, frame : 32 - frame, frame : 32 - frame], inner)


@pytest.mark.parametrize("shape", [(1, 4, 8), (3, 8, 4), (8, 8)])
def test_shapes_that_would_lose_pixels_are_refused(digits, shape):
    with pytest.raises(ValueError, match=r"digits has examples of shape \(1, 8, 8\), which can't become"):
        digits.reshaped(shape)


def test_colours_do_not_become_grey():
    with pytest.raises(ValueError, match="can't become"):
        load("shapes", n=100).reshaped((1, 32, 32))
