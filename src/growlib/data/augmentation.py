"""What augmentation does to a batch of images (B, C, H, W) of bytes: mirrored, moved, and with a square blanked."""

import torch
from torch import Tensor
from torch.nn.functional import pad

BORDERS = ("black", "reflect")
FLIPS = (False, True, "alternating")


def refuse_settings(side: int, shift: int, flip: bool | str, cutout: int, border: str):
    """Raises a ValueError for an augmentation that images of this side can't have."""
    if flip not in FLIPS:
        raise ValueError(f"flip={flip!r} must be one of {', '.join(map(repr, FLIPS))}")
    if border not in BORDERS:
        raise ValueError(f"border={border!r} must be one of {', '.join(map(repr, BORDERS))}")
    for setting, pixels in (("shift", shift), ("cutout", cutout)):
        if not isinstance(pixels, int) or not 0 <= pixels <= side:
            raise ValueError(f"{setting}={pixels!r} must be a whole number from 0 to the image's side, {side} pixels")
    if border == "reflect" and shift >= max(side, 1):
        raise ValueError(f"shift={shift} leaves nothing to reflect in images of {side} pixels: it must be below that")


def flipped(images: Tensor, generator, mirrored: Tensor | None = None) -> Tensor:
    """Left and right exchanged in some images, (B,) of bool, or in every other one by chance."""
    if mirrored is None:
        mirrored = torch.rand(len(images), device=images.device, generator=generator) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def shifted(images: Tensor, most: int, border: str, generator) -> Tensor:
    """Every image moved by its own whole number of pixels, up to `most`, in both directions."""
    size, _, height, width = images.shape
    windows = framed(images, most, border).unfold(2, height, 1).unfold(3, width, 1)  # (B, C, rows, columns, H, W)
    down, right = torch.randint(0, 2 * most + 1, (2, size), device=images.device, generator=generator)
    return windows[torch.arange(size, device=images.device), :, down, right]  # (B, C, H, W)


def framed(images: Tensor, width: int, border: str) -> Tensor:
    """Images with a frame: black, or what a mirror at the edge shows."""
    if border == "black":
        return pad(images, (width,) * 4)
    for axis in (2, 3):  # torch's own reflection takes no bytes
        last = images.shape[axis] - 1
        place = torch.arange(-width, last + width + 1, device=images.device).abs()  # (side + 2 width,)
        images = images.index_select(axis, last - (last - place).abs())
    return images


def cut(images: Tensor, side: int, generator) -> Tensor:
    """Every image with a square blanked whose centre is any of its pixels."""
    size, _, height, width = images.shape
    blank = []
    for length in (height, width):
        first = torch.randint(0, length, (size, 1), device=images.device, generator=generator) - side // 2
        place = torch.arange(length, device=images.device)
        blank.append((place >= first) & (place < first + side))  # (B, length)
    return images.masked_fill((blank[0][:, :, None] & blank[1][:, None, :])[:, None], 0)
