"""The calls of a model, as torch.export writes them down: one graph of ATen calls, whatever modules made them."""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind
from torch.utils._pytree import tree_leaves

from growlib.growth.journal import for_a_while


@dataclass(frozen=True)
class View:
    """A model as it runs in one mode.

    Args:
        graph: Its calls.
        tensors: For every input of the graph that is a parameter, buffer or constant, its value.
        names: For those of them that the model holds, the name there.
        inputs: For every other input its value, as it was given.
    """

    graph: fx.Graph
    tensors: dict[str, Tensor]
    names: dict[str, str]
    inputs: dict[str, object]

    def text(self) -> str:
        """Its calls in words, to compare two of them."""
        return str(self.graph)


def export(model: nn.Module, args: tuple, kwargs: dict, training: bool) -> View:
    """The calls of a model in train or eval mode.

    Args:
        model: Any module that torch.export takes, without compilation.
        args: Its inputs.
        kwargs: Inputs by name.
        training: Which mode.

    Raises:
        ValueError: If it can't be exported.
    """
    with for_a_while(model), torch.no_grad(), _quiet():  # torch.export puts copies of lists into modules
        for module in model.modules():
            module.training = training
        try:
            program = torch.export.export(model, args, kwargs, strict=False)
        except Exception as error:
            _refuse_misfit(model, args, kwargs)
            words = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(
                f"torch.export cannot take {type(model).__name__} in {'train' if training else 'eval'} mode: "
                f"{words[0]}. Code that depends on the values of data, or uses `.data`, has no graph: rewrite it "
                "(`.detach()`, torch.where), or give the model a `hidden` property that lists its Hiddens. Nothing was "
                "changed"
            ) from error
    tensors, names, inputs, given = {}, {}, {}, iter(tree_leaves((args, kwargs)))
    for spec in program.graph_signature.input_specs:
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            names[spec.arg.name] = spec.target
            tensors[spec.arg.name] = program.state_dict.get(spec.target, program.constants.get(spec.target))
        elif spec.kind is InputKind.CONSTANT_TENSOR:
            tensors[spec.arg.name] = program.constants[spec.target]
        elif spec.kind is InputKind.USER_INPUT:
            inputs[spec.arg.name] = next(given)
    return View(program.graph, tensors, names, inputs)


def _refuse_misfit(model: nn.Module, args: tuple, kwargs: dict):
    """Raises ValueError if a model does not run as it is."""
    try:
        model(*args, **kwargs)
    except Exception as error:
        shapes = [tuple(leaf.shape) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        raise ValueError(
            f"{type(model).__name__} does not run on the example of shape {', '.join(map(str, shapes))}: {error}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps from the user what torch.export warns of and logs: it speaks of tensors that a trial puts in the place of
    others.
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def module_of(node: fx.Node) -> str:
    """The path of the module whose code makes a call."""
    stack = node.meta.get("nn_module_stack") or {}
    return list(stack.values())[-1][0].removeprefix("L['self'].") if stack else ""


def line_of(node: fx.Node) -> tuple[str, int] | None:
    """The file and line that make a call, outside of torch itself where there is one."""
    frames = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if "/torch/" not in frame[0]] or frames
    return (own[-1][0], int(own[-1][1])) if own else None


def place_of(node: fx.Node) -> str:
    """Where a call is made, for people: operator, module and line."""
    name = str(node.target).removeprefix("aten.").split(".")[0]
    line = line_of(node)
    where = f" ({line[0].rpartition('/')[2]}, line {line[1]})" if line else ""
    return f"{name!r} in {module_of(node) or 'the model'!r}{where}"
