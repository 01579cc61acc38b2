"""Neural networks whose structure changes while they learn."""

import importlib

from growlib import costs, parallel
from growlib.callbacks import (
    Checkpoint,
    Deepen,
    Diagnostics,
    EarlyStopping,
    Evaluate,
    LRSchedule,
    ProgressBar,
    Prune,
    RandomWalk,
    ResourceMonitor,
    Rewire,
    StepByAge,
    Widen,
    by_shortfall,
    cosine_decay,
    each,
    loudest,
    quietest,
    warmup_decay,
)
from growlib.continual import (
    AGEM,
    EWC,
    GEM,
    SI,
    Accuracies,
    Certify,
    Joint,
    LwF,
    NeuronGenesis,
    PackNet,
    Replay,
    accuracy_matrix,
    average_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
    parameter_life,
    retention_certificate,
    retention_snapshot,
    search_growth,
    task_costs,
)
from growlib.costs import Budget
from growlib.data import Dataset, load
from growlib.depth import deepen, identity, residual, untrained
from growlib.discovery import growable
from growlib.fork import Fork, fork, twin
from growlib.growth import Change, check_growth, lost_tensors, prune, widen
from growlib.inits import gradmax, north, orthogonal, random, split, variance_transfer, zero_out
from growlib.layers import GrowBatchNorm2d, GrowConv2d, GrowLinear, Hidden, connections, hidden_of, sparse_layers
from growlib.models import MLP, ConvNet, ResNet, TaskModel, TaskNet
from growlib.probe import Probe
from growlib.profiles import by_profile
from growlib.scores import (
    at_random,
    attention,
    gradient_importance,
    hebbian,
    largest_gradient,
    sign_flip,
    smallest_magnitude,
    stdp,
    topological,
)
from growlib.signals import (
    activation,
    activation_mean,
    activation_variance,
    dead,
    dormancy,
    effective_rank,
    gradient_norm,
    gradmax_gain,
    input_information,
    magnitude,
    mutual_information,
    natural_gain,
    orthogonality_gap,
    relative_gradient,
    saturation,
    stable_rank,
    taylor,
    update_ratio,
    weight_effective_rank,
    weight_stable_rank,
)
from growlib.sparsity import erk, ranked, rewire, sparsify, uniform
from growlib.streams import permuted, relabelled, split_by_class
from growlib.tagged import TaskBatchNorm2d, TaskConv2d, TaskLinear
from growlib.tickets import Ticket, lottery, masks_of, shuffled, wire
from growlib.trainer import Callback, History, Trainer
from growlib.when import (
    above,
    below,
    drop_of,
    every,
    narrower_than,
    new_task,
    plateau,
    quantile,
    rested,
    shallower_than,
    within_budget,
    worthwhile,
)
from growlib.wiring import budget_report, cut_off, degrees

__version__ = "0.1.0"


def __getattr__(name: str):
    if name == "plots":  # costs as much time to import as all the rest: processes that only train do without
        return importlib.import_module("growlib.plots")
    raise AttributeError(f"module 'growlib' has no attribute {name!r}")
