"""Layers whose widths can change, what tells a sparse one, and Hidden: the modules that share one width."""

from growlib.layers.attention import Attention
from growlib.layers.compiled import as_written, renew_compiled, uncompiled
from growlib.layers.hidden import Hidden, hidden_of, inputs_of
from growlib.layers.modes import evaluating
from growlib.layers.resizing import (
    GROWN,
    GrowBatchNorm1d,
    GrowBatchNorm2d,
    GrowBatchNorm3d,
    GrowConv1d,
    GrowConv2d,
    GrowConv3d,
    GrowGroupNorm,
    GrowLayerNorm,
    GrowLinear,
    learn_torchvision,
)
from growlib.layers.sparse import Sparse, connections, sparse_layers
