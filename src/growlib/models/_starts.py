"""How a convolution starts: with the directions in which patches of images differ, or passing its channels on."""

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold


@torch.no_grad()
def whiten(layer: nn.Conv2d, images: Tensor, epsilon: float = 5e-4):
    """Gives a convolution the filters that make the patches of images white, and their negatives; its weight is frozen.

    The filters are the eigenvectors of the patches' second moments, each divided by the root of its eigenvalue: their
    answers on these images are uncorrelated and of the same size. Biases become zero and can go on learning.

    Args:
        layer: With two filters for every value of a patch, 2 x C x kernel height x kernel width.
        images: (N, C, H, W) of floats, normalised as in training; some thousands are enough.
        epsilon: Added to the eigenvalues, so that directions without variance are not blown up.

    Raises:
        ValueError: The layer has another number of filters.

    Source: Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (2024), section 3.2.
    """
    values = layer.weight[0].numel()
    if len(layer.weight) != 2 * values or layer.groups != 1:
        raise ValueError(
            f"whiten makes two filters for each of the {values} values of a patch, {2 * values}, and the layer has "
            f"{len(layer.weight)}"
        )
    moments = torch.zeros(values, values, dtype=torch.float64, device=images.device)
    for part in images.split(500):
        patches = unfold(part, layer.kernel_size).transpose(0, 1).flatten(1).double()  # (values, patches)
        moments += patches @ patches.T / patches.shape[1] * len(part) / len(images)
    sizes, directions = torch.linalg.eigh(moments)
    filters = (directions / (sizes + epsilon).sqrt()).T.flip(0)  # the largest eigenvalue first
    layer.weight.copy_(torch.cat([filters, -filters]).view_as(layer.weight))
    layer.weight.requires_grad_(False)
    if layer.bias is not None:
        layer.bias.zero_()


@torch.no_grad()
def dirac(layer: nn.Conv2d, first: int = 0) -> nn.Conv2d:
    """Lets the first filters of a convolution pass channels on as they are; the others stay as they were.

    Args:
        layer: Any convolution of images.
        first: The first channel that is passed on; those before it have no part in these filters.

    Source: Zagoruyko, Komodakis, "DiracNets: Training Very Deep Neural Networks Without Skip-Connections" (2017); only
        in part, as in Jordan (2024), section 3.1.
    """
    filters = layer.weight[: layer.weight.shape[1] - first].zero_()
    nn.init.dirac_(filters[:, first:])
    return layer
