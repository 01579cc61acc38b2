"""Data sets against slow, obvious computations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from growlib import load
from growlib.data import Dataset, Split, normalized, not_test, scenes

DRAWN_AND_EMBEDDED = ["digits", "fashion_mini", "parity", "shapes", "spirals"]


@pytest.fixture(scope="module")
def fashion():
    return load("fashion_mini")


def pictures(size=6, channels=2, height=5, width=7):
    """A data set whose pixels are all different from zero, so that blanks show."""
    images = torch.randint(1, 256, (size, channels, height, width), dtype=torch.uint8)
    split = Split(images, torch.zeros(size, dtype=torch.int64))
    return Dataset("pictures", ["one"], split, split, split, torch.zeros(channels), torch.ones(channels), {})


@pytest.mark.parametrize("name", DRAWN_AND_EMBEDDED)
def test_splits_are_disjoint_seeded_and_labelled(name):
    data, again, other = load(name), load(name), load(name, seed=1)
    for split in ("train", "val", "test"):
        assert torch.equal(getattr(data, split).images, getattr(again, split).images)
        labels = getattr(data, split).labels
        assert labels.min() >= 0 and labels.max() < len(data.classes) and len(labels) == len(getattr(data, split))
    assert not torch.equal(data.val.images, other.val.images)
    rows = {split: {image.numpy().tobytes() for image in getattr(data, split).images} for split in ("train", "val")}
    if name != "digits":  # scikit-learn's digits hold none twice either, but need not
        assert not rows["train"] & rows["val"]


def test_the_provenance_is_that_of_the_file_whatever_the_split():
    one, other = load("digits"), load("digits", seed=3, validation=0.3)
    assert one.provenance["sha256"] == other.provenance["sha256"] and len(one.provenance["sha256"]) == 64
    assert one.provenance["sha256"] in str(one) and "scikit-learn" in str(one)
    assert one.provenance["sizes"] == {"train": len(one.train), "val": len(one.val), "test": len(one.test)}
    assert load("spirals").provenance["sha256"] != load("spirals", seed=1).provenance["sha256"]


def test_statistics_are_those_of_a_float_copy_of_the_training_split(fashion):
    for data in (fashion, load("shapes", n=600)):
        pixels = data.train.images.double() / 255
        torch.testing.assert_close(data.mean.double(), pixels.mean((0, 2, 3)), rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(data.std.double(), pixels.std((0, 2, 3), correction=0), rtol=1e-6, atol=1e-7)
        normal = data.normalize(data.train.images)
        assert torch.equal(normal, normalized(data.train.images, data.mean, data.std))
        assert normal.dtype == torch.float32
        torch.testing.assert_close(normal.mean((0, 2, 3)), torch.zeros(data.shape[0]), atol=1e-4, rtol=0)
        torch.testing.assert_close(normal.std((0, 2, 3)), torch.ones(data.shape[0]), atol=1e-4, rtol=0)


def test_a_batch_is_the_chosen_examples_normalised(fashion):
    index = torch.tensor([5, 3, 3])
    inputs, labels = fashion.batch("val", index)
    for row, place in enumerate(index):
        image = fashion.val.images[place].double() / 255
        expected = (image - fashion.mean.double()[:, None, None]) / fashion.std.double()[:, None, None]
        torch.testing.assert_close(inputs[row].double(), expected, rtol=1e-5, atol=1e-5)
        assert labels[row] == fashion.val.labels[place]


def test_floats_pass_through():
    points = load("spirals")
    assert points.normalize(points.train.images) is points.train.images
    assert normalized(torch.ones(2), torch.zeros(1), torch.ones(1)).dtype == torch.float32


def test_only_training_batches_with_a_generator_are_augmented(fashion):
    data, index = fashion.augmented(shift=3), torch.arange(20)
    generator = torch.Generator().manual_seed(0)
    assert not torch.equal(data.batch("train", index, generator)[0], data.batch("train", index)[0])
    assert torch.equal(data.batch("val", index, generator)[0], fashion.batch("val", index)[0])
    assert data.train.images is fashion.train.images  # no copy


@given(shift=st.integers(1, 4), seed=st.integers(0, 50))
@settings(max_examples=25, deadline=None)
def test_every_shifted_image_is_one_of_the_possible_shifts(shift, seed):
    data = pictures()
    moved = data.augmented(shift=shift).augment(data.train.images, torch.Generator().manual_seed(seed))
    height, width = data.shape[1:]
    for before, after in zip(data.train.images, moved, strict=True):
        canvas = torch.zeros(2, height + 2 * shift, width + 2 * shift, dtype=torch.uint8)
        canvas[:, shift : shift + height, shift : shift + width] = before
        candidates = [
            canvas[:, down : down + height, right : right + width]
            for down in range(2 * shift + 1)
            for right in range(2 * shift + 1)
        ]
        assert sum(torch.equal(after, candidate) for candidate in candidates) == 1


def test_images_of_a_batch_move_differently_and_all_shifts_occur():
    data = pictures(size=2000, channels=1)
    moved = data.augmented(shift=1).augment(data.train.images, torch.Generator().manual_seed(0))
    unmoved = (moved == data.train.images).flatten(1).all(1).float().mean().item()
    assert unmoved == pytest.approx(1 / 9, abs=0.03)


def test_half_of_the_images_are_flipped():
    data = pictures(size=1000)
    flipped = data.augmented(flip=True).augment(data.train.images, torch.Generator().manual_seed(0))
    mirrored = (flipped == data.train.images.flip(3)).flatten(1).all(1)
    kept = (flipped == data.train.images).flatten(1).all(1)
    assert (mirrored | kept).all() and mirrored.float().mean().item() == pytest.approx(0.5, abs=0.06)


@given(side=st.integers(1, 5), seed=st.integers(0, 50))
@settings(max_examples=25, deadline=None)
def test_cutout_blanks_one_square(side, seed):
    data = pictures()
    cut = data.augmented(cutout=side).augment(data.train.images, torch.Generator().manual_seed(seed))
    for before, after in zip(data.train.images, cut, strict=True):
        blank = (after == 0).all(0)
        rows, columns = blank.any(1).nonzero().flatten(), blank.any(0).nonzero().flatten()
        assert 1 <= len(rows) <= side and 1 <= len(columns) <= side  # less at the border
        expected = before.clone()
        expected[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = 0
        assert torch.equal(after, expected)


def test_augmentation_follows_its_generator():
    data = pictures(size=50).augmented(shift=2, flip=True, cutout=3)
    draws = [data.augment(data.train.images, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    plain = pictures()
    assert plain.augment(plain.train.images) is plain.train.images


def test_augmentation_is_that_of_one_image_after_the_other():
    data = pictures(size=40).augmented(shift=3, flip=True, cutout=4)
    fast = data.augment(data.train.images, torch.Generator().manual_seed(5))
    assert torch.equal(fast, augmented_slowly(data, torch.Generator().manual_seed(5)))
    assert not torch.equal(fast, augmented_slowly(data, torch.Generator().manual_seed(6)))  # the negative control


def augmented_slowly(data, generator):
    """The same draws, applied pixel by pixel."""
    images = data.train.images
    (size, _, height, width), most = images.shape, data.shift
    mirrored = torch.rand(size, generator=generator) < 0.5
    down, right = torch.randint(0, 2 * most + 1, (2, size), generator=generator) - most
    top, left = (
        torch.randint(0, side, (size, 1), generator=generator)[:, 0] - data.cutout // 2 for side in (height, width)
    )
    changed = torch.zeros_like(images)
    for image in range(size):
        for y in range(height):
            for x in range(width):
                blank = top[image] <= y < top[image] + data.cutout and left[image] <= x < left[image] + data.cutout
                source_y, source_x = y + down[image], x + right[image]
                if not blank and 0 <= source_y < height and 0 <= source_x < width:
                    column = width - 1 - source_x if mirrored[image] else source_x
                    changed[image, :, y, x] = images[image, :, source_y, column]
    return changed


def test_augmentation_that_makes_no_sense_is_refused(fashion):
    with pytest.raises(ValueError, match="only images can be augmented"):
        load("spirals").augmented(flip=True)
    with pytest.raises(ValueError, match="scenes has labels of every pixel"):
        scenes(fashion, ["Bag"], n=5).augmented(shift=1)
    with pytest.raises(ValueError, match="shift=40 must be a whole number from 0 to the image's side, 28 pixels"):
        fashion.augmented(shift=40)


@pytest.mark.parametrize("setting", [{"shift": 1.5}, {"shift": -1}, {"cutout": "4"}, {"cutout": -2}])
def test_pixels_of_augmentation_are_whole_numbers(fashion, setting):
    with pytest.raises(ValueError, match="must be a whole number from 0"):
        fashion.augmented(**setting)


def test_an_unknown_split_is_named_with_the_known_ones(fashion):
    with pytest.raises(ValueError, match="unknown split 'testing' of fashion_mini: choose one of train, val, test"):
        fashion.batch("testing", torch.arange(2))


def test_a_channel_of_one_colour_stays_finite(tmp_path):
    arrays = {f"{split}_images": np.full((20, 2, 3, 3), 7, np.uint8) for split in ("train", "test")}
    arrays["train_images"][:, 1] = np.arange(20)[:, None, None]
    arrays |= {f"{split}_labels": np.zeros(20, np.int64) for split in ("train", "test")}
    np.savez(tmp_path / "flat.npz", **arrays, classes=np.array(["one"]))
    inputs, _ = load(tmp_path / "flat.npz").batch("test", torch.arange(20))
    assert inputs[:, 0].abs().max() < 1e-6 and inputs[:, 1].isfinite().all()


def test_printing_tells_the_augmentation(fashion):
    assert "augmented" not in str(fashion) and "28 x 28" in str(fashion)
    assert "augmented by shift 2, flip True" in str(fashion.augmented(shift=2, flip=True))
    assert max(map(len, str(fashion).splitlines())) <= 110


def test_columns_of_test_data_are_guarded():
    assert not_test("val_loss") == "val_loss"
    with pytest.raises(ValueError, match="'test_accuracy' is measured on test data.* use 'val_accuracy'"):
        not_test("test_accuracy")
