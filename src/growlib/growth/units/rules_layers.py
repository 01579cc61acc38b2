"""What layers do with sizes: who makes units, who normalises and who reads them."""

from math import prod

from torch import fx

from growlib.growth.units.exported import place_of
from growlib.growth.units.follow import Call, rule
from growlib.growth.units.sizes import Size, factors_of, fixed, product, split


def read_and_made(call: Call, weight: fx.Node, read: int, made: int | None):
    """Notes what a weight does along two of its dimensions."""
    call.role(weight, read, "consumer")
    if made is not None:
        call.role(weight, made, "producer")


def contracted(call: Call, value: fx.Node, dim: int, other: fx.Node, other_dim: int):
    """Two values are multiplied and summed over a dimension: a weight reads units, or units meet units."""
    call.equal(call.sizes(value)[dim], call.sizes(other)[other_dim])
    for tensor, place in ((value, dim), (other, other_dim)):
        if not call.is_data(tensor) and tensor in call.follower.origins:
            call.role(tensor, place, "consumer")
    if call.is_data(value) and call.is_data(other):
        call.mark(call.sizes(value)[dim], "contracted")


def made_by(call: Call, value: fx.Node, dim: int):
    """A dimension of a weight that is one of the output: it makes these units."""
    if not call.is_data(value):
        call.role(value, dim, "producer")


@rule("linear")
def linear(call: Call) -> list[Size]:
    """Rows of a weight make units, columns read them."""
    inputs, weight, bias = call["input"], call["weight"], call["bias"]
    contracted(call, inputs, -1, weight, 1)
    made_by(call, weight, 0)
    rows = call.sizes(weight)[0]
    if bias is not None:
        call.equal(rows, call.sizes(bias)[0])
        call.role(bias, 0, "bias")
    return [*call.sizes(inputs)[:-1], rows]  # (..., outputs)


@rule("conv1d", "conv2d", "conv3d")
def convolution(call: Call) -> list[Size]:
    """Filters make channels and read those of their group."""
    inputs, weight, bias = call["input"], call["weight"], call["bias"]
    ndim = len(call.sizes(weight))
    rows, columns, *kernel = call.sizes(weight)  # (made, read of a group, ...)
    *batch, channels = call.sizes(inputs)[: 1 - ndim + 1]
    call.fix([*call.sizes(inputs)[2 - ndim :], *kernel])
    rows = _in_groups(call, channels, rows, columns, call["groups"])
    _notes_weight(call, weight, bias, rows, made=0, read=1)
    return [*batch, rows, *map(fixed, call.shape[2 - ndim :])]


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(call: Call) -> list[Size]:
    """As a convolution, with the weight's first two axes the other way round."""
    inputs, weight, bias = call["input"], call["weight"], call["bias"]
    ndim = len(call.sizes(weight))
    columns, rows, *kernel = call.sizes(weight)  # (read, made of a group, ...)
    *batch, channels = call.sizes(inputs)[: 1 - ndim + 1]
    call.fix([*call.sizes(inputs)[2 - ndim :], *kernel])
    call.equal(channels, columns)
    made = rows
    if call["groups"] > 1:
        group, own = split(columns, call["groups"], call.reason)
        call.fix([own, rows], _group_reason(call))
        made = product([group, rows])
    _notes_weight(call, weight, bias, made, made=1, read=0)
    if call["groups"] > 1:
        call.role(weight, 0, "producer")
    return [*batch, made, *map(fixed, call.shape[2 - ndim :])]


def _group_reason(call: Call) -> str:
    return f"the groups of {call.node.name!r} keep their size, and their number grows"


def _in_groups(call: Call, channels: Size, rows: Size, columns: Size, groups: int) -> Size:
    """Groups keep their size; as many are read as are made."""
    if groups == 1:
        call.equal(channels, columns)
        return rows
    group, own = split(channels, groups, call.reason)
    made_group, made = split(rows, groups, call.reason)
    call.fix([own, made, columns], _group_reason(call))
    call.equal(group, made_group)
    return rows


def _notes_weight(call: Call, weight, bias, rows: Size, made: int, read: int):
    if call.is_data(weight):
        call.fix(call.sizes(weight)[:2])
    read_and_made(call, weight, read, made)
    if bias is not None:
        call.equal(rows, call.sizes(bias)[0])
        call.role(bias, 0, "bias")


@rule("embedding")
def embedding(call: Call) -> list[Size]:
    """A table of rows, of which ids pick some."""
    weight = call["weight"]
    made_by(call, weight, 1)
    call.fix(call.sizes(call["indices"]))
    return [*call.sizes(call["indices"]), call.sizes(weight)[1]]


# ---------------------------------------------------------------------------------------------------------- products


@rule("matmul", "bmm", "mm", "mv", "dot")
def matmul(call: Call) -> list[Size]:
    """The last dimension of one meets the last but one of the other."""
    left, right = call.node.args[:2]
    return _multiplied(call, left, right)


@rule("addmm", "baddbmm", "addbmm")
def addmm(call: Call) -> list[Size]:
    """A product of matrices, and something that is added to it."""
    found = _multiplied(call, call.node.args[1], call.node.args[2])
    for mine, own in zip(call.sizes(call.first)[::-1], found[::-1], strict=False):
        if mine.size == own.size:
            call.equal(mine, own)
    if not call.is_data(call.first):
        call.role(call.first, -1, "bias")
    return found


