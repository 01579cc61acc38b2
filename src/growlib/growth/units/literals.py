"""The sizes that stand in a call as plain numbers, and the attributes of modules that they come from."""

from torch import fx, nn
from torch.utils._pytree import tree_leaves

from growlib.growth.units.exported import View, module_of
from growlib.growth.units.follow import Call, Follower
from growlib.growth.units.frozen import frozen
from growlib.growth.units.sizes import Size, split
from growlib.layers.attributes import noted
from growlib.layers.layouts import widths_in

SHAPES = {"view", "reshape", "expand", "_unsafe_view", "zeros", "ones", "full", "empty"}
SHAPES |= {"new_zeros", "new_ones", "new_full", "new_empty", "rand", "randn"}
SIZED = SHAPES | {"unflatten", "split", "split_with_sizes", "slice", "narrow", "layer_norm", "rms_norm", "repeat"}
SIZED |= {"group_norm", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
SIZED |= {"channel_shuffle", "native_channel_shuffle", "tensor_split", "arange", "expand_as"}


def sized(follower: Follower, node: fx.Node) -> list[tuple[int, Size]]:
    """The plain numbers of a call that are sizes: (number, what it is the size of)."""
    call, made = Call(follower, node), follower.sizes.get(node)
    if call.name in SHAPES:
        numbers = next((v for v in node.args if isinstance(v, (list, tuple))), ())
        return list(zip(numbers, made, strict=False))
    if call.name == "unflatten":
        start = call["dim"] % len(call.sizes(call.first))
        return list(zip(call["sizes"], made[start:], strict=False))
    if call.name in ("split", "split_with_sizes"):
        pieces = [part[(call["dim"] or 0) % len(part)] for part in made]
        numbers = node.args[1] if isinstance(node.args[1], (list, tuple)) else [node.args[1]]
        return list(zip(numbers, pieces, strict=False))
    if call.name in ("slice", "narrow"):
        return [(made[(call["dim"] or 0) % len(made)].size, made[(call["dim"] or 0) % len(made)])]
    if call.name in ("layer_norm", "rms_norm"):
        return list(zip(call["normalized_shape"], made[-len(call["normalized_shape"]) :], strict=True))
    groups = call["num_groups"] or call["groups"]
    if groups and groups > 1 and call.name in SIZED:
        channels = call.sizes(call["input"])[1]
        return [(groups, split(channels, groups, "")[0])]
    return []


def attributes_of(model: nn.Module, follower: Follower, view: View, names: dict, more: set[type]) -> dict:
    """The numbers that modules of other people keep, and what each may be the size of.

    Args:
        model: What was exported.
        follower: What knows the sizes of the view's graph.
        view: The calls.
        names: Of the widths.
        more: Classes of modules whose numbers may be the size of anything in their calls, not only of what stands
            there as a plain number: the export leaves out what does nothing today, like a slice of everything.

    Returns:
        For (module, name), the layouts of all that is as large as it in the calls of that module, those that change
        first; None among them for something that stays.
    """
    found, rest, modules = {}, {}, dict(model.named_modules())
    for node in view.graph.nodes:
        module = modules.get(module_of(node)) if node.op == "call_function" else None
        if module is None or noted(module):
            continue
        own = {name: value for name, value in vars(module).items() if type(value) is int and value > 0}
        for number, size in sized(follower, node) if own else ():
            if number == size.size:
                _note(found, module, own, size, names)
        for size in follower.sizes[node] or () if own and type(module) in more else ():
            if isinstance(size, Size) and size.free():
                _note(rest, module, own, size, names)
    found = {**rest, **found}
    return {key: sorted(options, key=lambda o: o is None) for key, options in found.items() if set(options) != {None}}


def _note(found: dict, module: nn.Module, own: dict[str, int], size: Size, names: dict):
    layout = frozen(size, names)
    option = layout if widths_in(layout) else None
    for name, value in own.items():
        if value == size.size and option not in found.setdefault((module, name), []):
            found[module, name].append(option)


def plain(node: fx.Node) -> list:
    """The plain numbers of a call."""
    return [value for value in tree_leaves((node.args, node.kwargs)) if type(value) in (int, float)]
