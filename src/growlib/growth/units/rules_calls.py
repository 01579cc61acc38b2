"""What the calls between layers do with sizes: elementwise ones, and those that move dimensions."""

from growlib.growth.units.follow import Call, rule
from growlib.growth.units.rules_layers import broadcast
from growlib.growth.units.shapes import reshape
from growlib.growth.units.sizes import Size, fixed, product

SCALES = {"mul", "mul_", "div", "div_", "multiply"}


@rule(
    "pointwise",
    *("dropout", "dropout_", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "to", "_to_copy", "type_as"),
    *("contiguous", "clone", "detach", "detach_", "alias", "lift_fresh_copy", "bernoulli", "bernoulli_", "rand_like"),
    *("randn_like", "zeros_like", "ones_like", "full_like", "empty_like", "silu_", "relu_", "gelu", "hardswish_"),
    *("masked_fill_", "copy_", "fill_", "zero_", "where", "expand_as", "log_sigmoid", "rrelu", "celu", "selu", "selu_"),
    *("log_softmax_backward_data", "square", "subtract", "multiply", "divide", "true_divide", "rsub", "float_power"),
    *("hardsigmoid_", "leaky_relu_", "elu_", "mish_", "__and__", "__or__", "isfinite", "nan_to_num", "view_as_real_"),
    *("celu_", "hardtanh_", "relu6", "relu6_", "softplus", "clamp_min", "clamp_max", "clip", "uniform_", "normal_"),
    *("and", "eq", "ne", "special_expit", "__rshift__", "__lshift__", "rrelu_with_noise", "dropout2d", "numpy_T_"),
)
def pointwise(call: Call) -> list[Size]:
    """Treats every entry alike: units that meet have one width."""
    tensors = call.tensors()
    shapes = [call.sizes(tensor) for tensor in tensors]
    found = broadcast(call, shapes)
    inside = any(call.is_data(tensor) for tensor in tensors)
    for tensor, shape in zip(tensors, shapes, strict=True):
        lost = len(found) - len(shape)
        if inside and not call.is_data(tensor):
            for dim in range(len(shape)):
                call.role(tensor, dim, "scale" if call.name in SCALES else "add")
        elif not inside:
            call.keep_origin(tensor, [dim - lost if dim >= lost else None for dim in range(len(found))])
    return found


@rule("reshape", "view", "flatten", "unflatten", "_unsafe_view", "view_as", "reshape_as", "_reshape_alias")
def reshaped(call: Call) -> list[Size]:
    """Entries keep their order, in other dimensions."""
    sizes = call.sizes(call.first)
    found = reshape(sizes, call.shape, call.reason)
    call.keep_origin(
        call.first, [next((n for n, s in enumerate(sizes) if s.root is size.root), None) for size in found]
    )
    return found


@rule("permute", "transpose", "transpose_", "t", "t_", "numpy_T", "mT", "adjoint", "swapaxes", "movedim", "swapdims")
def permuted(call: Call) -> list[Size]:
    """Dimensions in another order."""
    sizes = call.sizes(call.first)
    order = _order(call, len(sizes))
    if order is None:
        return call.unknown()
    call.keep_origin(call.first, order)
    return [sizes[dim] for dim in order]


def _order(call: Call, ndim: int) -> list[int] | None:
    order = list(range(ndim))
    if call.name == "permute":
        return [dim % ndim for dim in call["dims"]]
    if call.name in ("t", "t_", "numpy_T"):
        return order[::-1]
    if call.name in ("mT", "adjoint"):
        return [*order[:-2], order[-1], order[-2]]
    if call.name == "movedim":
        sources, targets = ([n] if isinstance(n, int) else list(n) for n in call.node.args[1:3])
        moved = {target % ndim: source % ndim for source, target in zip(sources, targets, strict=True)}
        rest = iter([dim for dim in order if dim not in moved.values()])
        return [moved[place] if place in moved else next(rest) for place in order]
    first, second = call.node.args[1:3]
    order[first], order[second] = order[second], order[first]
    return order


@rule("unsqueeze", "unsqueeze_")
def unsqueeze(call: Call) -> list[Size]:
    """A dimension of one more."""
    found, dims = list(call.sizes(call.first)), list(range(len(call.sizes(call.first))))
    place = call["dim"] % (len(found) + 1)
    found.insert(place, fixed(1)), dims.insert(place, None)
    call.keep_origin(call.first, dims)
    return found


@rule("squeeze", "squeeze_")
def squeeze(call: Call) -> list[Size]:
    """Dimensions of one less."""
    sizes, dims = call.sizes(call.first), call["dim"]
    dims = range(len(sizes)) if dims is None else [dims] if isinstance(dims, int) else dims
    gone = {dim % len(sizes) for dim in dims if sizes[dim].size == 1}
    call.fix([sizes[dim] for dim in gone], f"{call.node.name!r} counts on one unit")
    kept = [dim for dim in range(len(sizes)) if dim not in gone]
    call.keep_origin(call.first, kept)
    return [sizes[dim] for dim in kept]


@rule("expand", "broadcast_to")
def expand(call: Call) -> list[Size]:
    """Dimensions of one become longer, which repeats entries."""
    sizes, shape = call.sizes(call.first), call.shape
    more = len(shape) - len(sizes)
    found = [Size(size) for size in shape[:more]]
    for size, now in zip(sizes, shape[more:], strict=True):
        found.append(size if size.size == now else Size(now))
    if not call.is_data(call.first):
        call.keep_origin(
            call.first, [n - more if n >= more and sizes[n - more].size == s else None for n, s in enumerate(shape)]
        )
    return found


@rule("repeat", "tile")
def repeat(call: Call) -> list[Size]:
    """Dimensions that lie several times side by side."""
    sizes, shape = call.sizes(call.first), call.shape
    padded = [fixed(1)] * (len(shape) - len(sizes)) + list(sizes)
    return [
        product([fixed(now // size.size), size]) if now != size.size else size
        for size, now in zip(padded, shape, strict=True)
    ]


@rule("repeat_interleave")
def repeat_interleave(call: Call) -> list[Size]:
    """Every entry several times, one behind the other."""
    sizes, shape = list(call.sizes(call.first)), call.shape
    if call["dim"] is None or not isinstance(call["repeats"], int):
        return call.unknown()
    sizes[call["dim"]] = product([sizes[call["dim"]], Size(shape[call["dim"]] // sizes[call["dim"]].size)])
    return sizes
