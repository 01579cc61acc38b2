"""What a connection is worth: functions (layer, probe) -> the worth of every weight, absent ones included.

Rewiring drops the connections of the lowest worth and regrows those of the highest; `sparsify` keeps the highest. A
score that brings its own number of drops has it as an attribute `count`, a function of the worths of all connections.
One that remembers something of every connection keeps it in a buffer of the layer: its `begin(layer)` makes the buffer,
its `born(layer, indices)` is told of new connections.
"""

from growlib.scores._activity import hebbian, stdp
from growlib.scores._attention import attention
from growlib.scores._signs import sign_flip
from growlib.scores._topology import topological
from growlib.scores._weights import (
    at_random,
    gradient_importance,
    largest_gradient,
    smallest_magnitude,
    weight_gradient,
)
