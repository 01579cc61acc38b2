"""Views at test time: their shares, what they show, and that the plain number stays plain."""

import pytest
import torch
from torch import nn

from growlib import Evaluate, Trainer, cropped, load, mirrored, view_accuracy


class LeftEye(nn.Module):
    """Sees the left half only: what it says of an image and of its mirror image differs."""

    def __init__(self):
        super().__init__()
        self.look = nn.Linear(32, 10)

    def forward(self, images):
        return self.look(images[..., :4].flatten(1))


def make(callbacks=()):
    torch.manual_seed(0)
    model = LeftEye()
    return Trainer(model, torch.optim.Adam(model.parameters(), lr=0.01), callbacks, device="cpu")


@pytest.mark.parametrize(("views", "number"), [(mirrored, 2), (cropped, 6)])
def test_shares_add_up_and_every_view_comes_with_its_mirror_image(views, number):
    images = torch.randn(3, 2, 5, 6)
    found = views(images)
    assert len(found) == number and sum(share for share, _ in found) == 1
    for (one, left), (other, right) in zip(found[::2], found[1::2], strict=True):
        assert one == other and torch.equal(left.flip(3), right) and left.shape == images.shape
    assert torch.equal(found[0][1], images)


def test_crops_are_those_of_a_reflected_frame():
    images = torch.randn(3, 2, 5, 6)
    wide = nn.functional.pad(images, (1,) * 4, mode="reflect")
    views = cropped(images)
    assert torch.equal(views[2][1], wide[:, :, :5, :6]) and torch.equal(views[4][1], wide[:, :, 2:, 2:])


def test_the_answers_of_views_are_averaged_and_recorded_beside_the_plain_ones():
    digits = load("digits")
    trainer = make([Evaluate("test", mirrored, cropped)])
    record = trainer.fit(digits, epochs=2).records[-1]
    inputs, labels = digits.batch("test", torch.arange(len(digits.test)))
    logits = trainer.model(inputs) + trainer.model(inputs.flip(3))
    assert record["test_accuracy_mirrored"] == int((logits.argmax(1) == labels).sum()) / len(labels)
    assert record["test_accuracy"] == trainer.evaluate(digits, "test")["accuracy"] != record["test_accuracy_mirrored"]
    assert record["test_accuracy_cropped"] == view_accuracy(trainer, digits, "test", cropped)
    plain = make([Evaluate("test")]).fit(digits, epochs=2).records[-1]
    assert plain["test_accuracy"] == record["test_accuracy"] and "test_accuracy_mirrored" not in plain
    assert repr(Evaluate("test", mirrored)) == "Evaluate(split='test', mirrored)"
