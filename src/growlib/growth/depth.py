"""deepen: a new layer in a network that has learned, which keeps its function, its optimizer and its schedule."""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from growlib import costs, generators
from growlib.growth.discovery import growable
from growlib.growth.inserted import Block, ImageBlock, name_of, path_of, put_behind
from growlib.growth.journal import all_or_nothing
from growlib.growth.optimizers import add_parameters, lay_out_alike, rename_parameters
from growlib.growth.refusals import refuse_changed, refuse_quantised
from growlib.growth.slots import OptimizerSlots
from growlib.growth.width import Change, described
from growlib.layers import Hidden, as_written, connections, evaluating, flat, hidden_of, sparse_layers

TOLERANCE = 1e-10  # of outputs in float64, relative to the largest one


def identity(layer: nn.Module):
    """Weights with which a layer passes on what it reads: exact between two ReLUs, as relu(I relu(x)) = relu(x).

    Source: Chen, Goodfellow, Shlens, "Net2Net: Accelerating Learning via Knowledge Transfer" (2016), Net2DeeperNet.
    """
    if not isinstance(layer, (nn.Linear, nn.Conv2d)):
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


def untrained(layer: nn.Module):
    """A layer as torch makes it, random: what lies before it is scrambled."""


identity.preserves = residual.preserves = True
untrained.preserves = False


def deepen(model: nn.Module, after: Hidden | str, init=None, optimizer=None) -> Change:
    """Puts a new layer behind one of a model, in place; all layers keep their names.

    Args:
        model: A model of growlib.models, or any that `growable` prepared.
        after: A Hidden of the model, or the name of any of its modules.
        init: How the new layer starts: `identity`, `residual` or `untrained`. None takes what models of growlib are
            made of; in others an identity layer where that is exact, and else a residual block.
        optimizer: The one in use, or a list of them: the new tensors join the groups of the nearest of their kind, with
            a fresh state.

    Returns:
        The Change, of the width that the new layer brought.

    Raises:
        ValueError: For an unknown layer, a sparse model, or if outputs would move that the init promises to keep.
        TypeError: For an optimizer that cannot take on tensors. Whatever is raised, nothing has changed then.
    """
    model = as_written(model)
    refuse_quantised(model, "deepen")
    if sparse_layers(model):
        raise ValueError(
            f"cannot deepen a sparse model of {connections(model):,} connections: a new layer would be dense, and "
            "break the budget. Call deepen before sparsify"
        )
    OptimizerSlots(optimizer)  # refuses what cannot take on tensors
    after = _named(model, after)
    put = _verified(model, after, init)
    with all_or_nothing(model, optimizer):
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        new = put(model)
        lay_out_alike(model, new)
        add_parameters(optimizer, model, new)
        rename_parameters(optimizer, names, model)
        rediscover(model)
        hidden = _born(model, new)
        change = described(model, "deepen", hidden.name, 0, hidden.width)
    return replace(change, optimizer=optimizer, inserted=new)


def _named(model: nn.Module, after: Hidden | str) -> str:
    """The name of the module that the new layer follows: of a Hidden its normalisation, or the block that it is in."""
    found, name = {hidden.name: hidden for hidden in hidden_of(model)}, after if isinstance(after, str) else after.name
    if hasattr(model, "insert_layer") or name not in found:
        return name
    if not hasattr(model, "_hidden"):
        raise ValueError(
            f"{type(model).__name__} lists its hidden layers itself, so deepen cannot add to them: leave that to "
            "growable(model, example), or give it methods `insert_layer` and `remove_layer` as MLP has them"
        )
    refuse_changed(model, found[name], "deepen")
    last = (found[name].norms or found[name].producers)[0]
    holders = [path for path, module in model.named_modules() if last in module.modules()]
    block = [path for path in holders if isinstance(model.get_submodule(path), (Block, ImageBlock))]
    return name_of(model, [*holders, *block[:1]][-1])


def rediscover(model: nn.Module):
    """Finds the widths of a model anew, if `growable` found those that it had."""
    if hasattr(model, "_hidden"):
        growable(model, _examples(model))


def _born(model: nn.Module, new: tuple[nn.Module, ...]) -> Hidden | None:
    """The width that new modules brought, or else one that they joined, if any."""
    own = {module for part in new for module in part.modules()}
    joined = [hidden for hidden in hidden_of(model) if own & set(hidden.producers)]
    return max(joined, key=lambda hidden: own >= set(hidden.producers), default=None)


# ------------------------------------------------------------------------------------- what is put in, and the proof


