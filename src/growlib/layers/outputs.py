"""What a model puts out, whatever it comes in."""

from collections.abc import Iterator
from dataclasses import is_dataclass

import torch
from torch import Tensor


def tensors_in(outputs) -> Iterator[Tensor]:
    """The tensors in what a model puts out: one, or those of tuples, dicts and data classes."""
    if torch.is_tensor(outputs):
        yield outputs
    elif isinstance(outputs, dict):
        for part in outputs.values():
            yield from tensors_in(part)
    elif isinstance(outputs, (list, tuple)):
        for part in outputs:
            yield from tensors_in(part)
    elif is_dataclass(outputs):
        yield from tensors_in(vars(outputs))


def flat(outputs) -> Tensor:
    """All numbers that a model puts out, as one tensor: the one that it is, or all of them in a row."""
    found = [tensor for tensor in tensors_in(outputs) if tensor.is_floating_point()]
    if not found:
        raise TypeError(f"the model puts out {type(outputs).__name__}, in which there is no floating-point tensor")
    return found[0] if len(found) == 1 else torch.cat([tensor.flatten() for tensor in found])
