"""growable: finds the widths of any model that torch.fx can trace, and proves each on a trial growth."""

import copy

import torch
from torch import fx, nn

from growlib import generators
from growlib.growth.layouts import hidden_from
from growlib.growth.surgery import TensorReplacer, put_back
from growlib.growth.tracing import Follower, Tracer
from growlib.growth.width import insert_units
from growlib.layers import Hidden, evaluating, learn_torchvision, make_growable, take_on_widths

TOLERANCE = 1e-10  # of what the consumers put out, in float64


def growable(model: nn.Module, example: torch.Tensor) -> nn.Module:
    """Makes the layers of a model growable, in place, where their widths can change.

    The model is traced by torch.fx, units are followed from the layers that make them to those that read them, and
    every width that was found is tried: on a copy in float64 with random normalisation statistics and scales, it gets
    its smallest legal number of new units, and what its consumers put out must stay the same. Layers that are added
    to one another (the stream of a residual network) make one width and grow together; the inner widths of its blocks
    are widths of their own.

    Args:
        model: Any module that torch.fx can trace. Its parameters stay the same objects, so that an optimizer, hooks
            and other references stay valid.
        example: Inputs, (B, ...), of the shape that the model takes.

    Returns:
        The same model. `hidden_of(model)` lists what can change (as `model.hidden` does, where that name was free),
        and `model.refused` tells why the other layers cannot: {name: reason}.

    Raises:
        ValueError: If torch.fx cannot trace the model, or it does not take the example. Nothing has changed then.
    """
    learn_torchvision()
    example = example[:2] if len(example) > 1 else torch.cat([example, example])  # a batch of 1 hides flattened ones
    trial = _shaken(model)
    parameter = next(trial.parameters())
    example = example.to(parameter if example.is_floating_point() else parameter.device)
    graphs = _graphs(trial, example)
    with evaluating(trial), torch.no_grad(), generators.kept(parameter.device):
        runs = [Run(trial, graph, example) for graph in graphs]
        follower = Follower(trial)
        for graph, run in zip(graphs, runs, strict=True):
            follower.follow(graph, run.env)
        found, refused = _sorted_out(follower.found())
        for axis in list(found):
            hidden = hidden_from(axis)
            if reason := next(filter(None, (_moved(run, hidden) for run in runs)), None):
                found.remove(axis)
                refused |= dict.fromkeys(axis.producers, reason)
    return _with_hidden(model, [_own(hidden_from(axis), trial, model) for axis in found], refused, example)


def _shaken(model: nn.Module) -> nn.Module:
    """A copy in float64 whose scales, biases and statistics are random, so that none hides what moves behind it."""
    trial = copy.deepcopy(model).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in trial.parameters():
            if tensor.numel() == max(tensor.shape, default=1):
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
        for name, tensor in trial.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return trial


def _graphs(model: nn.Module, example: torch.Tensor) -> list[fx.Graph]:
    """The calls of a model in eval and, where they differ, in train mode: auxiliary heads read units too."""
    graphs = []
    for training in (False, True):
        try:
            graph = Tracer(example).trace(model.train(training))
        except Exception as error:
            raise ValueError(
                f"torch.fx cannot trace {type(model).__name__} in {'train' if training else 'eval'} mode: {error}. "
                "Move control flow that depends on data into a module of its own, or give the model a `hidden` "
                "property that lists its Hiddens"
            ) from error
        if str(graph) not in map(str, graphs):
            graphs.append(graph)
    return graphs


class Run(fx.Interpreter):
    """All calls of a graph, with their results kept, so that some can be done anew."""

    def __init__(self, model: nn.Module, graph: fx.Graph, example: torch.Tensor):
        super().__init__(model, garbage_collect_values=False, graph=graph)
        try:
            self.run(example)
        except Exception as error:
            raise ValueError(
                f"{type(model).__name__} does not run on the example of shape {tuple(example.shape)}: {error}"
            ) from error

    def fetch_args_kwargs_from_env(self, node):
        """Hands out copies: a call that works in place must not change what is kept."""
        copied = fx.node.map_aggregate(super().fetch_args_kwargs_from_env(node), _copied)
        return tuple(copied)


def _copied(value):
    return value.clone() if torch.is_tensor(value) else value


def _sorted_out(axes: list) -> tuple[list, dict]:
    """The axes that may grow, and for the layers of the others the reason."""
    found, refused = [], {}
    for axis in axes:
        norms = [module for module, _ in axis.norms.values()]
        if not axis.consumers:
            axis.refuse("no layer reads them")
        if axis.read_raw and any(isinstance(norm, nn.LayerNorm) for norm in norms):
            axis.refuse("they are read both before and behind a LayerNorm")
        if axis.refused:
            refused |= dict.fromkeys(axis.producers, axis.refused)
        else:
            found.append(axis)
    return found, refused


def _moved(run: Run, hidden: Hidden) -> str | None:
    """Why a width cannot grow after all: what went wrong when it did, or None."""
    for module in (*hidden.producers, *hidden.norms, *hidden.consumers):
        make_growable(module)
    replacer, before = TensorReplacer(run.module, None), run.env
    try:
        insert_units(replacer, hidden, hidden.unit)
        replacer.write()
        return _difference(run, hidden)
    except Exception as error:
        return f"widening by {hidden.unit} fails: {str(error).splitlines()[0]}"
    finally:
        run.env = before
        put_back(run.module, replacer.previous)


def _difference(run: Run, hidden: Hidden) -> str | None:
    """Does the calls from the producers to the consumers anew, and compares."""
    before, run.env = run.env, dict(run.env)
    changed = set()
    for node in run.graph.nodes:
        module = run.module.get_submodule(node.target) if node.op == "call_module" else None
        if module not in hidden.producers and not changed.intersection(node.all_input_nodes):
            continue
        run.env[node] = run.run_node(node)
        if module not in hidden.consumers or module in hidden.producers:
            changed.add(node)
            continue
        old = before[node]
        moved = ((run.env[node] - old).abs().max() / old.abs().max()).item()
        if not moved <= TOLERANCE:
            return f"widening by {hidden.unit} moves what {node.target!r} puts out by {moved:.1e}"
    return None


def _own(hidden: Hidden, trial: nn.Module, model: nn.Module) -> Hidden:
    """The Hidden of the model itself, for one of its copy."""
    paths = {module: path for path, module in trial.named_modules()}

    def own(module):
        return module and model.get_submodule(paths[module])

    roles = [tuple(map(own, role)) for role in (hidden.producers, hidden.norms, hidden.consumers)]
    reads = {own(reader): tuple((own(first), size) for first, size in parts) for reader, parts in hidden.reads.items()}
    return Hidden(hidden.name, *roles, hidden.unit, reads)


def _with_hidden(model: nn.Module, found: list[Hidden], refused: dict, example) -> nn.Module:
    for hidden in found:
        for module in (*hidden.producers, *hidden.norms, *hidden.consumers):
            make_growable(module)
    before = getattr(model, "_hidden", None)
    if before is None:
        model.register_load_state_dict_pre_hook(take_on_widths)
    if getattr(model, "hidden", None) is before:  # none, or what was found the last time
        model.hidden = found
    model._hidden, model.refused = found, refused
    name = "_input_shape" if hasattr(model, "input_shape") else "input_shape"
    setattr(model, name, tuple(example.shape[1:]))
    if not example.is_floating_point():
        model.input_dtype = example.dtype
    return model
