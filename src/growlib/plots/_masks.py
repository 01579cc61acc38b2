"""Pictures of what is seen at every pixel."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Patch

from growlib.plots._style import INK, shades


def masks(images, rows: dict, classes: list[str]) -> list[Axes]:
    """Draw scenes, and below each what is seen where: a colour a class, nothing where there is background.

    Args:
        images: (N, 3, H, W) of uint8.
        rows: title -> (N, H, W), the numbers of the classes.
        classes: their names, the first one that of the background.

    Returns:
        The Axes, row by row; the first row holds the scenes.

    Raises:
        ValueError: nothing to draw, masks that do not lie over the images, or a number that is no class.
    """
    images, rows = np.asarray(images), {title: np.asarray(numbers) for title, numbers in rows.items()}
    if images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise ValueError(f"scenes are (N, 3, height, width), and these are {images.shape}")
    for title, numbers in rows.items():
        if numbers.shape != (len(images), *images.shape[2:]):
            raise ValueError(f"{title!r} is {numbers.shape}, and the scenes are {images.shape}: a number a pixel")
        if numbers.min() < 0 or numbers.max() >= len(classes):
            raise ValueError(
                f"{title!r} reaches from {numbers.min()} to {numbers.max()}: there are {len(classes)} classes"
            )
    colors = np.array([to_rgba(INK, 0.12), *map(to_rgba, shades(len(classes) - 1))])
    pictures = {"scene": images.transpose(0, 2, 3, 1), **{title: colors[numbers] for title, numbers in rows.items()}}
    side = 5.0 / len(images)
    size = (6.2, len(pictures) * side + 0.6)
    figure, axes = plt.subplots(len(pictures), len(images), figsize=size, squeeze=False)
    for line, (title, shown) in zip(axes, pictures.items(), strict=True):
        for ax, picture in zip(line, shown, strict=True):
            ax.imshow(picture, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
            ax.spines[:].set_visible(False)
        line[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize="small")
    handles = [Patch(color=color, label=name) for color, name in zip(colors[1:], classes[1:], strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(3, len(handles)), fontsize="small")
    return list(axes.flat)
