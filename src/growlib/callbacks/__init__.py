"""Callbacks: what happens beside the loop, each one small class."""

from growlib.callbacks.age import StepByAge, births
from growlib.callbacks.averages import Average, Lookahead, averaged
from growlib.callbacks.depth import Deepen, last
from growlib.callbacks.diagnostics import EVERYTHING, Diagnostics
from growlib.callbacks.machine import ResourceMonitor, resident_bytes
from growlib.callbacks.rewiring import Rewire, cosine_decay
from growlib.callbacks.schedule import LRSchedule, triangle, warmup_decay
from growlib.callbacks.stem import Freeze, Whiten
from growlib.callbacks.structure import Prune, Widen
from growlib.callbacks.walk import RandomWalk
from growlib.callbacks.watch import Checkpoint, EarlyStopping, Evaluate
from growlib.callbacks.where import by_shortfall, each, loudest, quietest
from growlib.trainer.bar import ProgressBar
