"""How a new layer starts: one function each."""

from torch import nn

PASSING = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def identity(layer: nn.Module):
    """Weights with which a layer passes on what it reads: exact between two ReLUs, as relu(I relu(x)) = relu(x).

    Source: Chen, Goodfellow, Shlens, "Net2Net: Accelerating Learning via Knowledge Transfer" (2016), Net2DeeperNet.
    """
    if not isinstance(layer, PASSING):
        raise ValueError(f"a {type(layer).__name__} cannot pass on what it reads: start it with `residual`")
    (nn.init.eye_ if isinstance(layer, nn.Linear) else nn.init.dirac_)(layer.weight)
    nn.init.zeros_(layer.bias)


def residual(layer: nn.Module):
    """A residual block whose branch is zero at birth, since its last layer is: exact anywhere.

    Source: Goyal et al., "Accurate, Large Minibatch SGD" (2017), section 5.1, where the last gamma of a block is zero.
    """
    if not hasattr(layer, "silence"):
        raise ValueError(f"a {type(layer).__name__} is not a residual block: start it with `identity`")
    layer.silence()


def repeated(layer: nn.Module):
    """A fresh copy of the residual block that it follows, whose branches are zero at birth, since the tensors that
    write to the stream are: exact behind any block that adds to what it reads.
    """


def untrained(layer: nn.Module):
    """A layer as torch makes it, random: what lies before it is scrambled."""


identity.preserves = residual.preserves = repeated.preserves = True
untrained.preserves = False
