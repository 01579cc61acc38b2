"""A residual block once more: a fresh copy whose branches are zero, since the tensors that write to the stream are."""

import torch
from torch import Tensor, fx, nn

from growlib.growth.inserted import fresh, path_of, put_behind
from growlib.growth.units.exported import View, export

TOLERANCE = 1e-10  # of what a silent block puts out, relative to the largest value


def silenced(model: nn.Module, after: str, inputs: tuple, outputs: Tensor) -> list[str]:
    """The tensors of a block that must be zero for it to pass on what it reads.

    Args:
        model: In float64.
        after: The name of the block.
        inputs: What the block read.
        outputs: What it put out.

    Returns:
        Their names in the block.

    Raises:
        ValueError: If the block does not add to what it reads.
    """
    block = model.get_submodule(path_of(model, after))
    if len(inputs) != 1 or not torch.is_tensor(inputs[0]) or inputs[0].shape != outputs.shape:
        raise ValueError(
            f"cannot repeat {after!r}: it does not take one tensor and put out another of the same shape. Use "
            "init=residual. Nothing was changed"
        )
    names = _writers(block, inputs)
    if not names or not _passes_on(fresh(block), names, inputs[0]):
        raise ValueError(
            f"cannot repeat {after!r}: with zeros where it writes to its stream it does not pass on what it reads. Use "
            "init=residual. Nothing was changed"
        )
    return names


def _writers(block: nn.Module, inputs: tuple) -> list[str]:
    """The tensors that are met first on the way back from what a block puts out, beyond all that is added up."""
    view = export(block, inputs, {}, False)
    waiting, met = list(next(iter(reversed(view.graph.nodes))).all_input_nodes), {}
    while waiting:
        node = waiting.pop()
        own = [source for source in node.all_input_nodes if source.name in view.names]
        if node.op != "call_function":
            continue
        if own:
            met |= dict.fromkeys(view.names[source.name] for source in own if _learns(view, source))
        else:
            waiting += node.all_input_nodes
    return list(met)


def _learns(view: View, node: fx.Node) -> bool:
    return isinstance(view.tensors[node.name], nn.Parameter)


def _passes_on(block: nn.Module, names: list[str], inputs: Tensor) -> bool:
    """Whether a block does nothing, and what keeps it from doing so learns."""
    tensors = _silence(block, names)
    with torch.enable_grad():
        outputs = block(inputs)
        weights = [tensor for tensor in tensors if tensor.ndim > 1] or tensors
        gradients = torch.autograd.grad((outputs * inputs.cos()).sum(), weights, allow_unused=True)
    same = (outputs - inputs).abs().max() <= TOLERANCE * inputs.abs().max()
    return bool(same) and all(gradient is not None and gradient.any() for gradient in gradients)


def repeat_behind(model: nn.Module, after: str, names: list[str]) -> nn.Module:
    """Puts a fresh copy of a block behind it, with zeros for the tensors of these names."""
    (block,) = put_behind(model, after, ["Repeat"], 0)
    _silence(block, names)
    return block


@torch.no_grad()
def _silence(block: nn.Module, names: list[str]) -> list[nn.Parameter]:
    tensors = [tensor for name, tensor in block.named_parameters() if name in names]
    for tensor in tensors:
        tensor.zero_()
    return tensors
