"""Neural networks whose structure changes while they learn."""

import importlib

from growlib import callbacks, continual, costs, data, inits, models, parallel, results, scores, signals, when
from growlib.callbacks import (
    Average,
    Checkpoint,
    Deepen,
    Diagnostics,
    EarlyStopping,
    Evaluate,
    Freeze,
    Lookahead,
    LRSchedule,
    ProgressBar,
    Prune,
    RandomWalk,
    ResourceMonitor,
    Rewire,
    StepByAge,
    Whiten,
    Widen,
    averaged,
    births,
    by_shortfall,
    cosine_decay,
    each,
    loudest,
    quietest,
    triangle,
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
    task_costs,
)
from growlib.costs import Budget
from growlib.data import Dataset, Split, load, permuted, relabelled, split_by_class
from growlib.growth import (
    Change,
    check_growth,
    deepen,
    growable,
    identity,
    lost_tensors,
    prune,
    repeated,
    residual,
    untrained,
    widen,
)
from growlib.inits import gradmax, north, orthogonal, random, split, variance_transfer, zero_out
from growlib.layers import (
    Attention,
    GrowBatchNorm2d,
    GrowConv2d,
    GrowLinear,
    Hidden,
    connections,
    evaluating,
    hidden_of,
    sparse_layers,
)
from growlib.models import (
    MLP,
    ConvNet,
    ResNet,
    SpeedNet,
    TaskBatchNorm2d,
    TaskConv2d,
    TaskLinear,
    TaskModel,
    TaskNet,
    TaskSpeedNet,
    dirac,
    whiten,
)
from growlib.results import by_profile, check_parameters
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
    Probe,
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
from growlib.sparsity import CsrLinear, budget_report, cut_off, degrees, erk, ranked, rewire, sparsify, uniform
from growlib.sparsity.budget import as_masked
from growlib.studies import Fork, Rerun, Ticket, fork, lottery, masks_of, search_growth, shuffled, twin, wire
from growlib.trainer import (
    Callback,
    History,
    Trainer,
    cropped,
    derive_seed,
    load_model,
    mirrored,
    norm_biases_apart,
    view_accuracy,
)
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

__version__ = "0.1.0"  # the one place that says it: the package's metadata is read from here

__all__ = [
    # the menus
    *("callbacks", "continual", "costs", "data", "inits", "models", "parallel", "plots", "results"),
    *("scores", "signals", "when"),
    # train
    *("Trainer", "History", "Callback", "Checkpoint", "EarlyStopping", "Evaluate", "LRSchedule", "ProgressBar"),
    *("ResourceMonitor", "Budget", "warmup_decay", "evaluating", "derive_seed", "load_model"),
    # train fast
    *("Whiten", "Freeze", "Average", "Lookahead", "averaged", "triangle", "norm_biases_apart"),
    *("mirrored", "cropped", "view_accuracy", "whiten", "dirac"),
    # data and models
    *("Dataset", "Split", "load", "permuted", "relabelled", "split_by_class"),
    *("MLP", "ConvNet", "ResNet", "SpeedNet", "TaskNet", "TaskSpeedNet", "TaskModel", "Attention"),
    *("GrowLinear", "GrowConv2d", "GrowBatchNorm2d", "TaskLinear", "TaskConv2d", "TaskBatchNorm2d"),
    # grow
    *("growable", "hidden_of", "Hidden", "widen", "deepen", "prune", "Change", "check_growth", "lost_tensors"),
    *("Widen", "Deepen", "Prune", "StepByAge", "births", "each", "loudest", "quietest", "by_shortfall"),
    *("zero_out", "random", "orthogonal", "split", "gradmax", "north", "variance_transfer"),
    *("identity", "residual", "repeated", "untrained"),
    # rewire
    *("sparsify", "rewire", "uniform", "erk", "ranked", "connections", "sparse_layers", "as_masked", "CsrLinear"),
    *("budget_report", "degrees", "cut_off", "Rewire", "RandomWalk", "cosine_decay"),
    *("smallest_magnitude", "sign_flip", "at_random", "largest_gradient", "gradient_importance", "hebbian", "stdp"),
    *("attention", "topological"),
    # remember
    *("NeuronGenesis", "EWC", "SI", "GEM", "AGEM", "Replay", "LwF", "PackNet", "Joint", "Accuracies", "Certify"),
    *("accuracy_matrix", "average_accuracy", "forgetting", "backward_transfer", "forward_transfer"),
    *("parameter_life", "task_costs", "retention_snapshot", "retention_certificate"),
    # listen
    *("Probe", "Diagnostics", "gradient_norm", "relative_gradient", "update_ratio", "activation", "activation_mean"),
    *("activation_variance", "saturation", "dead", "dormancy", "effective_rank", "stable_rank", "taylor", "magnitude"),
    *("weight_effective_rank", "weight_stable_rank", "orthogonality_gap", "mutual_information", "input_information"),
    *("gradmax_gain", "natural_gain"),
    # when
    *("every", "above", "below", "plateau", "drop_of", "quantile", "rested", "worthwhile", "narrower_than"),
    *("shallower_than", "within_budget", "new_task"),
    # runs of runs, and their records
    *("fork", "twin", "Fork", "lottery", "Ticket", "masks_of", "shuffled", "wire", "search_growth", "Rerun"),
    *("by_profile", "check_parameters"),
]


def __getattr__(name: str):
    if name == "plots":  # costs as much time to import as all the rest: processes that only train do without
        return importlib.import_module("growlib.plots")
    raise AttributeError(f"module 'growlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
