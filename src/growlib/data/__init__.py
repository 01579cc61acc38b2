"""Data sets: real, embedded, drawn or generated, and streams of tasks made of them."""

from growlib.data.characters import LETTERS, documents, encode, texts, windows
from growlib.data.dataset import SPLITS, Dataset, Split, normalized, not_test, statistics
from growlib.data.identities import REMEDY, identity, refuse_namesakes, refuse_others
from growlib.data.loading import load
from growlib.data.segmentation import GROUND, annotated, scenes
from growlib.data.streams import permuted, relabelled, split_by_class
