"""Identity: tasks are told apart by the name of their data, so that one name has to stand for the same examples."""

from collections.abc import Iterable, Mapping

from growlib.data.dataset import Dataset

LEARNED_FROM = ("train", "val")  # testing on something else changes no task
REMEDY = (
    "Give another task a name of its own, load(source, name='second'), and load the same one as before, with the same "
    "seed and validation"
)


def identity(data: Dataset) -> dict[str, str]:
    """The sha256 of the splits that a task is learned from, by their names: another validation split is other data."""
    return {split: getattr(data, split).sha256 for split in LEARNED_FROM}


def refuse_others(data: Iterable[Dataset], known: Mapping[str, Mapping]):
    """Raises a ValueError for data that bear the name of a task that was learned from other examples.

    Args:
        data: Datasets, which are compared with each other, too.
        known: Identities by name.
    """
    known = dict(known)
    for one in data:
        before = known.setdefault(one.name, found := identity(one))
        if differ := [split for split in LEARNED_FROM if found[split] != before[split]]:
            raise ValueError(
                f"{one.name!r} is the name of a task with other {' and '.join(differ)} examples, and tasks are told "
                f"apart by it. {REMEDY}"
            )


def refuse_namesakes(*data: Dataset, splits=LEARNED_FROM):
    """Raises a ValueError for data sets of one name that differ in one of these splits; the same one may come twice."""
    known = {}
    for one in data:
        other = known.setdefault(one.name, one)
        if one is not other and any(getattr(one, split).sha256 != getattr(other, split).sha256 for split in splits):
            raise ValueError(
                f"two data sets of different examples are called {one.name!r}, and tasks are told apart by it. {REMEDY}"
            )
