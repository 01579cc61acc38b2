"""Learning tasks in sequence: task-tagged growth, the methods it is compared with, and what they are judged by."""

from growlib.continual.accounts import parameter_life, task_costs
from growlib.continual.distill import Distill
from growlib.continual.ewc import EWC, fisher
from growlib.continual.gem import AGEM, GEM, projected
from growlib.continual.joint import Joint
from growlib.continual.lwf import LwF
from growlib.continual.metrics import (
    Accuracies,
    accuracy_matrix,
    average_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
)
from growlib.continual.neurogenesis import NeuronGenesis
from growlib.continual.packnet import PackNet
from growlib.continual.replay import Replay
from growlib.continual.retention import Certify, retention_certificate, retention_snapshot
from growlib.continual.routing import Prototypes, accuracy_without_task, entropy, route
from growlib.continual.si import SI
