"""Makes the two embedded data sets: `python data/make_embedded.py`.

Needs scikit-learn, and Fashion-MNIST's idx files where Debian's package dataset-fashion-mnist puts them.
"""

import gzip
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

HERE = Path(__file__).parent
FASHION = Path("/usr/share/datasets/fashion-mnist")
GARMENTS = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


def digits() -> dict[str, np.ndarray]:
    """Scikit-learn's digits, pixels from 0 to 255, one in six of every class laid aside for testing."""
    found = load_digits()
    images = np.round(found.images * 255 / 16).astype(np.uint8)[:, None]  # (N, 1, 8, 8)
    test = np.zeros(len(images), bool)
    for digit in range(10):
        test[np.random.default_rng(digit).permutation(np.flatnonzero(found.target == digit))[:30]] = True
    return _arrays(images[~test], found.target[~test], images[test], found.target[test], map(str, range(10)))


def fashion_mini(train: int = 500, test: int = 100) -> dict[str, np.ndarray]:
    """The first images of every class of Fashion-MNIST: so many for training, so many for testing."""
    splits = []
    for prefix, count in (("train", train), ("t10k", test)):
        images, labels = _idx(f"{prefix}-images-idx3-ubyte.gz"), _idx(f"{prefix}-labels-idx1-ubyte.gz")
        chosen = np.sort(np.concatenate([np.flatnonzero(labels == garment)[:count] for garment in range(10)]))
        splits += [images[chosen][:, None], labels[chosen]]
    return _arrays(*splits, GARMENTS)


def _idx(name: str) -> np.ndarray:
    content = gzip.decompress((FASHION / name).read_bytes())
    sides = np.frombuffer(content, ">i4", content[3], 4)  # the fourth byte tells the number of axes
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(sides)


def _arrays(train_images, train_labels, test_images, test_labels, classes) -> dict[str, np.ndarray]:
    return {
        "train_images": train_images,
        "train_labels": train_labels.astype(np.int64),
        "test_images": test_images,
        "test_labels": test_labels.astype(np.int64),
        "classes": np.array(list(classes)),
    }


if __name__ == "__main__":
    for make in (digits, fashion_mini):
        np.savez_compressed(HERE / f"{make.__name__}.npz", **make())
