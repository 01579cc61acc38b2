"""What is put side by side, and taken apart again."""

from growlib.growth.units.follow import Call, rule
from growlib.growth.units.rules_layers import broadcast
from growlib.growth.units.sizes import Size, cut, fixed, total


@rule("cat", "concat", "concatenate")
def concatenated(call: Call) -> list[Size]:
    """Dimensions side by side become a sum."""
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
    """Equal tensors in a new dimension."""
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
    """A dimension is cut into pieces."""
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
    """A part of a dimension, between two places."""
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
    """One entry of a dimension."""
    sizes = list(call.sizes(call.first))
    dim = call["dim"] % len(sizes)
    call.fix([sizes[dim]], f"{call.node.name!r} picks one of them")
    call.keep_origin(call.first, [n for n in range(len(sizes)) if n != dim])
    return [*sizes[:dim], *sizes[dim + 1 :]]


@rule("unbind")
def unbound(call: Call) -> list[list[Size]]:
    """All entries of a dimension, one by one."""
    return [selected(call)] * len(call.node.meta["val"])


@rule("index")
def indexed(call: Call) -> list[Size]:
    """Entries of some dimensions, by tensors of indices."""
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
    """Entries of one dimension, by a tensor of indices."""
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
    """A dimension with something put before and behind it."""
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
