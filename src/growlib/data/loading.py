"""Loading: a data set by its name or path, with a validation split cut from its training data.

`load(source)` knows mnist, fashion_mnist, cifar10 and cifar100 (torchvision downloads, checks and decodes them once),
digits and fashion_mini (embedded), parity, shapes and spirals (drawn), and the path of any .npz of the same format.
"""

import difflib
import warnings
from pathlib import Path

import torch

from growlib.data import store, synthetic
from growlib.data.dataset import SPLITS, Dataset, Split, statistics

DRAWN = ("parity", "shapes", "spirals")


def load(source, /, validation: float = 0.1, seed: int = 0, *, name: str | None = None, **settings) -> Dataset:
    """A data set by its name, or an .npz file by its path; never another one instead.

    Args:
        source: See the head of this module.
        validation: The share of the training data that is laid aside for validation.
        seed: Of that choice, and of data that are drawn.
        name: Of the Dataset, by which tasks are told apart; None takes that of the source.
        settings: For drawn data: bits and n of parity; n of shapes; n, noise and classes of spirals.

    Raises:
        ValueError: For an unknown source, or a file that is not of the format.
        OSError: For data that cannot be had, with the remedy.
    """
    if not 0 < validation < 1:
        raise ValueError(f"validation={validation!r} must be a share of the training data, between 0 and 1")
    if name is not None and not (isinstance(name, str) and name.strip()):
        raise ValueError(f"name={name!r} must be a text: tasks are told apart by it")
    if source in DRAWN:
        arrays = getattr(synthetic, source)(seed, **settings)
        origin = f"drawn by growlib.data.synthetic.{source}, seed {seed}"
    elif settings:
        raise TypeError(f"{source} takes no settings, and got {', '.join(settings)}: only {', '.join(DRAWN)} do")
    elif str(source).endswith(".npz"):
        arrays, origin = store.read(Path(source)), Path(source).name
    elif source in store.SOURCES:
        arrays, origin = store.fetch(source), store.SOURCES[source]
    else:
        names = [*store.SOURCES, *DRAWN]
        close = difflib.get_close_matches(str(source).lower(), names, 1)
        raise ValueError(
            f"unknown data set {source!r}{f': did you mean {close[0]!r}?' if close else '.'} There are "
            f"{', '.join(names)}, and the path of any .npz of their format"
        )
    known = Path(source).stem if str(source).endswith(".npz") else source
    return _dataset(known if name is None else name, arrays, origin, validation, seed)


def _dataset(name: str, arrays: dict, source: str, validation: float, seed: int) -> Dataset:
    tensors = {key: torch.from_numpy(arrays[key]) for key in store.ARRAYS[:4]}
    images, labels = tensors["train_images"], tensors["train_labels"]
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    count = round(validation * len(labels))
    if not 0 < count < len(labels):
        raise ValueError(f"validation={validation} of {len(labels)} examples leaves an empty split")
    val, train = order[:count], order[count:]
    splits = {
        "train": Split(images.index_select(0, train), labels.index_select(0, train)),
        "val": Split(images.index_select(0, val), labels.index_select(0, val)),
        "test": Split(tensors["test_images"], tensors["test_labels"]),
    }
    classes = [str(c) for c in arrays["classes"]]
    _warn_of_absent(name, classes, splits)
    sizes = {split: len(splits[split]) for split in SPLITS}
    provenance = {"name": name, "source": source, "sizes": sizes, "sha256": store.fingerprint(arrays)}
    mean, std = statistics(splits["train"].images)
    return Dataset(name, classes, **splits, mean=mean, std=std, provenance=provenance)


def _warn_of_absent(name: str, classes: list[str], splits: dict[str, Split]):
    """Warns of classes that nothing can be learned of: a stream of tasks leaves out the names of classes, too."""
    counts = {split: torch.bincount(splits[split].labels, minlength=len(classes)) for split in SPLITS}
    if absent := [label for label in range(len(classes)) if not counts["train"][label]]:
        held = ", ".join(f"{classes[label]!r} ({counts['val'][label]} in val)" for label in absent)
        warnings.warn(
            f"{name} has no training example of {len(absent)} of its {len(classes)} classes: {held}. No network can "
            "learn them: leave them out of `classes`, or load with another seed or a smaller validation",
            stacklevel=4,
        )
