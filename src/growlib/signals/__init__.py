"""What a layer tells about itself: pure functions (probe, hidden) -> a number, or one for every unit.

A signal is a function of one batch, see `Probe`; it changes nothing and remembers nothing. In a run, triggers
and `Diagnostics` read signals, and History keeps what they read.
"""

from growlib.signals._activity import activation_mean, activation_variance, dead, dormancy, saturation
from growlib.signals._estimators import binned, gaussian, ksg
from growlib.signals._gain import gradmax_gain, natural_gain
from growlib.signals._gradients import gradient_norm, relative_gradient, update_ratio
from growlib.signals._probe import Probe
from growlib.signals._ranks import (
    effective_rank,
    orthogonality_gap,
    stable_rank,
    weight_effective_rank,
    weight_stable_rank,
)
from growlib.signals._told import input_information, mutual_information
from growlib.signals._worth import activation, magnitude, taylor

__all__ = [
    "Probe",
    "binned",
    "gaussian",
    "ksg",
    "activation",
    "activation_mean",
    "activation_variance",
    "dead",
    "dormancy",
    "effective_rank",
    "gradient_norm",
    "gradmax_gain",
    "input_information",
    "magnitude",
    "mutual_information",
    "natural_gain",
    "orthogonality_gap",
    "relative_gradient",
    "saturation",
    "stable_rank",
    "taylor",
    "update_ratio",
    "weight_effective_rank",
    "weight_stable_rank",
]
