"""Where data sets lie: embedded in the package, or cached as one .npz file after a download."""

import errno
import hashlib
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from growlib.data.files import passing_folder, whole

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
PACKAGE = Path(__file__).parents[1]  # growlib
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)  # full, or not writable
PATIENCE = 60  # seconds that a mirror may be silent


class NotCached(OSError):
    """What could not be written: a disk that is full, or closed to us."""


class DamagedFile(ValueError):
    """A file that was cut short or changed on disk, unlike one that was never of the format."""


def embedded() -> Path:
    """The folder of the embedded data and the recorded results: in the wheel, or the checkout's data/."""
    return PACKAGE / "embedded" if (PACKAGE / "embedded").exists() else PACKAGE.parents[1] / "data"


def data_root() -> Path:
    """Where downloads are cached: $GROWLIB_DATA, else the checkout's data/, else ~/.cache/growlib."""
    if os.environ.get("GROWLIB_DATA"):
        return Path(os.environ["GROWLIB_DATA"]).expanduser()
    checkout = PACKAGE.parents[1]
    in_checkout = PACKAGE.parent.name == "src" and (checkout / "pyproject.toml").exists()
    return checkout / "data" if in_checkout else Path.home() / ".cache" / "growlib"


def fetch(name: str) -> dict[str, np.ndarray]:
    """The arrays of a data set that is embedded, cached, or downloaded now and then cached."""
    if name not in DOWNLOADED:
        try:
            return read(embedded() / f"{name}.npz")
        except (FileNotFoundError, DamagedFile) as error:
            raise type(error)(f"{error}: it comes with growlib, so install or check out growlib again") from error
    path, reason, aside = data_root() / f"{name}.npz", "", None
    try:
        return read(path)
    except FileNotFoundError:
        pass
    except DamagedFile as error:  # it stays where it is until a whole one can take its place
        reason = f"{error}. "
    try:
        with passing_folder(path.parent) as folder:
            arrays = _download(name, folder)
            aside = _set_aside(path) if reason else None
            write(path, arrays, folder)
    except NotCached:
        raise
    except Exception as error:  # torchvision, urllib and archives raise many kinds
        if getattr(error, "errno", None) in DISK:
            raise _unwritten(path, error) from error
        raise OSError(
            f"{reason}{name} is not at {path}, and could not be downloaded: {error or type(error).__name__} (a mirror "
            f"that is silent for {PATIENCE} seconds is given up). Connect to the internet, or put a file with the "
            f"arrays {', '.join(ARRAYS)} there, or set GROWLIB_DATA to the folder that has it"
        ) from error
    if aside:
        warnings.warn(f"{reason}It was downloaded anew; the old one is now {aside.name}", stacklevel=3)
    return arrays


def _set_aside(path: Path) -> Path | None:
    """Renames a damaged file, unless another process has done so, or has put a whole one in its place."""
    aside = path.with_suffix(".damaged.npz")
    try:
        read(path)
    except FileNotFoundError:
        pass
    except DamagedFile:
        with suppress(FileNotFoundError):
            os.replace(path, aside)
            return aside
    return None


def fingerprint(arrays: dict[str, np.ndarray]) -> str:
    """The sha256 of the images and labels, in the order of ARRAYS: the same data, the same number, however stored."""
    digest = hashlib.sha256()
    for key in ARRAYS[:4]:
        digest.update(np.ascontiguousarray(arrays[key]))
    return digest.hexdigest()


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, checked (each has a CRC in the file; files that `write` made hold a sha256 too)."""
    if not path.exists():
        raise FileNotFoundError(f"no data set at {path}")
    with open(path, "rb") as content:
        try:
            with np.load(content, allow_pickle=False) as file:
                arrays = {key: file[key] for key in (*ARRAYS, "sha256") if key in file.files}
        except Exception as error:  # zip, zlib and numpy raise a dozen kinds for a damaged file
            raise DamagedFile(f"{path} is cut short, damaged or no .npz file ({error})") from error
    missing = [key for key in ARRAYS if key not in arrays]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}: a data set has {', '.join(ARRAYS)}")
    if "sha256" in arrays and str(arrays["sha256"]) != fingerprint(arrays):
        raise DamagedFile(f"{path} is damaged: its sha256 is no longer {arrays['sha256']}")
    for split in ("train", "test"):
        _check(path, split, arrays[f"{split}_images"], arrays[f"{split}_labels"], arrays["classes"])
    train, test = arrays["train_images"], arrays["test_images"]
    if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
        raise ValueError(
            f"{path}: train_images are {train.dtype} {train.shape}, and test_images {test.dtype} {test.shape}: "
            "only their number may differ"
        )
    return arrays


def _check(path: Path, split: str, images: np.ndarray, labels: np.ndarray, classes: np.ndarray):
    pictures, points = images.dtype == np.uint8 and images.ndim == 4, images.dtype == np.float32 and images.ndim == 2
    if not (pictures or points):
        raise ValueError(
            f"{path}: {split}_images must be uint8 (N, C, H, W) or float32 (N, features), "
            f"and are {images.dtype} {images.shape}"
        )
    if pictures and images.shape[3] in (1, 3, 4) and min(images.shape[1:3]) > 4:
        raise ValueError(
            f"{path}: {split}_images {images.shape} look like (N, H, W, C), and are read as (N, C, H, W): save "
            f"{split}_images.transpose(0, 3, 1, 2)"
        )
    if points and not np.isfinite(images).all():
        raise ValueError(f"{path}: {split}_images hold numbers that are not finite")
    if classes.ndim != 1:
        raise ValueError(f"{path}: classes must be a list of names, and has shape {classes.shape}")
    if labels.dtype != np.int64 or labels.shape != images.shape[:1] or not len(labels):
        raise ValueError(
            f"{path}: {split}_labels must be int64 ({len(images)},), and are {labels.dtype} {labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(
            f"{path}: {split}_labels reach from {labels.min()} to {labels.max()}, and there are {len(classes)} classes"
        )


def write(path: Path, arrays: dict[str, np.ndarray], scratch: Path | None = None):
    """Writes an .npz file and its checksum, whole or not at all; see `whole`."""
    try:
        with whole(path, scratch) as file:
            np.savez(file, **arrays, sha256=fingerprint(arrays))
    except OSError as error:
        raise _unwritten(path, error) from error


def _unwritten(path: Path, error: OSError) -> NotCached:
    return NotCached(
        error.errno,
        f"could not cache {path}: {error}. Free some space (a download takes up to 600 MB while it is decoded), or set "
        "GROWLIB_DATA to another folder; nothing half-written was left",
    )


def _download(name: str, folder: Path) -> dict[str, np.ndarray]:
    """The arrays as torchvision downloads, checks and decodes them."""
    from torchvision import datasets

    arrays = {}
    with _patience():
        for split in ("train", "test"):
            raw = getattr(datasets, DOWNLOADED[name])(str(folder), train=split == "train", download=True)
            images = np.asarray(raw.data, dtype=np.uint8)  # (N, H, W) or (N, H, W, C)
            arrays[f"{split}_images"] = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2).copy()
            arrays[f"{split}_labels"] = np.asarray(raw.targets, dtype=np.int64)
        arrays["classes"] = np.array([label.split(" - ")[0] if name == "mnist" else label for label in raw.classes])
    return arrays


@contextmanager
def _patience() -> Iterator[None]:
    """Lets connections that are opened meanwhile fail when the other side is silent; torchvision waits for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
