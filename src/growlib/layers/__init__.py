"""Layers whose widths can change, what tells a sparse one, and Hidden: the modules that share one width."""

from growlib.layers.attention import Attention
from growlib.layers.attributes import note, noted
from growlib.layers.compiled import as_written, renew_compiled, uncompiled
from growlib.layers.hidden import NORMS, Entry, Hidden, Table, hidden_of, known_hidden
from growlib.layers.loading import TakesOnWidths, take_on_widths, take_shape, take_shapes
from growlib.layers.modes import evaluating
from growlib.layers.outputs import flat, tensors_in
from growlib.layers.resizing import GrowBatchNorm2d, GrowConv2d, GrowLinear
from growlib.layers.sparse import Sparse, connections, sparse_layers
from growlib.layers.tasks import tasks_of
