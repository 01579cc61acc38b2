"""Tasks in sequence: methods that keep what was learned, one small callback a file, and the metrics of keeping."""

from growlib.continual.ewc import EWC, fisher
from growlib.continual.lwf import LwF
from growlib.continual.metrics import (
    Accuracies,
    accuracy_matrix,
    average_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
)
from growlib.continual.replay import Replay
from growlib.continual.si import SI
