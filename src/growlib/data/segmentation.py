"""Scenes in which every pixel has a label: pictures of a data set, tinted and laid over a ground of colours."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from growlib.data import store
from growlib.data.dataset import SPLITS, Dataset, Split, statistics

GROUND = "background"
_INK = 0.1  # of a picture: darker pixels are the paper behind the thing
_SHRUNK = 2


def scenes(
    pictures: Dataset, things: Sequence[str], n: int = 2000, seed: int = 0, side: int = 32, objects: int = 3
) -> Dataset:
    """Draws scenes of several things, and for every pixel which thing is seen there.

    A scene of a split shows pictures of the same split, at half their size. What is painted later hides what is behind.

    Args:
        pictures: Grey images that are dark around the thing, such as fashion_mini.
        things: The classes of pictures that occur; each has its label, from 1 on, and 0 is the background.
        n: Number of training scenes; there are a fifth as many for validation, and as many for testing.
        seed: Decides the scenes.
        side: Of a scene, in pixels.
        objects: Number of pictures in each scene.

    Returns:
        Images (N, 3, side, side) of uint8, and labels (N, side, side).

    Raises:
        ValueError: unknown things, pictures that are not grey or do not fit, or too few scenes.
    """
    unknown = [thing for thing in things if thing not in pictures.classes]
    if unknown or not things:
        raise ValueError(f"no class {unknown} in {pictures.name}: choose things from {', '.join(pictures.classes)}")
    if len(pictures.shape) != 3 or pictures.shape[0] != 1 or max(pictures.shape[1:]) // _SHRUNK > side:
        raise ValueError(
            f"scenes of {side} pixels are made of grey pictures of up to {_SHRUNK * side} pixels, "
            f"and those of {pictures.name} are {pictures.shape}"
        )
    if n < 5 or objects < 1:
        raise ValueError(f"draw at least 5 scenes of at least 1 object, got n={n}, objects={objects}")
    generator, classes = torch.Generator().manual_seed(seed), [GROUND, *things]
    kinds = torch.tensor([classes.index(name) if name in things else 0 for name in pictures.classes])
    counts = {"train": n, "val": n // 5, "test": n // 5}
    splits = {
        split: _drawn(getattr(pictures, split), kinds, count, side, objects, generator)
        for split, count in counts.items()
    }
    source = f"drawn by growlib.data.scenes, seed {seed}, of {pictures.provenance['source']}"
    arrays = {f"{s}_{part}": getattr(splits[s], part).numpy() for s in SPLITS[::2] for part in ("images", "labels")}
    sha256 = store.fingerprint(arrays)
    provenance = {"name": "scenes", "source": source, "sizes": counts, "sha256": sha256}
    mean, std = statistics(splits["train"].images)
    return Dataset("scenes", classes, **splits, mean=mean, std=std, provenance=provenance)


def annotated(data: Dataset, things: Sequence[str], name: str) -> Dataset:
    """The same scenes, in which somebody has marked some of the things; all others are background.

    Args:
        data: Scenes.
        things: The classes that are marked; they are labelled from 1 on, in this order.
        name: Of the new data set.

    Raises:
        ValueError: a thing is no class of the scenes.
    """
    if unknown := [thing for thing in things if thing not in data.classes[1:]]:
        raise ValueError(f"no class {unknown} in {data.name}: mark some of {', '.join(data.classes[1:])}")
    classes = [GROUND, *things]
    table = torch.tensor([classes.index(known) if known in classes else 0 for known in data.classes])
    splits = {}
    for split in SPLITS:
        whole = getattr(data, split)
        splits[split] = Split(whole.images, table.to(data.device)[whole.labels])
    provenance = {
        **data.provenance,
        "name": name,
        "source": f"{data.provenance['source']}; marked: {', '.join(things)}",
    }
    return replace(data, name=name, classes=classes, provenance=provenance, **splits)


def _drawn(split: Split, kinds: Tensor, count: int, side: int, objects: int, generator: torch.Generator) -> Split:
    def uniform(*shape, low=0.0, high=1.0):
        return low + (high - low) * torch.rand(shape, generator=generator)

    canvas = uniform(count, 3, 1, 1, low=0.1, high=0.4).expand(-1, -1, side, side)
    clouds = torch.randn(count, 3, 5, 5, generator=generator)
    canvas = canvas + 0.1 * interpolate(clouds, size=(side, side), mode="bilinear")  # (N, 3, side, side)
    labels = torch.zeros(count, side, side, dtype=torch.int64)
    candidates = kinds[split.labels].nonzero().flatten()
    height, width = (size // _SHRUNK for size in split.images.shape[2:])
    scene = torch.arange(count)[:, None, None]
    for _ in range(objects):
        chosen = candidates[torch.randint(len(candidates), (count,), generator=generator)]
        picture = avg_pool2d(split.images[chosen].float() / 255, _SHRUNK)[:, 0]  # (N, height, width)
        down = torch.randint(side - height + 1, (count, 1, 1), generator=generator) + torch.arange(height)[:, None]
        right = torch.randint(side - width + 1, (count, 1, 1), generator=generator) + torch.arange(width)
        seen = picture > _INK
        tint = uniform(count, 1, 1, 3, low=0.4)
        paint = tint * (0.5 + 0.5 * picture[..., None])  # (N, height, width, 3)
        canvas[scene, :, down, right] = torch.where(seen[..., None], paint, canvas[scene, :, down, right])
        kind = kinds[split.labels[chosen]][:, None, None]
        labels[scene, down, right] = torch.where(seen, kind, labels[scene, down, right])
    canvas = canvas + 0.04 * torch.randn(canvas.shape, generator=generator)
    return Split((255 * canvas.clamp(0, 1)).round().to(torch.uint8), labels)
