"""Growth: widths that can change, found in a model; wider, narrower and deeper networks that keep their function."""

from growlib.growth.depth import deepen
from growlib.growth.discovery import growable
from growlib.growth.starts import identity, repeated, residual, untrained
from growlib.growth.width import Change, check_growth, lost_tensors, prune, widen
