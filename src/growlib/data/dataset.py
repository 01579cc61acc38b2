"""Data sets whose tensors live on the device: loaded once, normalised and augmented in batches."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

from growlib.data import augmentation

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Images (N, C, H, W) of uint8, or points (N, features) of float32, and their labels of int64.

    Labels are (N,), or (N, H, W) where every pixel has one.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def sha256(self) -> str:
        """Of the examples and their labels, in their order: the same on every device."""
        digest = hashlib.sha256()
        for tensor in (self.images, self.labels):
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            for part in tensor.split(10_000):
                digest.update(part.contiguous().cpu().numpy())
        return digest.hexdigest()

    def to(self, device) -> "Split":
        """The same examples on a device; their checksum, if it is known, goes with them."""
        moved = Split(self.images.to(device), self.labels.to(device))
        vars(moved).update({name: value for name, value in vars(self).items() if name == "sha256"})
        return moved


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A training, a validation and a test split on one device.

    Nothing is chosen on test data: triggers, checkpoints and early stopping refuse its columns, see `not_test`.

    Args:
        name: As it was loaded; tasks are told apart by it.
        classes: Their names; the index is the label.
        train, val, test: The splits.
        mean, std: Of the training images, (C,), with pixels from 0 to 1.
        provenance: Name, source, sizes and sha256.
        shift, flip, cutout, border: The augmentation of training batches, see `augmented`.
    """

    name: str
    classes: list[str]
    train: Split
    val: Split
    test: Split
    mean: Tensor
    std: Tensor
    provenance: dict
    shift: int = 0
    flip: bool | str = False
    cutout: int = 0
    border: str = "black"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one example: (C, H, W) or (features,)."""
        return tuple(self.train.images.shape[1:])

    @property
    def device(self) -> torch.device:
        return self.train.labels.device

    def to(self, device) -> "Dataset":
        """The same data on a device."""
        device = torch.device(device)
        if device == self.device or (device.type == self.device.type and device.index is None):
            return self
        moved = {name: getattr(self, name).to(device) for name in SPLITS}
        return replace(self, mean=self.mean.to(device), std=self.std.to(device), **moved)

    def normalize(self, images: Tensor) -> Tensor:
        """Images of uint8 as floats of mean 0 and deviation 1 a channel over the training data; floats as they are."""
        return _rescaled(images, *self._scale)

    @cached_property
    def _scale(self) -> tuple[Tensor, Tensor]:
        return _scale(self.mean, self.std)

    def augmented(self, shift: int = 0, flip: bool | str = False, cutout: int = 0, border: str = "black") -> "Dataset":
        """The same data whose training batches are changed at random, anew every time.

        Args:
            shift: Up to so many pixels in every direction.
            flip: Left and right, every other image; "alternating" mirrors one half of the images in one epoch and the
                other half in the next, so that two epochs show every image both ways.
            cutout: The side of a square that is blanked, in pixels.
            border: What moves in: "black", the darkest value, or "reflect", what a mirror at the edge shows.

        Source: for "alternating", Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (2024), section 3.6.
        """
        if self.train.images.ndim != 4 and (shift or flip or cutout):
            raise ValueError(f"{self.name} has examples of shape {self.shape}: only images can be augmented")
        if self.train.labels.ndim > 1 and (shift or flip or cutout):
            raise ValueError(
                f"{self.name} has labels of every pixel, which would not move with the image: leave it as it is"
            )
        side = min(self.shape[1:], default=0)  # of points: 0
        augmentation.refuse_settings(side, shift, flip, cutout, border)
        return replace(self, shift=shift, flip=flip, cutout=cutout, border=border)

    def reshaped(self, shape: tuple[int, int, int]) -> "Dataset":
        """The same images in another shape, still as bytes: so that one network can learn several data sets.

        Grey is repeated in every channel; small images are enlarged by the largest whole factor that fits, and framed
        by black pixels.

        Args:
            shape: (C, H, W), not smaller than that of the images.
        """
        before, fits = self.shape, len(self.shape) == len(shape) == 3
        if not fits or before[0] not in (1, shape[0]) or before[1] > shape[1] or before[2] > shape[2]:
            raise ValueError(
                f"{self.name} has examples of shape {before}, which can't become {tuple(shape)}: images can get more "
                "pixels, and grey ones more channels"
            )
        factor = min(shape[1] // before[1], shape[2] // before[2])
        rows, columns = (new - factor * old for new, old in zip(shape[1:], before[1:], strict=True))
        frame = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)

        def converted(split: Split) -> Split:
            images = (
                split.images.repeat_interleave(factor, 2).repeat_interleave(factor, 3) if factor > 1 else split.images
            )
            return Split(pad(images, frame).expand(-1, shape[0], -1, -1), split.labels)  # channels share their bytes

        splits = {name: converted(getattr(self, name)) for name in SPLITS}
        return replace(self, mean=self.mean.expand(shape[0]), std=self.std.expand(shape[0]), **splits)

    @property
    def augments(self) -> bool:
        return bool(self.shift or self.flip or self.cutout)

    def augment(
        self, images: Tensor, generator: torch.Generator | None = None, mirrored: Tensor | None = None
    ) -> Tensor:
        """A batch of uint8 (B, C, H, W) with this data set's augmentation; each image draws its own.

        Args:
            images: Before they are normalised, so that what moves in is black.
            generator: On the images' device; the same one, the same augmentation.
            mirrored: Which images are flipped, (B,) of bool; else they draw.
        """
        if self.flip:
            images = augmentation.flipped(images, generator, mirrored)
        if self.shift:
            images = augmentation.shifted(images, self.shift, self.border, generator)
        return augmentation.cut(images, self.cutout, generator) if self.cutout else images

    def batch(
        self,
        split: str,
        index: Tensor,
        generator: torch.Generator | None = None,
        mirrored: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Some examples, normalised; those of "train" augmented if there is a generator.

        Args:
            split: "train", "val" or "test".
            index: Which examples, (B,).
            generator: Of the augmentation.
            mirrored: As in `augment`.

        Returns:
            Inputs (B, ...) of float32 and labels (B,), or (B, H, W) where every pixel has one.
        """
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r} of {self.name}: choose one of {', '.join(SPLITS)}")
        chosen = getattr(self, split)
        images = chosen.images.index_select(0, index)
        if split == "train" and generator is not None:
            images = self.augment(images, generator, mirrored)
        return self.normalize(images), chosen.labels.index_select(0, index)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{size:,} {split}" for split, size in self.provenance["sizes"].items())
        kind = "images of" if self.train.images.ndim == 4 else "inputs of"
        lines = [
            f"{self.name}: {kind} {' x '.join(map(str, self.shape))}, {len(self.classes)} classes",
            f"  sizes   {sizes}",
            f"  source  {self.provenance['source']}",
            f"  sha256  {self.provenance['sha256']}",
        ]
        changes = [f"{name} {getattr(self, name)}" for name in ("shift", "flip", "cutout") if getattr(self, name)]
        changes += [f"border {self.border}"] if self.shift and self.border != "black" else []
        return "\n".join([*lines, f"  augmented by {', '.join(changes)}"] if changes else lines)


