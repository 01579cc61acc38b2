"""A fixed number of connections: which layers have how many, where they are, and how they move."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from growlib.growth.journal import all_or_nothing
from growlib.layers import Sparse, as_written, renew_compiled, sparse_layers
from growlib.scores import at_random
from growlib.signals import Probe
from growlib.sparsity.chosen import chosen, warn_of_dense
from growlib.sparsity.csr import CsrLinear, to_store
from growlib.sparsity.masked import as_masked


def uniform(worths: dict[str, Tensor], total: int) -> dict[str, int]:
    """The same density for every layer.

    Args:
        worths: Of the weights of every layer, by its name; -inf where there is no connection any more.
        total: Connections to share out.

    Returns:
        The number of connections of every layer.
    """
    return _shared_out({name: worth.numel() for name, worth in worths.items()}, worths, total)


def erk(worths: dict[str, Tensor], total: int) -> dict[str, int]:
    """Erdos-Renyi-Kernel: connections in proportion to the sum of a weight's sizes, so that small layers stay denser.

    Args:
        worths: As in `uniform`.
        total: Connections to share out.

    Returns:
        The number of connections of every layer.

    Source: Evci et al., "Rigging the Lottery: Making All Tickets Winners" (2020), section 3; without kernels it is that
        of Mocanu et al. (2018).
    """
    return _shared_out({name: sum(worth.shape) for name, worth in worths.items()}, worths, total)


def ranked(worths: dict[str, Tensor], total: int) -> dict[str, int]:
    """The highest worths of all layers together.

    Args:
        worths: As in `uniform`.
        total: Connections to share out.

    Returns:
        The number of connections of every layer.
    """
    chosen = torch.cat([worth.flatten() for worth in worths.values()]).topk(total).indices
    owners = torch.arange(len(worths)).repeat_interleave(torch.tensor([worth.numel() for worth in worths.values()]))
    counts = owners[chosen.cpu()].bincount(minlength=len(worths))
    return dict(zip(worths, counts.tolist(), strict=True))


def _shared_out(sizes: dict[str, int], worths: dict[str, Tensor], total: int) -> dict[str, int]:
    """Shares in proportion to sizes, none above what a layer can keep, by largest remainders."""
    most = {name: int(worth.isfinite().sum()) for name, worth in worths.items()}
    full = set()
    while True:
        left = total - sum(most[name] for name in full)
        rest = sum(size for name, size in sizes.items() if name not in full)
        shares = {name: left * size / rest for name, size in sizes.items() if name not in full}
        if not (over := {name for name, share in shares.items() if share > most[name]}):
            break
        full |= over
    counts = {name: most[name] if name in full else math.floor(shares[name]) for name in sizes}
    roomy = sorted((name for name in shares if counts[name] < most[name]), key=lambda n: counts[n] - shares[n])
    for name in roomy[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def sparsify(
    model: nn.Module,
    density: float,
    allocation: Callable = uniform,
    layers: Iterable[str] | None = None,
    *,
    score: Callable = at_random,
    probe: Probe | None = None,
    optimizer=None,
    backend: str = "masked",
) -> nn.Module:
    """Leaves exactly round(density x weights) connections in the linear layers and 2-D convolutions of a model.

    Works in place. Norms and biases are never masked. Layers that are sparse already can only lose connections. A
    warning says which other weights were left dense, and how dense the whole model is: `layers` takes linear layers,
    convolutions of all kinds, transposed ones too, and embeddings.

    Args:
        model: Any module; its layers stay the same objects, and masked ones keep their parameters.
        density: Connections / weights, of the chosen layers together.
        allocation: `uniform`, `erk`, `ranked`, or another function of (worths, total) to counts, by layer.
        layers: Their names; None is every linear layer and 2-D convolution, and what is sparse already.
        score: Those of the highest worth stay.
        probe: What the score looks at, if it looks at anything.
        optimizer: The one in use, if there is one already: what it knows of connections that go is forgotten.
        backend: "masked" computes with weight x mask, which saves nothing. "csr" makes every linear layer a CsrLinear,
            which stores and computes its connections only, on CPU. "auto" does so where that makes the faster training
            step on this machine, see `faster` in `growlib.sparsity.csr`: on another machine a step may then round
            differently, and a long run end elsewhere. Convolutions are masked in any case, and a CSR layer stays one.

    Returns:
        The same model.

    Raises:
        ValueError: For a density outside (0, 1] or above the present one, a layer that would keep nothing, weights that
            are tied, an unknown layer or backend, "csr" where it can't be. Nothing has changed then.
    """
    picked = chosen(as_written(model), layers)
    if not 0 < density <= 1:
        raise ValueError(f"density={density} must be above 0 and at most 1: it is the share of connections that stay")
    with all_or_nothing(as_written(model), optimizer):
        masks = _masks(model, picked, density, allocation, score, probe)
        stored = {n for n, layer in picked.items() if to_store(n, layer, int(masks[n].sum()), backend, optimizer)}
        for name, layer in picked.items():
            if name in stored:
                CsrLinear.of(layer, masks[name])
            else:
                as_masked(layer).wire(masks[name], optimizer)
        renew_compiled(model)
        if layers is None:
            warn_of_dense(as_written(model), stacklevel=2)
    return model


def _masks(model: nn.Module, picked: dict, density: float, allocation, score, probe) -> dict[str, Tensor]:
    """The connections that stay of every layer."""
    worths = {name: worth_of(score, layer, probe) for name, layer in picked.items()}
    for name, layer in sparse_layers(model).items():
        if name in worths:
            worths[name] = worths[name].masked_fill(~layer.mask, -math.inf)
    size, there = sum(w.numel() for w in worths.values()), sum(int(w.isfinite().sum()) for w in worths.values())
    total = round(density * size)
    if total > there:
        raise ValueError(f"density={density} of {size:,} weights is {total:,} connections, and only {there:,} are left")
    masks = {}
    for name, count in allocation(worths, total).items():
        if count < 1:
            raise ValueError(
                f"density={density} leaves nothing of layer {name!r} ({worths[name].numel():,} weights): raise it, "
                "name the layers, or choose another allocation"
            )
        masks[name] = torch.zeros(worths[name].shape, dtype=torch.bool, device=worths[name].device)
        masks[name].view(-1)[worths[name].flatten().topk(count).indices] = True
    return masks


def worth_of(score: Callable, layer: nn.Module, probe: Probe | None) -> Tensor:
    """What a score says of a layer, of the right shape and without NaN."""
    worth = score(layer, probe).detach()
    if worth.shape != layer.weight.shape:
        raise ValueError(
            f"{score.__name__} gave a worth of shape {tuple(worth.shape)} for a {type(layer).__name__} whose weight is "
            f"{tuple(layer.weight.shape)}: a score is weight-shaped"
        )
    if worth.isnan().any():
        raise ValueError(f"{score.__name__} gave NaN for {int(worth.isnan().sum())} of {worth.numel()} weights")
    return worth


def moves(layers: dict[str, Sparse], drop: Callable, regrow: Callable, fraction: float, probe=None) -> dict:
    """Which connections to drop and which to regrow, as many as are dropped, in these layers together.

    Args:
        layers: One, or several that share their connections: each keeps its worthiest one.
        drop: A score: the lowest worths go.
        regrow: A score: the highest worths come, but none that has just been dropped.
        fraction: Of the connections to drop, if `drop` has no count of its own. Never more than there are free places.
        probe: What the scores look at.

    Returns:
        For every name the flat indices that go and those that come.
    """
    if not 0 <= fraction <= 1:
        count = sum(int(layer.mask.sum()) for layer in layers.values())
        raise ValueError(f"cannot drop {fraction:.3g} of {count:,} connections: a fraction is at least 0 and at most 1")
    there = torch.cat([layer.mask.flatten() for layer in layers.values()])
    worth = _pooled(drop, layers, probe)
    count = drop.count(worth[there]) if hasattr(drop, "count") else int(fraction * int(there.sum()))
    count = min(count, int((~there).sum()))
    sizes = [layer.mask.numel() for layer in layers.values()]
    for part, mask in zip(worth.split(sizes), there.split(sizes), strict=True) if len(layers) > 1 else ():
        part[part.masked_fill(~mask, -math.inf).argmax()] = math.inf
    count = min(count, int((there & (worth < math.inf)).sum()))
    gone = worth.masked_fill(~there, math.inf).topk(count, largest=False).indices
    come = _pooled(regrow, layers, probe).masked_fill(there, -math.inf).topk(count).indices
    found, start = {}, 0
    for name, size in zip(layers, sizes, strict=True):
        found[name] = tuple(part[(part >= start) & (part < start + size)] - start for part in (gone, come))
        start += size
    return found


def _pooled(score: Callable, layers: dict[str, Sparse], probe) -> Tensor:
    return torch.cat([worth_of(score, layer, probe).flatten() for layer in layers.values()])


def move(model: nn.Module, changes: dict, drop: Callable | None = None, optimizer=None):
    """Moves connections, and checks that their number is what it was.

    Args:
        model: With sparse layers.
        changes: What `moves` found.
        drop: The score: one that remembers something of every connection is told of the new ones.
        optimizer: In use: new connections start with an empty state.
    """
    layers = sparse_layers(model)
    before = sum(int(layers[name].mask.sum()) for name in changes)
    with all_or_nothing(as_written(model), optimizer):
        for name, (gone, come) in changes.items():
            mask = layers[name].mask.clone(memory_format=torch.contiguous_format)
            mask.view(-1)[gone], mask.view(-1)[come] = False, True
            layers[name].wire(mask, optimizer)
            if hasattr(drop, "born"):
                drop.born(layers[name], come)
        after = sum(int(layers[name].mask.sum()) for name in changes)
        if after != before:
            raise RuntimeError(f"rewiring made {after:,} connections out of {before:,}: this is a fault of growlib")


def rewire(model, drop, regrow, fraction: float, probe=None, optimizer=None, scope: str = "layer") -> dict:
    """Drops connections and regrows as many, in place.

    Args:
        model: That `sparsify` made sparse.
        drop: A score: the lowest worths go.
        regrow: A score: the highest worths come.
        fraction: Of the connections that are dropped.
        probe: What the scores look at.
        optimizer: The one in use.
        scope: "layer" keeps the number of connections of every layer, "global" that of the model.

    Returns:
        For every layer the flat indices of the connections that went and of those that came.
    """
    found = {}
    with all_or_nothing(as_written(model), optimizer):
        for pool in pools(model, scope):
            found |= moves(pool, drop, regrow, fraction, probe)
        move(model, found, drop, optimizer)
    return found


def pools(model: nn.Module, scope: str) -> list[dict[str, Sparse]]:
    """The sparse layers of a model, in groups that share their connections."""
    if not (layers := sparse_layers(model)):
        raise ValueError(f"this {type(model).__name__} has no sparse layers: call sparsify(model, density) first")
    if scope not in ("layer", "global"):
        raise ValueError(f"scope={scope!r} must be 'layer' (each keeps its number) or 'global' (the model keeps it)")
    return [layers] if scope == "global" else [{name: layer} for name, layer in layers.items()]
