"""Networks that know their hidden layers."""

from growlib.models._plain import MLP, ConvNet
from growlib.models._residual import ResidualBlock, ResNet
from growlib.models._speed import SpeedBlock, SpeedNet
from growlib.models._speed_tasks import TaskSpeedNet
from growlib.models._starts import dirac, whiten
from growlib.models._tagged import INPUTS, Tagged, TaskBatchNorm2d, TaskConv2d, TaskLinear
from growlib.models._task_model import TaskModel
from growlib.models._tasks import TaskNet

# What a checkpoint may name.
KNOWN = {kind.__name__: kind for kind in (MLP, ConvNet, ResNet, SpeedNet, TaskNet, TaskSpeedNet)}
