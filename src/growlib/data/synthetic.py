"""Tasks that are drawn, not downloaded: parity of bits, coloured shapes, spirals in the plane."""

import numpy as np

SHAPE_PIXELS = 32
SPIRAL_TURNS = 1.25  # three ReLU units reach about 70 % of two arms, 24 about 100 %


def parity(seed: int, bits: int = 10, n: int | None = None) -> dict[str, np.ndarray]:
    """Tell whether a pattern of bits holds an even or an odd number of ones.

    Args:
        seed: Decides which patterns are drawn and which of them are the test set.
        bits: Length of a pattern, 2 to 62.
        n: Number of distinct patterns, no two alike; None means all 2 ** bits (20 bits at most).

    Returns:
        The arrays of a data set; inputs are float32 (n, bits) of -1 (zero) and 1 (one), each pattern once.

    Raises:
        ValueError: bits or n are out of range.
    """
    if not 2 <= bits <= 62:
        raise ValueError(f"parity takes 2 to 62 bits, got bits={bits}")
    if n is None and bits > 20:
        raise ValueError(f"parity of {bits} bits has {2**bits:,} patterns: say how many to draw with n=")
    n = 2**bits if n is None else n
    if not 12 <= n <= 2**bits:
        raise ValueError(
            f"parity of {bits} bits has {2**bits:,} distinct patterns: n must be 12 to that many, got n={n}"
        )
    random = np.random.default_rng(seed)
    if bits <= 20:
        patterns = random.permutation(2**bits)[:n]
    else:
        patterns = np.unique(random.integers(2**bits, size=2 * n))
        while len(patterns) < n:  # hardly ever: more than half of the draws would have to repeat
            patterns = np.union1d(patterns, random.integers(2**bits, size=n))
        patterns = random.permutation(patterns)[:n]
    ones = patterns[:, None] >> np.arange(bits) & 1  # (n, bits)
    return _arrays((2 * ones - 1).astype(np.float32), ones.sum(1) % 2, ["even", "odd"])


def spirals(seed: int, n: int = 2400, noise: float = 0.02, classes: int = 2) -> dict[str, np.ndarray]:
    """Tell apart the arms of a spiral, as points of the plane.

    Args:
        seed: Decides the points.
        n: Number of points of all arms together.
        noise: Standard deviation of the points around their arm; an arm ends at radius 1.
        classes: Number of arms, 2 to 10.

    Returns:
        The arrays of a data set; inputs are float32 (n, 2).

    Raises:
        ValueError: a setting is out of range.
    """
    if not 2 <= classes <= 10:
        raise ValueError(f"spirals take 2 to 10 classes, got classes={classes}")
    if n < 6 * classes:
        raise ValueError(f"spirals of {classes} classes need at least {6 * classes} points, got n={n}")
    if not 0 <= noise <= 1:
        raise ValueError(f"the noise of spirals is a standard deviation from 0 to 1, got noise={noise}")
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(n) % classes)
    radius = random.uniform(0.1, 1, n)
    angle = 2 * np.pi * (SPIRAL_TURNS * radius + labels / classes)
    points = radius * np.stack([np.cos(angle), np.sin(angle)])  # (2, n)
    points = points.T + random.normal(0, noise, (n, 2))
    return _arrays(points.astype(np.float32), labels, [f"arm {arm}" for arm in range(1, classes + 1)])


