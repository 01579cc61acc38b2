"""Networks that know their hidden layers."""

from growlib.models._plain import MLP, ConvNet
from growlib.models._residual import ResidualBlock, ResNet
from growlib.models._tagged import INPUTS, Tagged, TaskBatchNorm2d, TaskConv2d, TaskLinear
from growlib.models._task_model import TaskModel
from growlib.models._tasks import TaskNet

KNOWN = {"MLP": MLP, "ConvNet": ConvNet, "ResNet": ResNet, "TaskNet": TaskNet}  # what a checkpoint may name
