"""Layers of torch under the names that models of growlib, and what checkpoints tell of them, use."""

from torch import nn


class GrowLinear(nn.Linear):
    """A linear layer whose numbers of inputs and outputs can change, as those of any nn.Linear can."""


class GrowConv2d(nn.Conv2d):
    """A convolution whose numbers of channels can change, as those of any nn.Conv2d can."""


class GrowBatchNorm2d(nn.BatchNorm2d):
    """A batch normalisation whose number of channels can change, as those of any nn.BatchNorm2d can."""
