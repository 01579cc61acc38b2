"""What the calls between layers do with sizes: elementwise ones, moves, pieces, sums and reductions."""

from growlib.units.follow import Call, new_like, rule
from growlib.units.rules_layers import broadcast
from growlib.units.sizes import Size, cut, fixed, product, reshape, split, total

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
    sizes = call.sizes(call.first)
    found = reshape(sizes, call.shape, call.reason)
    call.keep_origin(call.first, [next((n for n, s in enumerate(sizes) if s.root is size.root), None) for size in found])
    return found


@rule("permute", "transpose", "transpose_", "t", "t_", "numpy_T", "mT", "adjoint", "swapaxes", "movedim", "swapdims")
def permuted(call: Call) -> list[Size]:
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
    found, dims = list(call.sizes(call.first)), list(range(len(call.sizes(call.first))))
    place = call["dim"] % (len(found) + 1)
    found.insert(place, fixed(1)), dims.insert(place, None)
    call.keep_origin(call.first, dims)
    return found


@rule("squeeze", "squeeze_")
def squeeze(call: Call) -> list[Size]:
    sizes, dims = call.sizes(call.first), call["dim"]
    dims = range(len(sizes)) if dims is None else [dims] if isinstance(dims, int) else dims
    gone = {dim % len(sizes) for dim in dims if sizes[dim].size == 1}
    call.fix([sizes[dim] for dim in gone], f"{call.node.name!r} counts on one unit")
    kept = [dim for dim in range(len(sizes)) if dim not in gone]
    call.keep_origin(call.first, kept)
    return [sizes[dim] for dim in kept]


@rule("expand", "broadcast_to")
def expand(call: Call) -> list[Size]:
    sizes, shape = call.sizes(call.first), call.shape
    more = len(shape) - len(sizes)
    found = [Size(size) for size in shape[:more]]
    for size, now in zip(sizes, shape[more:], strict=True):
        found.append(size if size.size == now else Size(now))
    if not call.is_data(call.first):
        call.keep_origin(call.first, [n - more if n >= more and sizes[n - more].size == s else None for n, s in enumerate(shape)])
    return found


