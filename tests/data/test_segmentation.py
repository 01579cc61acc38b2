"""Scenes and their labels, against one that is painted pixel by pixel."""

import pytest
import torch

from growlib import load
from growlib.data import GROUND, Dataset, Split, annotated, scenes

THINGS = ["Trouser", "Bag", "Sneaker"]


@pytest.fixture(scope="module")
def fashion():
    return load("fashion_mini")


@pytest.fixture(scope="module")
def drawn(fashion):
    return scenes(fashion, THINGS, n=50)


def squares(size=8, kinds=3):
    """Pictures of one brightness each, a split apart: what is painted is a whole square."""
    values = torch.arange(2 * kinds) * 20 + 100
    images = values[:, None, None, None].expand(-1, 1, size, size).to(torch.uint8)
    split, names = Split(images, torch.arange(2 * kinds) % kinds), [f"kind {kind}" for kind in range(kinds)]
    provenance = {"name": "squares", "source": "a test"}
    return Dataset("squares", names, split, split, split, torch.zeros(1), torch.ones(1), provenance)


def test_shapes_names_and_sizes(drawn):
    assert drawn.shape == (3, 32, 32) and drawn.classes == [GROUND, *THINGS]
    assert drawn.train.labels.shape == (50, 32, 32) and drawn.train.labels.dtype == torch.int64
    assert (
        drawn.provenance["sizes"]
        == {"train": 50, "val": 10, "test": 10}
        == {split: len(getattr(drawn, split)) for split in ("train", "val", "test")}
    )
    assert drawn.train.labels.unique().tolist() == [0, 1, 2, 3] and "Fashion-MNIST" in str(drawn)


def test_scenes_are_seeded(fashion, drawn):
    again, other = scenes(fashion, THINGS, n=50), scenes(fashion, THINGS, n=50, seed=1)
    assert torch.equal(again.test.images, drawn.test.images) and torch.equal(again.test.labels, drawn.test.labels)
    assert again.provenance["sha256"] == drawn.provenance["sha256"] != other.provenance["sha256"]


def test_one_thing_is_seen_as_a_whole_and_nothing_else_is_labelled():
    data = scenes(squares(), ["kind 1", "kind 2"], n=40, side=12, objects=1)
    for image, labels in zip(data.train.images, data.train.labels, strict=True):
        seen = labels.nonzero()
        assert len(seen) == 16 and (seen.amax(0) - seen.amin(0) == 3).all()  # 8 pixels, shrunk by two
        assert labels.unique().numel() == 2
        inside = image[:, labels > 0].float()
        assert inside.std(1).max() < 20  # one tint, and noise
    assert {int(labels.max()) for labels in data.train.labels} == {1, 2}


def test_what_is_painted_last_hides_what_is_behind():
    data = scenes(squares(), ["kind 0", "kind 1", "kind 2"], n=60, side=8, objects=3)
    for labels in data.train.labels:
        windows = labels.unfold(0, 4, 1).unfold(1, 4, 1).flatten(2)  # the last square is whole somewhere
        assert ((windows == windows[..., :1]) & (windows[..., :1] > 0)).all(2).any()
        assert 16 <= (labels > 0).sum() <= 48


def test_a_split_shows_its_own_pictures_only():
    data = squares()
    dark = Split(data.test.images // 10, data.test.labels)  # below what counts as seen
    data = scenes(Dataset("squares", data.classes, data.train, data.val, dark, data.mean, data.std, data.provenance),
                  ["kind 0"], n=20, side=12)  # fmt: skip
    assert (data.train.labels > 0).any() and (data.val.labels > 0).any() and not (data.test.labels > 0).any()


def test_annotated_keeps_the_pixels_of_some_things_and_calls_the_rest_background(drawn):
    marked = annotated(drawn, ["Sneaker", "Trouser"], "mine")
    assert marked.name == "mine" and marked.classes == [GROUND, "Sneaker", "Trouser"]
    assert marked.train.images is drawn.train.images and "marked: Sneaker, Trouser" in str(marked)
    for split in ("train", "val", "test"):
        before, after = getattr(drawn, split).labels, getattr(marked, split).labels
        for old, new in zip(before.flatten().tolist(), after.flatten().tolist(), strict=True):
            assert new == {0: 0, 1: 2, 2: 0, 3: 1}[old]


def test_what_does_not_fit_is_refused_with_the_values(fashion, drawn):
    with pytest.raises(ValueError, match=r"no class \['Hat'\] in fashion_mini: choose things from T-shirt"):
        scenes(fashion, ["Hat", "Bag"])
    with pytest.raises(ValueError, match="grey pictures of up to 64 pixels"):
        scenes(load("shapes", n=60), ["circle"])
    with pytest.raises(ValueError, match="grey pictures of up to 20 pixels"):
        scenes(fashion, ["Bag"], side=10)
    with pytest.raises(ValueError, match="at least 5 scenes"):
        scenes(fashion, ["Bag"], n=4)
    with pytest.raises(ValueError, match=r"no class \['Coat'\] in scenes: mark some of Trouser, Bag, Sneaker"):
        annotated(drawn, ["Coat"], "mine")
    with pytest.raises(ValueError, match="mark some of"):
        annotated(drawn, [GROUND], "mine")
