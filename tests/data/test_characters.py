"""Texts as tasks, against the documents themselves."""

import pytest
import torch

from growlib.data import LETTERS, documents, encode, texts, windows
from growlib.data import characters as growlib_texts


def spelled(characters):
    return "".join(LETTERS[place] for place in characters)


def read_back(images, context):
    return images.view(len(images), context, len(LETTERS)).argmax(2)


@pytest.fixture(scope="module")
def english():
    return texts(["english"], n=500, context=6)[0]


def test_a_text_is_lower_case_with_digits_as_zeros_and_white_space_shrunk():
    assert spelled(encode("  If x1 ==\t  20:\n\n    Ünknown~ 'y'\r\n")) == " if x0 == 00:\nnknown 'y'\n"
    assert encode("").shape == (0,)


def test_letters_are_all_different():
    assert len(set(LETTERS)) == len(LETTERS)


def test_windows_are_one_hot_side_by_side():
    characters = torch.tensor([[3, 0, 5], [1, 1, 54]])
    expected = torch.zeros(2, 3 * len(LETTERS))
    for row in range(2):
        for place in range(3):
            expected[row, place * len(LETTERS) + characters[row, place]] = 1
    assert torch.equal(windows(characters), expected)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_window_and_what_follows_it_stand_in_a_document(english, split):
    whole = getattr(english, split)
    text = "\n".join(spelled(encode(document)) for document in documents("english"))
    for characters, label in zip(read_back(whole.images, 6), whole.labels, strict=True):
        window = spelled(characters) + LETTERS[label]
        assert window in text or "\n" in window  # where two documents meet
    assert (whole.images.sum(1) == 6).all() and english.classes == list(LETTERS)


def test_no_document_is_in_two_splits(monkeypatch):
    signs = [letter for letter in LETTERS if letter.isalpha()][:20]
    monkeypatch.setattr(growlib_texts, "documents", lambda language: [sign * 200 for sign in signs])
    data = texts(["english"], n=300, context=4)[0]
    seen = {}
    for split in ("train", "val", "test"):
        whole = getattr(data, split)
        seen[split] = set(spelled(torch.cat([read_back(whole.images, 4).flatten(), whole.labels]))) - {"\n"}
    assert len(seen["train"]) == 14 and len(seen["val"]) == 2 and len(seen["test"]) == 4
    assert not seen["train"] & seen["val"] | seen["train"] & seen["test"] | seen["val"] & seen["test"]


def test_the_languages_are_seeded_tell_their_source_and_differ():
    one, again, other = (texts(n=100, seed=seed) for seed in (0, 0, 1))
    assert [data.name for data in one] == ["english", "python", "cpp"]
    for first, second, third in zip(one, again, other, strict=True):
        assert torch.equal(first.train.images, second.train.images)
        assert not torch.equal(first.train.images, third.train.images)
        assert first.provenance["sha256"] == third.provenance["sha256"]  # of the documents
        assert "licence" in str(first) and first.provenance["sizes"] == {"train": 100, "val": 10, "test": 20}


def test_what_cannot_be_had_is_said(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="unknown language 'latin': choose from english, python, cpp"):
        texts(["latin"])
    with pytest.raises(ValueError, match="10000000 windows of 8 characters cannot be cut from"):
        texts(["english"], n=10**7)
    monkeypatch.setattr(growlib_texts.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(OSError, match="Leave 'python' out"):
        texts(["python"])
