"""Texts that come with Python and PyTorch, as tasks in three languages: which character follows?"""

import hashlib
import random
import re
import sysconfig
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from platform import python_version

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from growlib.data.dataset import SPLITS, Dataset, Split

LETTERS = "\n abcdefghijklmnopqrstuvwxyz0.,;:!?'\"()[]{}<>=+-*/&|#_@"
_NUMBERS = np.full(128, -1)  # of the letters, by their ASCII code
_NUMBERS[[ord(letter) for letter in LETTERS]] = np.arange(len(LETTERS))
SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}  # of the documents


def texts(languages: Sequence[str] = ("english", "python", "cpp"), n: int = 20000, context: int = 8, seed: int = 0):
    """Windows of real text, one data set a language: the labels are the characters that follow.

    The documents are those of the Python and PyTorch that run: another version has slightly others. No document is in
    two splits.

    Args:
        languages: "english" (the manual in pydoc), "python" (the standard library), "cpp" (the headers of PyTorch).
        n: Number of training windows of each language; a tenth as many are for validation, a fifth for testing.
        context: Characters in a window.
        seed: Decides which documents are in which split, and where the windows are.

    Returns:
        A list of data sets; inputs are float32 (N, context x letters) of zeros and ones, see `windows`.

    Raises:
        ValueError: an unknown language, or more windows than the documents have.
    """
    return [_dataset(language, n, context, seed) for language in languages]


def encode(text: str) -> Tensor:
    """The numbers of a text's characters in LETTERS, (characters,).

    Letters become lower case, digits 0, and white space one blank or one line break. What LETTERS lacks is left out.
    """
    text = re.sub(r"\s*\n\s*", "\n", re.sub(r"[^\S\n]+", " ", re.sub(r"\d", "0", text.lower())))
    numbers = _NUMBERS[np.frombuffer(text.encode("ascii", errors="ignore"), np.uint8)]
    return torch.from_numpy(numbers[numbers >= 0])


def windows(characters: Tensor) -> Tensor:
    """What a network reads of characters: a one among zeros for each, side by side.

    Args:
        characters: Numbers in LETTERS, (B, context).

    Returns:
        (B, context x letters) of float32.
    """
    return one_hot(characters, len(LETTERS)).flatten(1).float()


def documents(language: str) -> list[str]:
    """The texts of a language, one string a document.

    Raises:
        ValueError: the language is unknown.
        OSError: the installation lacks them.
    """
    if language not in _SOURCES:
        raise ValueError(f"unknown language {language!r}: choose from {', '.join(_SOURCES)}")
    if language == "english":
        return list(import_module("pydoc_data.topics").topics.values())
    root, pattern = {
        "python": (Path(sysconfig.get_path("stdlib")), "*.py"),
        "cpp": (Path(torch.__file__).parent / "include/torch/csrc/api", "**/*.h"),
    }[language]
    files = sorted(root.glob(pattern))
    if not files:
        raise OSError(f"no {language} texts: there is no {pattern} in {root}. Leave {language!r} out of the languages")
    return [file.read_text(encoding="utf-8", errors="ignore") for file in files]


_SOURCES = {
    "english": f"the reference manual in pydoc_data of Python {python_version()}, PSF licence",
    "python": f"the standard library of Python {python_version()}, PSF licence",
    "cpp": f"the C++ headers of PyTorch {torch.__version__}, BSD licence",
}


def _dataset(language: str, n: int, context: int, seed: int) -> Dataset:
    found = documents(language)
    random.Random(seed).shuffle(found)
    generator, splits, start = torch.Generator().manual_seed(seed), {}, 0
    for split, count in zip(SPLITS, (n, n // 10, n // 5), strict=True):
        stop = len(found) if split == "test" else start + round(SHARES[split] * len(found))
        splits[split] = _windows(language, encode("\n".join(found[start:stop])), count, context, generator)
        start = stop
    sizes = {split: len(splits[split]) for split in SPLITS}
    sha256 = hashlib.sha256("\0".join(sorted(found)).encode()).hexdigest()  # of the documents, whatever the split
    provenance = {"name": language, "source": _SOURCES[language], "sizes": sizes, "sha256": sha256}
    unscaled = {"mean": torch.zeros(1), "std": torch.ones(1)}
    return Dataset(language, list(LETTERS), **splits, **unscaled, provenance=provenance)


def _windows(language: str, characters: Tensor, count: int, context: int, generator: torch.Generator) -> Split:
    places = len(characters) - context
    if not 0 < count <= places or context < 1:
        raise ValueError(
            f"{count} windows of {context} characters cannot be cut from {len(characters):,} characters of {language}: "
            "change n or context (validation gets n // 10)"
        )
    cut = characters.unfold(0, context + 1, 1)[torch.randperm(places, generator=generator)[:count]]  # (N, context + 1)
    return Split(windows(cut[:, :-1]), cut[:, -1].clone())