def _multiplied(call: Call, left: fx.Node, right: fx.Node) -> list[Size]:
    mine, theirs = call.sizes(left), call.sizes(right)
    contracted(call, left, -1, right, -2 if len(theirs) > 1 else 0)
    batch = broadcast(call, [mine[:-2], theirs[:-2]])
    rows, columns = mine[-2:-1], theirs[-1:] if len(theirs) > 1 else []
    if rows:
        made_by(call, left, -2)
    if columns:
        made_by(call, right, -1)
    return [*batch, *rows, *columns]


def broadcast(call: Call, shapes: list[list[Size]]) -> list[Size]:
    """Sizes that meet one another, counted from the last dimension."""
    ndim, found = max(map(len, shapes), default=0), []
    for place in range(-ndim, 0):
        meeting = [shape[place] for shape in shapes if len(shape) >= -place]
        size = max(part.size for part in meeting)
        large = [part for part in meeting if part.size == size]
        for part in meeting:
            if part.size != size:
                part.fix("it is one number that all units of another layer share")
        for part in large[1:]:
            call.equal(large[0], part)
        found.append(large[0])
    return found


@rule("einsum")
def einsum(call: Call) -> list[Size]:
    """Dimensions of one letter are one, and those that the output lacks are read."""
    equation, tensors = call["equation"].replace(" ", ""), call["tensors"]
    if "." in equation or "->" not in equation or len(tensors) > 2:
        return call.unknown()
    terms, result = equation.partition("->")[0].split(","), equation.partition("->")[2]
    known = {}
    for tensor, letters in zip(tensors, terms, strict=True):
        for place, letter in enumerate(letters):
            known.setdefault(letter, []).append((tensor, place))
    for letter, places in known.items():
        if len(places) > 1 and letter not in result:
            contracted(call, *places[0], *places[1])
        elif letter not in result:
            call.fix([call.sizes(tensor)[place] for tensor, place in places])
        sizes = [call.sizes(tensor)[place] for tensor, place in places]
        for size in sizes[1:]:
            call.equal(sizes[0], size)
        for tensor, place in places if letter in result else ():
            made_by(call, tensor, place)
    return [call.sizes(known[letter][0][0])[known[letter][0][1]] for letter in result]


@rule("scaled_dot_product_attention")
def attention(call: Call) -> list[Size]:
    """Queries meet keys, and positions gather values."""
    query, key, value = (call.sizes(call[name]) for name in ("query", "key", "value"))
    call.equal(query[-1], key[-1])
    call.equal(key[-2], value[-2])
    call.mark(query[-1], "contracted")
    batches = [query[:-2], key[:-2], value[:-2]]
    if call["enable_gqa"]:
        call.fix([shape[-3] for shape in (query, key, value)], "heads that share keys are counted by the call")
        batches = [query[:-2]]
    batch = broadcast(call, batches)
    if call["attn_mask"] is not None:
        broadcast(call, [[*batch, query[-2], key[-2]], call.sizes(call["attn_mask"])])
    return [*batch, query[-2], value[-1]]


# -------------------------------------------------------------------------------------------------------------- norms


@rule("batch_norm", "instance_norm", "_native_batch_norm_legit", "cudnn_batch_norm")
def batch_norm(call: Call) -> list[Size]:
    """Every channel is normalised by itself."""
    sizes = call.sizes(call["input"])
    call.fix([*sizes[:1], *sizes[2:]])
    for name in NORMS:
        _normed(call, name, 0, sizes[1])
    if not call.is_data(call["input"]):  # standardised weights
        call.keep_origin(call["input"], list(range(len(sizes))))
    return sizes


NORMS = {"weight": "norm", "bias": "shift", "running_mean": "mean", "running_var": "variance"}


def _normed(call: Call, name: str, dim: int, size: Size):
    if call[name] is not None:
        call.equal(size, call.sizes(call[name])[dim])
        call.role(call[name], dim, NORMS[name])


@rule("group_norm")
def group_norm(call: Call) -> list[Size]:
    """Channels are normalised in groups, which come and go as wholes."""
    sizes = call.sizes(call["input"])
    call.fix(sizes[2:])
    for name in ("weight", "bias"):
        _normed(call, name, 0, sizes[1])
    if call["num_groups"] == 1:
        call.fix(sizes[1:2])
        return sizes
    _, own = split(sizes[1], call["num_groups"], f"the groups of {place_of(call.node)} mix several widths")
    call.fix([own], _group_reason(call))
    return sizes


@rule("layer_norm", "rms_norm")
def layer_norm(call: Call) -> list[Size]:
    """The last dimensions are normalised together."""
    sizes, count = call.sizes(call["input"]), len(call["normalized_shape"])
    normed = sizes[-count:]
    for name in ("weight", "bias"):
        for dim in range(-count, 0) if call[name] is not None else ():
            _normed(call, name, dim, normed[dim])
    lone = count == 1 and len(factors_of(normed[0])) <= 1 and normed[0].root.kind != "sum"
    if not lone or call["weight"] is None:
        call.fix(
            normed,
            f"{place_of(call.node)} takes the mean over several widths, or has no scale to make up for more units",
        )
    call.mark(normed[-1], "centred" if call.name == "layer_norm" else "averaged")
    return sizes


@rule("prelu", "_prelu_kernel")
def prelu(call: Call) -> list[Size]:
    """A slope for every channel, or one for all."""
    sizes, weight = call.sizes(call.first), call.node.args[1]
    if prod(size.size for size in call.sizes(weight)) > 1:
        dim = 1 if len(sizes) > 1 else 0
        own = next(n for n, size in enumerate(call.sizes(weight)) if size.size > 1)
        call.equal(sizes[dim], call.sizes(weight)[own])
        call.role(weight, own, "slope")
    return sizes
