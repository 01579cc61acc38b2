"""What is put behind a layer of a model, and the proof on copies that it keeps what its start promises."""

import copy

import torch
from torch import Tensor, nn

from growlib import costs, generators
from growlib.growth.inserted import path_of, put_behind
from growlib.growth.repeating import repeat_behind, silenced
from growlib.growth.starts import identity, repeated, residual
from growlib.growth.units.axes import axis_of_units
from growlib.layers import evaluating, flat, tensors_in

TOLERANCE = 1e-10  # of outputs in float64, relative to the largest one
LAYERS = {3: "Conv1d", 4: "GrowConv2d", 5: "Conv3d"}  # by the dimensions of what they read
BLOCKS = {3: "SequenceBlock", 4: "ImageBlock", 5: "VolumeBlock"}


class Place:
    """A place behind a layer, where new ones are tried.

    Args:
        model: A model of growlib.models, or any that `growable` prepared.
        after: The name of the layer.
    """

    def __init__(self, model: nn.Module, after: str):
        self.model, self.after = model, after
        self.twins = [_twin(model, flip) for flip in (False, True)]

    def tried(self, init) -> tuple:
        """Something to put there, tried on copies.

        Args:
            init: How it starts.

        Returns:
            A function that puts it into a model and returns the new modules, and what goes wrong, or None.
        """
        with generators.kept(next(self.model.parameters()).device):
            put = self._putter(init)
            drift = max(_drift(copy.deepcopy(twin), put) for twin in self.twins)
        if drift > TOLERANCE and getattr(init, "preserves", True):
            return put, f"moves an output by {drift:.1e} of the largest one"
        return put, None

    def _putter(self, init):
        if hasattr(self.model, "insert_layer"):
            return lambda one: (_started(one.insert_layer(self.after)[1], init),)
        read, outputs = zip(*(_seen(twin, self.after) for twin in self.twins), strict=True)
        if init is repeated:
            names = silenced(self.twins[0], self.after, read[0], outputs[0])
            return lambda one: (repeat_behind(one, self.after, names),)
        axis = self._axis(outputs[0])
        width, ndim = outputs[0].shape[axis], outputs[0].ndim if axis == 1 else 2
        kinds = [BLOCKS.get(ndim, "Block")] if init is residual else [LAYERS.get(ndim, "GrowLinear"), "ReLU"]
        if len(kinds) > 1 and any(bool((x < 0).any()) for x in outputs):
            kinds.reverse()  # what follows `after` is the ReLU of the new layer

        def put(one):
            new = put_behind(one, self.after, kinds, width)
            layer = next(module for module in new if not isinstance(module, nn.ReLU))
            _started(layer, init)
            return (layer, *(module for module in new if module is not layer))

        return put

    def _axis(self, outputs: Tensor) -> int:
        """Along which units lie in what the layer puts out: never along time, or along places."""
        if outputs.ndim == 2:
            return 1
        path, (args, kwargs) = path_of(self.twins[0], self.after), examples_of(self.twins[0])
        if (axis := axis_of_units(self.twins[0], args, kwargs, path)) is not None:
            return axis if axis == 1 else -1
        tokens = isinstance(self.twins[0].get_submodule(path), (nn.Linear, nn.LayerNorm)) or outputs.ndim == 3
        return -1 if tokens else 1


def _twin(model: nn.Module, flip: bool) -> nn.Module:
    """A copy in float64; with the signs of its weights flipped at random, nothing in it holds by accident."""
    tensors = [value for module in model.modules() for value in vars(module).values() if torch.is_tensor(value)]
    memo = {id(tensor): tensor.detach().clone() for tensor in tensors}  # of weight_norm, which deepcopy refuses
    twin, generator = copy.deepcopy(model, memo).double().eval(), torch.Generator().manual_seed(0)
    for parameter in twin.parameters() if flip else ():
        signs = torch.randint(0, 2, parameter.shape, generator=generator).to(parameter) * 2 - 1
        parameter.detach().mul_(signs)
    return twin


@torch.no_grad()
def _drift(twin: nn.Module, put) -> float:
    """How far the outputs move, relative to the largest."""
    before, _, now = _call(twin), put(twin), _call(twin)
    return ((now - before).abs().max() / before.abs().max().clamp_min(1e-300)).nan_to_num(torch.inf).item()


def _call(model: nn.Module) -> Tensor:
    """What a model puts out for fixed examples; one that draws noise in eval mode too draws the same each time."""
    args, kwargs = inputs = examples_of(model)
    with generators.kept(next(model.parameters()).device):
        torch.manual_seed(0)
        try:
            return flat(model(*args, **kwargs))
        except (RuntimeError, ValueError, TypeError) as error:
            told = ", ".join(f"{tuple(tensor.shape[1:])} of {tensor.dtype}" for tensor in tensors_in(inputs))
            raise ValueError(
                f"cannot deepen {type(model).__name__}: it does not run on examples of its input_shape, {told}: "
                f"{error}. Set model.input_shape to the shape of one example (and model.input_dtype, of token ids "
                "torch.long). Nothing was changed"
            ) from error


def examples_of(model: nn.Module) -> tuple[tuple, dict]:
    """Eight inputs of a model: (args, kwargs)."""
    found = costs.example(model, 8, torch.Generator().manual_seed(0))
    if found is None:
        raise ValueError(
            f"cannot deepen {type(model).__name__}: its input_shape does not tell the shape of one example. Give it one"
        )
    return found


@torch.no_grad()
def _started(layer: nn.Module, init) -> nn.Module:
    (init or (residual if hasattr(layer, "silence") else identity))(layer)
    return layer


@torch.no_grad()
def _seen(model: nn.Module, after: str) -> tuple[Tensor, Tensor]:
    """What a layer reads and puts out."""
    seen = []
    module = model.get_submodule(path_of(model, after))
    hook = module.register_forward_hook(
        lambda module, inputs, outputs: seen.append((inputs, outputs + 0 if torch.is_tensor(outputs) else outputs))
    )
    try:
        with evaluating(model):
            _call(model)
    finally:
        hook.remove()
    outputs = seen[0][1] if seen else None
    if not torch.is_tensor(outputs) or outputs.ndim < 2 or not outputs.is_floating_point():
        what = f"puts out {type(outputs).__name__}" if seen else "is not called in the forward pass"
        raise ValueError(f"cannot deepen {type(model).__name__} behind {after!r}: it {what}. Nothing was changed")
    return seen[0]
