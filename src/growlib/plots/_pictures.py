"""Pictures of what a classifier says: the confusion matrix and a grid of samples."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgba

from growlib.plots._style import INK, PALETTE

_GOOD, _BAD = PALETTE["green"], PALETTE["magenta"]


def confusion(labels, predictions, classes) -> Axes:
    """Draw a confusion matrix in which the errors stand out and the right answers step back.

    Args:
        labels: true classes as numbers, (N,).
        predictions: predicted classes as numbers, (N,).
        classes: names of all classes.

    Returns:
        The Axes: rows are true classes, columns predicted ones; cells from 40 % of the largest error on are solid.

    Raises:
        ValueError: labels and predictions of unequal length, or a number that is no class.
    """
    import seaborn

    labels, predictions = _numbers(labels, classes, "label"), _numbers(predictions, classes, "prediction")
    if len(labels) != len(predictions):
        raise ValueError(f"{len(labels)} labels, but {len(predictions)} predictions")
    count, few = len(classes), len(classes) <= 20
    matrix = np.bincount(labels * count + predictions, minlength=count**2).reshape(count, count)
    wrong = matrix * ~np.eye(count, dtype=bool)
    ax = plt.figure(figsize=(5.6, 5.3)).add_subplot()
    # The colours leave out the middle: there neither grey nor white figures could be read on both kinds of page.
    faint = [to_rgba(_BAD, alpha) for alpha in np.linspace(0.06, 0.18, 40)]
    solid = [to_rgba(_BAD, alpha) for alpha in np.linspace(0.86, 1, 60)]
    seaborn.heatmap(
        wrong, mask=wrong == 0, cmap=ListedColormap(faint + solid), vmin=0, vmax=max(wrong.max(), 1), cbar=False,
        square=True, linewidths=1 if few else 0, linecolor="none", ax=ax, xticklabels=few and list(classes),
        yticklabels=few and list(classes),
    )  # fmt: skip
    for row, column in zip(*np.nonzero(matrix), strict=True) if few else ():
        loud = wrong[row, column] >= 0.4 * wrong.max() > 0
        look = (
            {"color": "white", "fontweight": "bold"} if loud else {"color": INK, "alpha": 0.8 if row == column else 1}
        )
        size = 11 if count <= 10 else 8
        ax.text(column + 0.5, row + 0.5, f"{matrix[row, column]}", ha="center", va="center", fontsize=size, **look)
    _frame(ax, classes, len(labels), wrong.sum())
    return ax


def predictions(images, labels, predictions, classes, count: int = 12) -> list[Axes]:
    """Draw samples with the class that was predicted; a wrong one has a cross, a frame and the true class.

    Args:
        images: (N, C, H, W), (N, H, W) or (N, H, W, 3), of any range.
        labels: true classes as numbers, (N,).
        predictions: predicted classes as numbers, (N,).
        classes: names of all classes.
        count: how many of the first samples to draw.

    Returns:
        One Axes a sample.

    Raises:
        ValueError: unequal numbers of images, labels and predictions, none at all, or a number that is no class.
    """
    images, labels, guesses = (
        _array(images),
        _numbers(labels, classes, "label"),
        _numbers(predictions, classes, "prediction"),
    )
    if not len(images) or not len(images) == len(labels) == len(guesses):
        raise ValueError(
            f"{len(images)} images, {len(labels)} labels, {len(guesses)} predictions: one of each a sample"
        )
    count = min(count, len(images))
    columns = min(count, 4 if max(map(len, map(str, classes))) > 6 else 6)
    rows = -(-count // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(5.6, 0.1 + rows * (5.6 / columns + 0.42)), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, image, label, guess in zip(axes.flat, images[:count], labels, guesses, strict=False):
        _sample(ax, _picture(image), str(classes[label]), str(classes[guess]))
    return list(axes.flat[:count])


def _sample(ax: Axes, picture: np.ndarray, label: str, guess: str) -> None:
    right = label == guess
    ax.set_axis_on()
    ax.imshow(picture, cmap="gray")
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set(visible=True, color=INK if right else _BAD, linewidth=1 if right else 4)
    text = f"✓ {guess}" if right else f"✗ {guess}\nis {label}"
    ax.set_xlabel(text, color=INK if right else _BAD, fontweight="normal" if right else "bold", labelpad=4)


def _picture(image: np.ndarray) -> np.ndarray:
    """Return (H, W) or (H, W, 3), between 0 and 1."""
    if image.ndim == 3 and image.shape[0] in (1, 3) and image.shape[-1] not in (1, 3):
        image = image.transpose(1, 2, 0)  # (H, W, C)
    image = image.squeeze(-1) if image.ndim == 3 and image.shape[-1] == 1 else image
    if image.dtype == np.uint8:
        return image / 255
    low, high = image.min(), image.max()
    return (image - low) / (high - low) if high > low else np.zeros_like(image)


def _array(values) -> np.ndarray:
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def _numbers(values, classes, what: str) -> np.ndarray:
    values = _array(values).reshape(-1).astype(np.int64)
    outside = values[(values < 0) | (values >= len(classes))]
    if len(outside):
        raise ValueError(f"{what} {outside[0]} is no class: there are {len(classes)} classes, 0 to {len(classes) - 1}")
    return values


def _frame(ax: Axes, classes, total: int, wrong: int) -> None:
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    ax.tick_params(axis="y", rotation=0)
    if max(map(len, map(str, classes))) > 3:
        plt.setp(ax.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    ax.set_title(f"{wrong:,} errors in {total:,} examples")
