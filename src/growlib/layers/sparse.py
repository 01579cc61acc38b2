"""What tells a sparse layer, and its connections counted."""

from torch import nn


class Sparse:
    """A layer of which some connections are absent: `mask` is True where there is one, elsewhere `weight` is zero."""

    inputs_first = False  # whether the weight is (inputs, outputs, ...)


def sparse_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers of a model whose connections are counted, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Sparse)}


def connections(model: nn.Module) -> int:
    """The number of connections in the sparse layers of a model, counted."""
    return sum(int(layer.mask.sum()) for layer in sparse_layers(model).values())
