"""Where data sets lie: embedded in the package, or cached as one .npz file after a download."""

import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels", "classes")
SOURCES = {
    "mnist": "MNIST, LeCun, Cortes and Burges (1998), through torchvision",
    "fashion_mnist": "Fashion-MNIST, Xiao, Rasul and Vollgraf (2017), MIT licence, through torchvision",
    "cifar10": "CIFAR-10, Krizhevsky (2009), through torchvision",
    "cifar100": "CIFAR-100, Krizhevsky (2009), through torchvision",
    "digits": "Optical recognition of handwritten digits, Alpaydin and Kaynak (1998), from scikit-learn",
    "fashion_mini": "a balanced subset of Fashion-MNIST, Xiao, Rasul and Vollgraf (2017), MIT licence",
}
DOWNLOADED = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}
PACKAGE = Path(__file__).parent


def embedded() -> Path:
    """The folder of the embedded data and the recorded results: in the wheel, or the checkout's data/."""
    return PACKAGE / "embedded" if (PACKAGE / "embedded").exists() else PACKAGE.parents[1] / "data"


def data_root() -> Path:
    """Where downloads are cached: $GROWLIB_DATA, else the checkout's data/, else ~/.cache/growlib."""
    if os.environ.get("GROWLIB_DATA"):
        return Path(os.environ["GROWLIB_DATA"]).expanduser()
    checkout = PACKAGE.parents[1]
    return checkout / "data" if (checkout / "pyproject.toml").exists() else Path.home() / ".cache" / "growlib"


def fetch(name: str) -> dict[str, np.ndarray]:
    """The arrays of a data set that is embedded, cached, or downloaded now and then cached."""
    if name not in DOWNLOADED:
        return read(embedded() / f"{name}.npz")
    path = data_root() / f"{name}.npz"
    if path.exists():
        try:
            return read(path)
        except ValueError as error:
            damaged = path.with_suffix(".damaged")
            os.replace(path, damaged)
            reason = f"the cached file was damaged and is now {damaged} ({error}); "
    else:
        reason = ""
    try:
        arrays = _download(name)
    except Exception as error:
        raise OSError(
            f"{name} is not at {path}, and could not be downloaded: {reason}{error}. Connect to the internet, or put "
            f"a file with the arrays {', '.join(ARRAYS)} there, or set GROWLIB_DATA to the folder that has it"
        ) from error
    write(path, arrays)
    return arrays


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, checked (each has a checksum in the file)."""
    if not path.exists():
        raise FileNotFoundError(f"no data set at {path}")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is cut short, damaged or no .npz file: {error}") from error
    missing = [key for key in ARRAYS if key not in arrays]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}: a data set has {', '.join(ARRAYS)}")
    for split in ("train", "test"):
        _check(path, split, arrays[f"{split}_images"], arrays[f"{split}_labels"], len(arrays["classes"]))
    return arrays


def _check(path: Path, split: str, images: np.ndarray, labels: np.ndarray, classes: int):
    pictures, points = images.dtype == np.uint8 and images.ndim == 4, images.dtype == np.float32 and images.ndim == 2
    if not (pictures or points):
        raise ValueError(
            f"{path}: {split}_images must be uint8 (N, C, H, W) or float32 (N, features), "
            f"and are {images.dtype} {images.shape}"
        )
    if labels.dtype != np.int64 or labels.shape != images.shape[:1] or not len(labels):
        raise ValueError(
            f"{path}: {split}_labels must be int64 ({len(images)},), and are {labels.dtype} {labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"{path}: {split}_labels reach from {labels.min()} to {labels.max()}, and there are {classes} classes"
        )


def write(path: Path, arrays: dict[str, np.ndarray]):
    """Writes an .npz file whole or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished, "wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        size = sum(array.nbytes for array in arrays.values()) / 2**20
        raise OSError(
            f"could not cache {path} ({size:.0f} MB): {error}. Free some space, or set GROWLIB_DATA to another folder"
        ) from error


def _download(name: str) -> dict[str, np.ndarray]:
    """The arrays as torchvision downloads, checks and decodes them."""
    from torchvision import datasets

    root = data_root()
    root.mkdir(parents=True, exist_ok=True)
    arrays = {}
    with tempfile.TemporaryDirectory(dir=root) as folder:
        for split in ("train", "test"):
            raw = getattr(datasets, DOWNLOADED[name])(folder, train=split == "train", download=True)
            images = np.asarray(raw.data, dtype=np.uint8)  # (N, H, W) or (N, H, W, C)
            arrays[f"{split}_images"] = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2).copy()
            arrays[f"{split}_labels"] = np.asarray(raw.targets, dtype=np.int64)
        arrays["classes"] = np.array([label.split(" - ")[0] if name == "mnist" else label for label in raw.classes])
    return arrays
