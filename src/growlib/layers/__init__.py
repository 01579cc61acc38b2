"""Layers whose widths can change, what tells a sparse one, and Hidden: the modules that share one width."""

from growlib.layers.attention import Attention
from growlib.layers.compiled import as_written, renew_compiled, uncompiled
from growlib.layers.hidden import Hidden, hidden_of, inputs_of, known_hidden
from growlib.layers.loading import TakesOnWidths, take_on_widths, take_shape, take_shapes
from growlib.layers.modes import evaluating
from growlib.layers.outputs import flat, tensors_in
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
    GrowSyncBatchNorm,
    learn_torchvision,
    make_growable,
)
from growlib.layers.sparse import Sparse, connections, sparse_layers
from growlib.layers.tasks import tasks_of
