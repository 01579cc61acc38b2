"""Pooling, resampling and reductions, and tensors that are made from nothing."""

from growlib.growth.units.follow import Call, new_like, rule
from growlib.growth.units.sizes import Size, cut, fixed, product, split


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
    """Pooling that also tells where."""
    sizes, values = call.sizes(call.first), call.node.meta["val"]
    count = int(next(letter for letter in call.name if letter in "123"))
    call.fix(sizes[-count:])
    return [[*sizes[:-count], *map(fixed, map(int, value.shape[-count:]))] for value in values]


@rule("mean", "sum", "amax", "amin", "var", "std", "linalg_vector_norm", "norm", "logsumexp", "any", "all", "prod")
def reduced(call: Call) -> list[Size]:
    """Dimensions that are summed up or averaged."""
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
    """Two tensors: a variance and a mean, or values and their places."""
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
    """The halves of a dimension, one of them a gate of the other."""
    sizes = list(call.sizes(call.first))
    half = sizes[call["dim"]].size // 2
    first, second = cut(sizes[call["dim"]], [half, half], call.reason)
    call.equal(first, second)
    sizes[call["dim"]] = first
    return sizes


@rule("pixel_shuffle")
def pixel_shuffle(call: Call) -> list[Size]:
    """Channels become positions."""
    *batch, channels, height, width = call.sizes(call.first)
    call.fix([height, width])
    made, square = split(channels, channels.size // call["upscale_factor"] ** 2, call.reason)
    call.fix([square], f"{call.node.name!r} makes positions of them")
    return [*batch, made, *map(fixed, call.shape[-2:])]


@rule("pixel_unshuffle")
def pixel_unshuffle(call: Call) -> list[Size]:
    """Positions become channels."""
    *batch, channels, height, width = call.sizes(call.first)
    call.fix([height, width])
    return [*batch, product([channels, fixed(call["downscale_factor"] ** 2)]), *map(fixed, call.shape[-2:])]


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(call: Call) -> list[Size]:
    """Channels in another order, group by group."""
    *batch, channels, height, width = call.sizes(call.first)
    group, rest = split(channels, call["groups"], call.reason)
    call.fix([group], f"{call.node.name!r} counts on this many groups")
    return [*batch, product([rest, group]), height, width]


@rule("im2col")
def unfolded(call: Call) -> list[Size]:
    """Windows of a dimension."""
    batch, channels, height, width = call.sizes(call.first)
    call.fix([height, width])
    return [batch, product([channels, fixed(call.shape[1] // channels.size)]), fixed(call.shape[2])]


# ------------------------------------------------------------------------------------------ made from nothing


@rule("zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty", "rand", "randn")
def filled(call: Call) -> list[Size]:
    """As many as are asked for."""
    return [Size(size) for size in call.shape]


@rule("arange", "linspace", "scalar_tensor", "tril_indices", "eye", "randperm", "randint", "tensor")
def counted(call: Call) -> list[Size]:
    """As many as there are entries of something, which is no width."""
    return [fixed(size, "they are counted one by one") for size in call.shape]


@rule("tril", "triu", "meshgrid", "bucketize", "one_hot", "histc")
def by_place(call: Call):
    """What depends on where entries lie."""
    for tensor in call.tensors():
        call.fix(call.sizes(tensor))
    return new_like(call.node, call.reason)


@rule("_assert_tensor_metadata", "_assert_async", "_assert_scalar", "sym_size", "sym_constrain_range_for_size", "item")
@rule("is_nonzero", "_local_scalar_dense", "_enter_autocast", "_exit_autocast", "_set_grad_enabled")
def nothing(call: Call) -> None:
    """Puts out no tensor."""