def shapes(seed: int, n: int = 6000) -> dict[str, np.ndarray]:
    """Name the shape in a noisy colour picture, whatever its colour, place, size and tilt.

    Args:
        seed: Decides the pictures.
        n: Number of pictures of all ten classes together.

    Returns:
        The arrays of a data set; inputs are uint8 (n, 3, 32, 32).

    Raises:
        ValueError: n is too small for ten classes.
    """
    if n < 60:
        raise ValueError(f"shapes come in ten classes: draw at least 60 pictures, got n={n}")
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(n) % len(_INSIDE))
    size = random.uniform(8, 12, n)  # radius in pixels
    middle = SHAPE_PIXELS / 2 + random.uniform(-4, 4, (2, n))  # no shape leaves the picture
    tilt = random.uniform(-0.3, 0.3, n)  # radians: a square never turns into a diamond
    ground = random.uniform(0, 1, (n, 3))
    away = random.normal(size=(n, 3))
    away *= random.uniform(0.5, 0.9, (n, 1)) / np.linalg.norm(away, axis=1, keepdims=True)
    # A step that would leave the range of colours is taken the other way, so that the contrast is not lost.
    colour = ground + np.where((ground + away < 0) | (ground + away > 1), -away, away)
    images = np.empty((n, 3, SHAPE_PIXELS, SHAPE_PIXELS), np.uint8)
    for label, inside in enumerate(_INSIDE.values()):
        for rows in np.array_split(np.flatnonzero(labels == label), max(1, n // 5000)):
            drawn = _coverage(inside, middle[:, rows], size[rows], tilt[rows])[:, None]  # (rows, 1, 32, 32)
            back, front = ground[rows, :, None, None], colour[rows, :, None, None]
            picture = back + (front - back) * drawn + random.normal(0, 0.1, (len(rows), 3, *drawn.shape[2:]))
            images[rows] = (255 * picture.clip(0, 1)).round()
    return _arrays(images, labels, list(_INSIDE))


def _coverage(inside, middle, size, tilt):
    """The share of every pixel that a shape covers, from two by two samples: (n, 32, 32)."""
    samples = (np.arange(2 * SHAPE_PIXELS, dtype=np.float32) + 0.5) / 2
    y = ((samples[None, :] - middle[0][:, None]) / size[:, None])[:, :, None].astype(np.float32)
    x = ((samples[None, :] - middle[1][:, None]) / size[:, None])[:, None, :].astype(np.float32)
    cosine, sine = (turn(tilt)[:, None, None].astype(np.float32) for turn in (np.cos, np.sin))
    covered = inside(cosine * x + sine * y, cosine * y - sine * x)
    return covered.reshape(len(size), SHAPE_PIXELS, 2, SHAPE_PIXELS, 2).mean((2, 4), dtype=np.float32)


def _largest(x, y):
    return np.maximum(abs(x), abs(y))


def _plus(x, y):
    return (np.minimum(abs(x), abs(y)) < 0.25) & (_largest(x, y) < 0.9)


def _star(x, y):
    """Five points: folded into one tenth of the circle, the outline is one straight line."""
    tenth, inner = np.pi / 5, 0.4
    radius, angle = np.hypot(x, y), abs((np.arctan2(x, -y) + tenth) % (2 * tenth) - tenth)
    along, across = radius * np.cos(angle), radius * np.sin(angle)
    return (along - 1) * inner * np.sin(tenth) < across * (inner * np.cos(tenth) - 1)


# Each shape fits the circle of radius 1; y points down.
_INSIDE = {
    "circle": lambda x, y: np.hypot(x, y) < 0.9,
    "ring": lambda x, y: abs(np.hypot(x, y) - 0.72) < 0.2,
    "crescent": lambda x, y: (np.hypot(x, y) < 0.95) & (np.hypot(x - 0.5, y) > 0.75),
    "square": lambda x, y: _largest(x, y) < 0.72,
    "frame": lambda x, y: abs(_largest(x, y) - 0.58) < 0.16,
    "diamond": lambda x, y: abs(x) + abs(y) < 1,
    "triangle": lambda x, y: (y < 0.5) & (1.73 * abs(x) - y < 1),
    "plus": _plus,
    "cross": lambda x, y: _plus(0.7071 * (x + y), 0.7071 * (x - y)),
    "star": _star,
}


def _arrays(inputs, labels, classes):
    """Lay the last sixth aside for testing; whoever calls has drawn the rows in random order."""
    kept = len(labels) - len(labels) // 6
    labels = labels.astype(np.int64)
    return {
        "train_images": inputs[:kept],
        "train_labels": labels[:kept],
        "test_images": inputs[kept:],
        "test_labels": labels[kept:],
        "classes": np.array(classes),
    }
