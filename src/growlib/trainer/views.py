"""Test-time views: an image is looked at in several ways, and the answers are averaged.

A number that was found with views stands beside the plain one, under a name of its own: it costs as many forward passes
as there are views.
"""

import torch
from torch import Tensor

from growlib.data.augmentation import framed
from growlib.layers import evaluating
from growlib.trainer.outputs import count_correct, logits_in

Views = list[tuple[float, Tensor]]  # the share of every view in the answer, and the images (B, C, H, W)


def mirrored(images: Tensor) -> Views:
    """Every image as it is and mirrored: two views."""
    return [(0.5, images), (0.5, images.flip(3))]


def cropped(images: Tensor) -> Views:
    """Every image as it is, for one half, and moved by a pixel up and left and down and right, each mirrored too: six
    views.

    Source: Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (2024), section 3.5.
    """
    height, width = images.shape[2:]
    wide = framed(images, 1, "reflect")  # (B, C, H + 2, W + 2)
    parts = [(0.5, images), (0.25, wide[:, :, :height, :width]), (0.25, wide[:, :, 2:, 2:])]
    return [(share * half, view) for share, part in parts for half, view in mirrored(part)]


@torch.no_grad()
def view_accuracy(trainer, data, split: str = "test", views=mirrored) -> float:
    """The accuracy on a split when the logits of several views of every image are averaged.

    Args:
        trainer: Whose model it is.
        data: A Dataset of images.
        split: "train", "val" or "test".
        views: `mirrored`, `cropped`, or another function of images to Views.
    """
    data, correct = data.to(trainer.device), 0.0
    size = len(getattr(data, split))
    with evaluating(trainer.model), trainer.autocast():
        for index in torch.arange(size, device=trainer.device).split(max(trainer.batch_size, 1000)):
            images, labels = data.batch(split, index)  # (B, C, H, W), (B,)
            answers = [(share, trainer.replica.model(view, *trainer.task_of(data))) for share, view in views(images)]
            correct += count_correct(sum(share * logits_in(answer) for share, answer in answers), labels)
    return float(correct) / size
