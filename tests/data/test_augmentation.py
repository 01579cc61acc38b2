"""Alternating flips and reflected borders, against the slow and obvious."""

import pytest
import torch

from growlib.data import load
from growlib.data.augmentation import framed, shifted
from growlib.trainer.batches import Batch


def images(size: int = 6, side: int = 7):
    draw = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (size, 3, side, side), generator=draw, dtype=torch.uint8)


@pytest.mark.parametrize("width", [1, 2, 6])
def test_a_reflected_frame_is_that_of_torch(width):
    expected = torch.nn.functional.pad(images().float(), (width,) * 4, mode="reflect")
    assert torch.equal(framed(images(), width, "reflect").float(), expected)


def test_images_move_alike_whatever_moves_in():
    black, mirror = (shifted(images(), 2, border, torch.Generator().manual_seed(3)) for border in ("black", "reflect"))
    there = black > 0
    assert torch.equal(mirror[there], black[there]) and (mirror > 0).all() and not there.all()


def digits(**settings):
    return load("digits").augmented(**settings)


def epochs_of(data, seed: int = 0, epochs: int = 4, size: int = 500):
    """The inputs of every epoch, in the order of the data set."""
    for epoch in range(epochs):
        inputs = torch.empty(len(data.train), *data.shape)
        for step, start in enumerate(range(0, len(data.train), size)):
            batch = Batch(seed, epoch, 100 * epoch + step, start, size, 1)
            inputs[batch.index(data)] = next(batch.parts(data))[0]
        yield inputs


def test_two_epochs_show_every_image_both_ways():
    data = digits(flip="alternating")
    plain = data.normalize(data.train.images)
    first, second, third, _ = epochs_of(data)
    kept, mirrored = (first == plain).flatten(1).all(1), (first == plain.flip(3)).flatten(1).all(1)
    assert (kept | mirrored).all() and mirrored.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert torch.equal(second, first.flip(3)) and torch.equal(third, first)
    assert not torch.equal(next(epochs_of(data, seed=1)), first)  # another seed, another half
    random = list(epochs_of(digits(flip=True), epochs=2))
    assert not torch.equal(random[1], random[0].flip(3))  # the negative control


def test_a_batch_is_drawn_alike_at_any_time():
    data = digits(flip="alternating", shift=1, border="reflect")
    batch = Batch(0, 3, 17, 100, 50, 1)
    assert torch.equal(next(batch.parts(data))[0], next(batch.parts(data))[0])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"flip": "sometimes"}, "flip='sometimes' must be one of False, True, 'alternating'"),
        ({"border": "white"}, "border='white' must be one of 'black', 'reflect'"),
        ({"shift": 8, "border": "reflect"}, "shift=8 leaves nothing to reflect in images of 8 pixels"),
    ],
)
def test_what_cannot_be_is_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        digits(**settings)


def test_printing_tells_the_border():
    assert "augmented by shift 2, flip alternating, border reflect" in str(
        digits(shift=2, flip="alternating", border="reflect")
    )