def _verified(model: nn.Module, after: str, init):
    """A function that puts the new layer into a model, once it has kept what the init promises on copies of it."""
    trials = [init] if init or hasattr(model, "insert_layer") else [identity, residual]
    twins, reasons = [_twin(model, flip) for flip in (False, True)], []
    for trial in trials:
        with generators.kept(next(model.parameters()).device):
            put = _putter(model, after, trial, twins)
            copies = [copy.deepcopy(twin) for twin in twins]
            drifts, new = zip(*(_put_and_compare(one, put) for one in copies), strict=True)
            rediscover(copies[0])
        moved = max(drifts)
        name = getattr(trial, "__name__", "a new layer")
        if moved > TOLERANCE and getattr(trial, "preserves", True):
            reasons.append(f"{name} moves an output by {moved:.1e} of the largest one")
        elif _born(copies[0], new[0]) is None:
            reasons.append(f"{name} would bring units whose readers cannot be followed")
        else:
            return put
    raise ValueError(
        f"cannot deepen {type(model).__name__} behind {after!r}: {', '.join(reasons)}. An identity layer needs a ReLU "
        "before and behind it, and init=residual does not. Nothing was changed"
    )


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
def _put_and_compare(twin: nn.Module, put) -> tuple[float, tuple[nn.Module, ...]]:
    """How far the outputs move, relative to the largest, and the modules that are new."""
    before, new, now = _call(twin), put(twin), _call(twin)
    return ((now - before).abs().max() / before.abs().max().clamp_min(1e-300)).nan_to_num(torch.inf).item(), new


def _call(model: nn.Module) -> Tensor:
    """What a model puts out for fixed examples; one that draws noise in eval mode too draws the same each time."""
    examples = _examples(model)
    with generators.kept(examples.device):
        torch.manual_seed(0)
        try:
            return flat(model(examples))
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"cannot deepen {type(model).__name__}: it does not run on examples of its input_shape, "
                f"{tuple(examples.shape[1:])} of {examples.dtype}: {error}. Set model.input_shape to the shape of one "
                "example (and model.input_dtype, of token ids torch.long). Nothing was changed"
            ) from error


def _examples(model: nn.Module) -> Tensor:
    examples = costs.example(model, 8, torch.Generator().manual_seed(0))  # (8, ...)
    if examples is None:
        raise ValueError(
            f"cannot deepen {type(model).__name__}: its input_shape does not tell the shape of one example. Give it one"
        )
    return examples


def _putter(model: nn.Module, after: str, init, twins: list[nn.Module]):
    """A function that puts a new layer into a model or its copies, and returns the modules that are new."""
    if hasattr(model, "insert_layer"):
        return lambda one: (_started(one.insert_layer(after)[1], init),)
    outputs = [_outputs_of(twin, after) for twin in twins]
    channels_last = isinstance(model.get_submodule(path_of(model, after)), (nn.Linear, nn.LayerNorm))
    image = outputs[0].ndim == 4 and not channels_last
    width = outputs[0].shape[1 if image else -1]
    if init is residual:
        kinds = ["ImageBlock" if image else "Block"]
    else:
        kinds = ["GrowConv2d" if image else "GrowLinear", "ReLU"]
    if len(kinds) > 1 and any(bool((x < 0).any()) for x in outputs):
        kinds.reverse()  # what follows `after` is the ReLU of the new layer

    def put(one):
        new = put_behind(one, after, kinds, width)
        layer = next(module for module in new if not isinstance(module, nn.ReLU))
        _started(layer, init)
        return (layer, *(module for module in new if module is not layer))

    return put


@torch.no_grad()
def _started(layer: nn.Module, init) -> nn.Module:
    (init or (residual if hasattr(layer, "silence") else identity))(layer)
    return layer


@torch.no_grad()
def _outputs_of(model: nn.Module, after: str) -> Tensor:
    seen = []
    module = model.get_submodule(path_of(model, after))
    hook = module.register_forward_hook(
        lambda module, inputs, outputs: seen.append(outputs + 0 if torch.is_tensor(outputs) else outputs)
    )
    try:
        with evaluating(model):
            _call(model)
    finally:
        hook.remove()
    if not seen or not torch.is_tensor(seen[0]) or seen[0].ndim < 2 or not seen[0].is_floating_point():
        what = f"puts out {type(seen[0]).__name__}" if seen else "is not called in the forward pass"
        raise ValueError(f"cannot deepen {type(model).__name__} behind {after!r}: it {what}. Nothing was changed")
    return seen[0]