def normalized(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """What `Dataset.normalize` does, with given statistics: (x / 255 - mean) / std."""
    return _rescaled(images, *_scale(mean, std))


def _scale(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """The normalisation as one multiplication and one addition a pixel: two tensors (C, 1, 1)."""
    return (1 / (255 * std))[:, None, None], (-mean / std)[:, None, None]


def _rescaled(images: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    return images.float().mul_(scale).add_(offset) if images.dtype == torch.uint8 else images


def not_test(column: str) -> str:
    """The name of a column of History, unless it was measured on test data.

    Raises:
        ValueError: For a `test_` column: what is chosen, triggered or stopped by it is not tested any more.
    """
    if column.startswith("test"):
        raise ValueError(
            f"{column!r} is measured on test data, which may be looked at but not chosen by: "
            f"use {column.replace('test', 'val', 1)!r}"
        )
    return column


def statistics(images: Tensor, chunk: int = 1000) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, pixels from 0 to 1, without a float copy of the data."""
    if images.dtype != torch.uint8:
        return torch.zeros(1), torch.ones(1)
    levels, mean, std = torch.arange(256, dtype=torch.float64) / 255, [], []
    for channel in range(images.shape[1]):  # whole numbers, so nothing is rounded until the last line
        counts = sum(torch.bincount(part[:, channel].flatten(), minlength=256) for part in images.split(chunk))
        share = counts.double() / counts.sum()
        mean.append(share @ levels)
        # A channel of one colour becomes 0, not infinite.
        std.append((share @ (levels - mean[-1]).square()).sqrt() if counts.count_nonzero() > 1 else share.new_ones(()))
    return torch.stack(mean).float(), torch.stack(std).float()
