"""Layers whose widths can change: each tells them anew from its tensors, in `note_widths`."""

import sys

from torch import nn

from growlib.layers.hidden import inputs_of


class GrowLinear(nn.Linear):
    """A linear layer whose numbers of inputs and outputs can change."""

    def note_widths(self):
        self.out_features, self.in_features = self.weight.shape


class _GrowConv:
    """A convolution with groups keeps the size of a group, and gets more groups."""

    rows_of_a_group = None

    def note_widths(self):
        if self.groups > 1 and self.rows_of_a_group is None:
            self.rows_of_a_group = self.out_channels // self.groups
        self.out_channels = len(self.weight)
        if self.rows_of_a_group:
            self.groups = self.out_channels // self.rows_of_a_group
        self.in_channels = self.weight.shape[1] * self.groups


class GrowConv1d(_GrowConv, nn.Conv1d):
    """A convolution over sequences whose numbers of channels can change."""


class GrowConv2d(_GrowConv, nn.Conv2d):
    """A convolution whose numbers of channels can change."""


class GrowConv3d(_GrowConv, nn.Conv3d):
    """A convolution over volumes whose numbers of channels can change."""


class _GrowBatchNorm:
    def note_widths(self):
        self.num_features = inputs_of(self)


class GrowBatchNorm1d(_GrowBatchNorm, nn.BatchNorm1d):
    """A batch normalisation of vectors whose number of features can change."""


class GrowBatchNorm2d(_GrowBatchNorm, nn.BatchNorm2d):
    """A batch normalisation whose number of channels can change."""


class GrowBatchNorm3d(_GrowBatchNorm, nn.BatchNorm3d):
    """A batch normalisation of volumes whose number of channels can change."""


class GrowSyncBatchNorm(_GrowBatchNorm, nn.SyncBatchNorm):
    """A batch normalisation over several processes whose number of channels can change."""


class GrowGroupNorm(nn.GroupNorm):
    """A group normalisation that keeps the size of a group, and gets more groups."""

    def note_widths(self):
        size = self.num_channels // self.num_groups
        self.num_channels = len(self.weight)
        self.num_groups = self.num_channels // size


class GrowLayerNorm(nn.LayerNorm):
    """A layer normalisation whose width can change.

    Units that repeat the mean leave the sum of squares as it is and divide it by more, so eps follows: eps times width
    stays the same.
    """

    first = None  # its eps and width at first, so that eps depends on the width alone, not on the way there

    def note_widths(self):
        self.first = self.first or (self.eps, self.normalized_shape[0])
        eps, width = self.first
        self.normalized_shape = (len(self.weight),)
        self.eps = eps * (width / len(self.weight))


GROWN = {
    nn.Linear: GrowLinear,
    nn.Conv1d: GrowConv1d,
    nn.Conv2d: GrowConv2d,
    nn.Conv3d: GrowConv3d,
    nn.BatchNorm1d: GrowBatchNorm1d,
    nn.BatchNorm2d: GrowBatchNorm2d,
    nn.BatchNorm3d: GrowBatchNorm3d,
    nn.SyncBatchNorm: GrowSyncBatchNorm,
    nn.GroupNorm: GrowGroupNorm,
    nn.LayerNorm: GrowLayerNorm,
}


def learn_torchvision():
    """Adds torchvision's LayerNorm2d to GROWN where torchvision is loaded: a model that has one brought it along."""
    convnext = sys.modules.get("torchvision.models.convnext")
    if convnext is not None and convnext.LayerNorm2d not in GROWN:
        GROWN[convnext.LayerNorm2d] = type("GrowLayerNorm2d", (GrowLayerNorm, convnext.LayerNorm2d), {})


def make_growable(module: nn.Module):
    """Turns a plain layer of torch into one whose widths can change: the same object, so that hooks stay valid."""
    if type(module) in GROWN:
        module.__class__ = GROWN[type(module)]
        module.note_widths()
