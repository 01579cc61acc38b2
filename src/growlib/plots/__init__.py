"""Data in, matplotlib Axes or a slider over pictures out: one style, legible on white and on dark pages."""

from growlib.plots._bowls import bowls
from growlib.plots._costs import bills, speedups
from growlib.plots._couplings import couplings
from growlib.plots._curves import compare, curves, resources, tradeoff
from growlib.plots._diagnostics import diagnostics, why
from growlib.plots._folds import folds, snapshot
from growlib.plots._forks import forks, roc
from growlib.plots._growth import growth
from growlib.plots._losses import losses
from growlib.plots._maps import lives, maps
from growlib.plots._masks import masks
from growlib.plots._matrix import accuracy_matrix
from growlib.plots._memory import memory, stream
from growlib.plots._methods import decisions, forgotten
from growlib.plots._network import network
from growlib.plots._owners import owners
from growlib.plots._pictures import confusion, predictions
from growlib.plots._poles import poles
from growlib.plots._scrubber import Scrubber, scrubber
from growlib.plots._sparsity import pixels, sparsity, weights
from growlib.plots._style import PALETTE, style
from growlib.plots._wiring import wiring

__all__ = [
    "PALETTE",
    "Scrubber",
    "accuracy_matrix",
    "bills",
    "bowls",
    "compare",
    "confusion",
    "couplings",
    "curves",
    "decisions",
    "diagnostics",
    "folds",
    "forgotten",
    "forks",
    "growth",
    "lives",
    "losses",
    "maps",
    "masks",
    "memory",
    "network",
    "owners",
    "pixels",
    "poles",
    "predictions",
    "resources",
    "roc",
    "scrubber",
    "snapshot",
    "speedups",
    "sparsity",
    "stream",
    "style",
    "tradeoff",
    "weights",
    "why",
    "wiring",
]

style()