@rule("repeat", "tile")
def repeat(call: Call) -> list[Size]:
    sizes, shape = call.sizes(call.first), call.shape
    padded = [fixed(1)] * (len(shape) - len(sizes)) + list(sizes)
    return [product([fixed(now // size.size), size]) if now != size.size else size for size, now in zip(padded, shape)]


@rule("repeat_interleave")
def repeat_interleave(call: Call) -> list[Size]:
    sizes, shape = list(call.sizes(call.first)), call.shape
    if call["dim"] is None or not isinstance(call["repeats"], int):
        return call.unknown()
    sizes[call["dim"]] = product([sizes[call["dim"]], Size(shape[call["dim"]] // sizes[call["dim"]].size)])
    return sizes


# -------------------------------------------------------------------------------------------- side by side, and pieces


@rule("cat", "concat", "concatenate")
def concatenated(call: Call) -> list[Size]:
    tensors = [t for t in call["tensors"] if len(call.sizes(t)) > 1 or call.sizes(t)[0].size or len(call.shape) == 1]
    shapes = [call.sizes(tensor) for tensor in tensors]
    dim = call["dim"] % len(call.shape)
    for tensor in tensors if call.is_data(call.node) else ():
        for place in range(len(call.shape)) if not call.is_data(tensor) else ():
            call.role(tensor, place, "add")
    for tensor in () if call.is_data(call.node) else tensors:
        call.keep_origin(tensor, [place if place != dim else None for place in range(len(call.shape))])
    found = list(shapes[0])
    for shape in shapes[1:]:
        for place, size in enumerate(shape):
            if place != dim:
                call.equal(found[place], size)
    found[dim] = total([shape[dim] for shape in shapes])
    return found


@rule("stack")
def stacked(call: Call) -> list[Size]:
    shapes = [call.sizes(tensor) for tensor in call["tensors"]]
    for tensor in call["tensors"]:
        for place in range(len(shapes[0])):
            call.role(tensor, place, "add")
    for shape in shapes[1:]:
        for mine, other in zip(shapes[0], shape, strict=True):
            call.equal(mine, other)
    found = list(shapes[0])
    found.insert(call["dim"] % len(call.shape), fixed(len(shapes), "they lie side by side"))
    return found


@rule("split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_chunk", "tensor_split", "hsplit")
def pieces(call: Call) -> list[list[Size]]:
    sizes, values = call.sizes(call.first), call.node.meta["val"]
    dim = (call["dim"] or 0) % len(sizes)
    cuts = cut(sizes[dim], [int(value.shape[dim]) for value in values], call.reason)
    if call.name != "split_with_sizes" and len(cuts) > 1 and len({part.size for part in cuts}) == 1:
        for part in cuts[1:]:  # equal pieces of what is cut anew stay equal
            call.equal(cuts[0], part)
    if not call.is_data(call.first):
        call.keep_origin(call.first, [n if n != dim else None for n in range(len(sizes))])
    return [[*sizes[:dim], part, *sizes[dim + 1 :]] for part in cuts]


@rule("slice", "narrow")
def sliced(call: Call) -> list[Size]:
    sizes = list(call.sizes(call.first))
    dim = (call["dim"] or 0) % len(sizes)
    whole, now = sizes[dim], call.shape[dim]
    start = call["start"] or 0
    start = max(start + whole.size, 0) if start < 0 else start
    step = call["step"] or 1
    if now == whole.size:
        pass
    elif step != 1 or not now:
        call.fix([whole])
        sizes[dim] = fixed(now, call.reason)
    else:
        lengths = [start, now, whole.size - start - now]
        parts = cut(whole, [length for length in lengths if length], call.reason)
        sizes[dim] = parts[1 if start else 0]
    call.keep_origin(call.first, [n if n != dim or now == whole.size else None for n in range(len(sizes))])
    return sizes


@rule("select")
def selected(call: Call) -> list[Size]:
    sizes = list(call.sizes(call.first))
    dim = call["dim"] % len(sizes)
    call.fix([sizes[dim]], f"{call.node.name!r} picks one of them")
    call.keep_origin(call.first, [n for n in range(len(sizes)) if n != dim])
    return [*sizes[:dim], *sizes[dim + 1 :]]


@rule("unbind")
def unbound(call: Call) -> list[list[Size]]:
    return [selected(call)] * len(call.node.meta["val"])


@rule("index")
def indexed(call: Call) -> list[Size]:
    sizes, indices = call.sizes(call.first), call["indices"]
    places = [place for place, index in enumerate(indices) if index is not None]
    shapes = [call.sizes(indices[place]) for place in places]
    if len(call.shape) != len(sizes) - len(places) + max(map(len, shapes)):
        return call.unknown()  # a boolean mask
    call.fix([sizes[place] for place in places], f"{call.node.name!r} picks some of them")
    gathered = broadcast(call, shapes)
    kept = [place for place in range(len(sizes)) if place not in places]
    start = places[0] if places == list(range(places[0], places[0] + len(places))) else 0
    dims = [*kept[:start], *[None] * len(gathered), *kept[start:]]
    call.keep_origin(call.first, dims)
    return [*(sizes[n] for n in kept[:start]), *gathered, *(sizes[n] for n in kept[start:])]


@rule("index_select", "gather", "take_along_dim")
def picked(call: Call) -> list[Size]:
    sizes, index = list(call.sizes(call.first)), call.sizes(call["index"])
    dim = (call["dim"] or 0) % len(sizes)
    call.fix([sizes[dim]], f"{call.node.name!r} picks some of them")
    if call.name != "index_select":
        return broadcast_gather(call, sizes, index, dim)
    sizes[dim] = index[0]
    return sizes


def broadcast_gather(call: Call, sizes: list[Size], index: list[Size], dim: int) -> list[Size]:
    """`gather` looks along one dimension, at all places of the others."""
    for place, (mine, theirs) in enumerate(zip(sizes, index, strict=True)):
        if place != dim and mine.size == theirs.size:
            call.equal(mine, theirs)
        elif place != dim:
            call.fix([mine, theirs])
    return index


@rule("pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d")
def padded(call: Call) -> list[Size]:
    sizes, pad = list(call.sizes(call.first)), call["pad"] or call["padding"]
    for place in range(len(pad) // 2):
        before, after = pad[2 * place : 2 * place + 2]
        if before < 0 or after < 0 or (call["mode"] or "constant") != "constant":
            call.fix([sizes[-1 - place]])
            sizes[-1 - place] = fixed(call.shape[-1 - place])
        elif before or after:
            around = [[fixed(n)] if n else [] for n in (before, after)]
            sizes[-1 - place] = total([*around[0], sizes[-1 - place], *around[1]])
    return sizes


# ------------------------------------------------------------------------------------------------ positions, reductions


def _positions(names: tuple[str, ...], pattern: str) -> list[str]:
    return [pattern.format(name, ndim) for name in names for ndim in (1, 2, 3)]


@rule(
    *_positions(("max_pool", "avg_pool", "adaptive_avg_pool", "lp_pool"), "{}{}d"),
    *("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_bilinear2d", "upsample_bicubic2d"),
    *("upsample_linear1d", "upsample_trilinear3d", "_upsample_nearest_exact2d", "_upsample_bilinear2d_aa"),
    *("_upsample_bicubic2d_aa", "grid_sampler", "_adaptive_avg_pool2d"),
)
def over_positions(call: Call) -> list[Size]:
    """Treats every channel alike, and makes other positions."""
    sizes = call.sizes(call.first)
    count = len(sizes) - 2 if call.name[-2] not in "123" else int(call.name[-2])
    call.fix(sizes[-count:])
    return [*sizes[:-count], *map(fixed, call.shape[-count:])]


@rule(*_positions(("adaptive_max_pool",), "{}{}d"), *_positions(("max_pool",), "{}{}d_with_indices"))
def over_positions_with_indices(call: Call) -> list[list[Size]]:
    sizes, values = call.sizes(call.first), call.node.meta["val"]
    count = int(next(letter for letter in call.name if letter in "123"))
    call.fix(sizes[-count:])
    return [[*sizes[:-count], *map(fixed, map(int, value.shape[-count:]))] for value in values]


@rule("mean", "sum", "amax", "amin", "var", "std", "linalg_vector_norm", "norm", "logsumexp", "any", "all", "prod")
def reduced(call: Call) -> list[Size]:
    sizes, dims = call.sizes(call.first), call["dim"]
    dims = range(len(sizes)) if dims in (None, []) else [dims] if isinstance(dims, int) else dims
    dims = {dim % len(sizes) for dim in dims}
    for dim in dims:
        if call.name in ("mean", "sum", "linalg_vector_norm", "norm"):
            call.mark(sizes[dim], "averaged" if call.name == "mean" else "summed")
        else:
            call.fix([sizes[dim]])
    if call["keepdim"]:
        return [fixed(1) if dim in dims else size for dim, size in enumerate(sizes)]
    return [size for dim, size in enumerate(sizes) if dim not in dims]


@rule("var_mean", "std_mean", "max", "min", "topk", "sort")
def reduced_to_two(call: Call):
    for source in call.tensors():
        dims = call.sizes(source)
        if call.name in ("var_mean", "std_mean") or call["dim"] is None:
            call.fix(dims)
        else:
            call.fix([dims[call["dim"]]])
    if call.name not in ("topk", "sort"):
        return new_like(call.node, call.reason)
    dim, sizes = call["dim"] % len(dims), call.sizes(call.first)
    return [[fixed(int(v.shape[n])) if n == dim else s for n, s in enumerate(sizes)] for v in call.node.meta["val"]]


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", "cumsum", "flip", "roll", "argmax", "argmin", "argsort")
def along(call: Call) -> list[Size]:
    """Mixes what lies along some dimensions, and puts out as many."""
    sizes, dims = call.sizes(call.first), call["dim"] if "dim" in call.args else call["dims"]
    dims = range(len(sizes)) if dims in (None, []) else [dims] if isinstance(dims, int) else dims
    call.fix([sizes[dim] for dim in dims])
    if call.name in ("argmax", "argmin"):
        return reduced(call)
    return sizes


@rule("glu")
def glu(call: Call) -> list[Size]:
    sizes = list(call.sizes(call.first))
    half = sizes[call["dim"]].size // 2
    first, second = cut(sizes[call["dim"]], [half, half], call.reason)
    call.equal(first, second)
    sizes[call["dim"]] = first
    return sizes


@rule("pixel_shuffle")
def pixel_shuffle(call: Call) -> list[Size]:
    *batch, channels, height, width = call.sizes(call.first)
    call.fix([height, width])
    made, square = split(channels, channels.size // call["upscale_factor"] ** 2, call.reason)
    call.fix([square], f"{call.node.name!r} makes positions of them")
    return [*batch, made, *map(fixed, call.shape[-2:])]


@rule("pixel_unshuffle")
def pixel_unshuffle(call: Call) -> list[Size]:
    *batch, channels, height, width = call.sizes(call.first)
    call.fix([height, width])
    return [*batch, product([channels, fixed(call["downscale_factor"] ** 2)]), *map(fixed, call.shape[-2:])]


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(call: Call) -> list[Size]:
    *batch, channels, height, width = call.sizes(call.first)
    group, rest = split(channels, call["groups"], call.reason)
    call.fix([group], f"{call.node.name!r} counts on this many groups")
    return [*batch, product([rest, group]), height, width]


@rule("im2col")
def unfolded(call: Call) -> list[Size]:
    batch, channels, height, width = call.sizes(call.first)
    call.fix([height, width])
    return [batch, product([channels, fixed(call.shape[1] // channels.size)]), fixed(call.shape[2])]


# ---------------------------------------------------------------------------------------------------- made from nothing


@rule("zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty", "rand", "randn")
def filled(call: Call) -> list[Size]:
    """As many as are asked for."""
    return [Size(size) for size in call.shape]


@rule("arange", "linspace", "scalar_tensor", "tril_indices", "eye", "randperm", "randint", "tensor")
def counted(call: Call) -> list[Size]:
    return [fixed(size, "they are counted one by one") for size in call.shape]


@rule("tril", "triu", "meshgrid", "bucketize", "one_hot", "histc")
def by_place(call: Call):
    for tensor in call.tensors():
        call.fix(call.sizes(tensor))
    return new_like(call.node, call.reason)


@rule("_assert_tensor_metadata", "_assert_async", "_assert_scalar", "sym_size", "sym_constrain_range_for_size", "item")
@rule("is_nonzero", "_local_scalar_dense", "_enter_autocast", "_exit_autocast", "_set_grad_enabled")
def nothing(call: Call) -> None:
    """Puts out no tensor."""
