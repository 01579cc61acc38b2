"""How new units start: one function each.

An init is called as `init(hidden, by, probe)` and returns three lists:

    incoming    for every producer, the new units' weights             (by, fan-in, ...)
    bias        for every producer, the new units' biases or None      (by,)
    outgoing    for every consumer, the weights that read the units    (outputs, by x spread, ...), or those that read
                old and new ones, (outputs, (width + by) x spread, ...), when the old ones change too

Some look at a batch of data, the probe; what they cannot do they refuse with a ValueError, before anything changes.
`init.preserves` tells whether the network computes the same function afterwards. An init that copies units has
`init.sources(hidden, by)`, the units that the new ones copy, so that the norms copy their statistics as well.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from growlib.layers import Hidden
from growlib.signals import Probe
from growlib.signals._patches import growth_matrix, patches


def zero_out(hidden: Hidden, by: int, probe=None):
    """Random incoming weights as in a new layer, outgoing weights of zero: nothing changes until they learn.

    Source: Evci et al., "GradMax: Growing Neural Networks using Gradient Information" (2022), section 3, its baseline.
    """
    incoming = [_uniform(rows) for rows in _rows(hidden, by)]
    return incoming, _zero_biases(hidden, by), [columns.zero_() for columns in _columns(hidden, by)]


def random(hidden: Hidden, by: int, probe=None):
    """Random incoming and outgoing weights, as if the layer had been that wide from the start: the function changes.

    Source: He et al., "Delving Deep into Rectifiers" (2015); the bounds are those of a new torch layer.
    """
    incoming = [_uniform(rows) for rows in _rows(hidden, by)]
    outgoing = []
    for consumer, columns in zip(hidden.consumers, _columns(hidden, by), strict=True):
        fan_in = consumer.weight[0].numel() + columns[0].numel()
        outgoing.append(columns.uniform_(-(fan_in**-0.5), fan_in**-0.5))
    return incoming, _zero_biases(hidden, by), outgoing


def orthogonal(hidden: Hidden, by: int, probe=None):
    """Incoming weights orthogonal to those of the old units, while there is room; outgoing weights of zero.

    Source: Maile et al., "When, where, and how to add new neurons to ANNs" (2022), its initialization by weights
        (`north` is the one by activations).
    """
    incoming = [_complement(p.weight.flatten(1), by).view_as(rows) for p, rows in _pairs(hidden, by)]
    return incoming, _zero_biases(hidden, by), [columns.zero_() for columns in _columns(hidden, by)]


def split(hidden: Hidden, by: int, probe=None):
    """Copies of the units with the largest outgoing weights; original and copies divide those weights unevenly.

    Each outgoing weight is divided at its own random point: were the shares equal, the twins would get equal
    gradients and stay equal for ever; were they the same for all outgoing weights, Adam would still move them alike.

    Source: Chen, Goodfellow, Shlens, "Net2Net: Accelerating Learning via Knowledge Transfer" (2016), section 2.2.
    """
    sources = _most_read(hidden, by)
    incoming = [producer.weight[sources].clone() for producer in hidden.producers]
    bias = [None if producer.bias is None else producer.bias[sources].clone() for producer in hidden.producers]
    return incoming, bias, [_divide(hidden, consumer, sources) for consumer in hidden.consumers]


def mean_row(hidden: Hidden, by: int, probe=None):
    """Units that repeat the mean of the old ones: a LayerNorm over them does not notice, and puts zero in their place,
    so that the weights that read them may be random.

    `widen` uses it behind a LayerNorm instead of any other init that keeps the function.
    """
    incoming = [p.weight.mean(0, keepdim=True).repeat_interleave(by, 0) for p in hidden.producers]
    bias = [None if p.bias is None else p.bias.mean().repeat(by) for p in hidden.producers]
    return incoming, bias, random(hidden, by)[2]


def zero_row(hidden: Hidden, by: int, probe=None):
    """Units that are zero: what divides by the root of the mean square (RMSNorm) does not notice more of them, once
    its scale makes up for their number, so that the weights that read them may be random.

    `widen` uses it behind such a norm instead of any other init that keeps the function.
    """
    incoming = [rows.zero_() for rows in _rows(hidden, by)]
    return incoming, _zero_biases(hidden, by), random(hidden, by)[2]


def north(hidden: Hidden, by: int, probe: Probe | None = None):
    """Incoming weights whose outputs on a batch are orthogonal to those of the old units and to one another, while
    there is room; outgoing weights of zero.

    Every producer is treated by itself. The outputs are those before a norm; biases take part.

    Source: Maile et al., "When, where, and how to add new neurons to ANNs" (2022), orthogonal pre-activations.
    """
    batch, incoming, biases = _needed(probe, "north"), [], _zero_biases(hidden, by)
    for position, (producer, rows) in enumerate(_pairs(hidden, by)):
        if getattr(producer, "groups", 1) == 1:
            fresh = _unlike(producer, batch.inputs_of(producer), by)  # (by, fan-in), and the bias last
            if producer.bias is not None:
                biases[position] = fresh[:, -1].to(rows)
            incoming.append(fresh[:, : rows[0].numel()].to(rows).view_as(rows))
        else:  # reads new units only
            incoming.append(_uniform(rows))
    return incoming, biases, [columns.zero_() for columns in _columns(hidden, by)]


def gradmax(hidden: Hidden, by: int, probe: Probe | None = None):
    """Incoming weights of zero, and the outgoing weights that give them the largest gradient on a batch.

    The gradient of the incoming weights is (outgoing weights) x (growth matrix), and so largest along the left singular
    vectors of that matrix. Their length is that of the old units' outgoing weights. Where there are more new units
    than singular vectors, the rest gets random directions. Biases are positive and too small to move an output:
    at zero itself, ReLU passes no gradient on.

    Source: Evci et al., "GradMax: Growing Neural Networks using Gradient Information" (2022), section 3.
    """
    matrices = [growth_matrix(hidden, consumer, _needed(probe, "gradmax")) for consumer in hidden.consumers]
    directions = torch.linalg.svd(torch.cat(matrices).double(), full_matrices=False).U.T[:by]
    rest = torch.randn(by - len(directions), directions.shape[1]).to(directions)
    directions = torch.cat([directions, normalize(rest, dim=1)])  # (by, weights that read a unit)
    directions *= torch.cat([hidden.read(consumer) for consumer in hidden.consumers], 1).norm(dim=1).mean()
    parts = zip(hidden.consumers, directions.split([len(matrix) for matrix in matrices], 1), strict=True)
    outgoing = [
        _as_columns(part.to(consumer.weight), consumer, by * hidden.spread(consumer)) for consumer, part in parts
    ]
    tiny = torch.finfo(hidden.producers[0].weight.dtype).tiny ** 0.5
    return [rows.zero_() for rows in _rows(hidden, by)], [b.fill_(tiny) for b in _zero_biases(hidden, by)], outgoing


def variance_transfer(hidden: Hidden, by: int, probe=None):
    """Pairs of equal units that are read with opposite signs, and old outgoing weights that shrink, so that the layer
    that reads all of them keeps the variance of a layer of this width.

    New weights have a variance of one over the fan-in; old outgoing weights are multiplied by sqrt(width / new width).
    That changes the function, unless a normalisation follows; its running statistics take some steps to follow. (The
    paper shrinks the last layer of a network by the ratio itself.)

    Source: Yuan, Savarese, Maire, "Accelerated Training via Incrementally Growing Neural Networks using Variance
        Transfer and Learning Rate Adaptation" (2023), section 3.1 and table 1, hidden layers.
    """
    if by % 2:
        raise ValueError(f"variance_transfer adds pairs of units, and cannot add {by} to layer {hidden.name!r}")
    halves = [rows[: by // 2].normal_(0, rows[0].numel() ** -0.5) for rows in _rows(hidden, by)]
    outgoing = []
    for consumer, columns in zip(hidden.consumers, _columns(hidden, by), strict=True):
        inputs = (hidden.width + by) * hidden.spread(consumer)
        old = hidden.read(consumer) * (hidden.width / (hidden.width + by)) ** 0.5
        fresh = old.new_empty(by // 2, old.shape[1])
        fresh.normal_(0, (consumer.weight[0].numel() + columns[0].numel()) ** -0.5)
        outgoing.append(_as_columns(torch.cat([old, fresh, -fresh]), consumer, inputs))
    return [torch.cat([half, half]) for half in halves], _zero_biases(hidden, by), outgoing


def _needed(probe: Probe | None, name: str) -> Probe:
    if probe is None:
        raise ValueError(
            f"{name} looks at a batch of data: widen(..., init={name}, probe=Probe(model, inputs, labels)). "
            "In a run, Widen passes it"
        )
    return probe


def _as_columns(by_unit: Tensor, consumer, inputs: int) -> Tensor:
    """What `Hidden.read` gathered by unit, as columns of the consumer again."""
    weight = consumer.weight
    return by_unit.reshape(inputs, weight.shape[0], *weight.shape[2:]).transpose(0, 1).contiguous()


def _unlike(producer, inputs: Tensor, by: int) -> Tensor:
    """Weights (by, fan-in + bias) of outputs that are orthogonal to the old ones and positive in the mean.

    They are as long as the old weights.
    """
    own = producer.weight.flatten(1).double()  # (width, fan-in)
    length, fan_in = own.norm(dim=1).mean(), own.shape[1]
    if producer.bias is not None:
        own = torch.cat([own, producer.bias[:, None].double()], 1)
    gram, total = own.new_zeros(own.shape[1], own.shape[1]), 0
    for part in inputs.split(32):  # patches of a whole batch would need much memory
        read = patches(producer, part).flatten(0, 1).double()
        if producer.bias is not None:
            read = torch.cat([read, read.new_ones(len(read), 1)], 1)
        gram += read.T @ read
        total = total + read.sum(0)
    values, axes = torch.linalg.eigh(gram)
    seen = values > 1e-10 * values[-1]  # what the batch shows; in 32 bits, less is rounding
    values, axes = values[seen].sqrt(), axes[:, seen]
    fresh = _complement(own @ (axes * values), by) @ (axes / values).T
    sign = torch.where(fresh @ total < 0, -1.0, 1.0)  # else a ReLU might never open
    return fresh * (sign * length / fresh[:, :fan_in].norm(dim=1))[:, None]


def _most_read(hidden: Hidden, by: int) -> Tensor:
    """The units to copy, group by group, those with the largest outgoing weights first, and again from the first."""
    worth = sum(hidden.read(consumer).norm(dim=1) for consumer in hidden.consumers)  # (width,)
    order = worth.view(-1, hidden.unit).sum(1).argsort(descending=True, stable=True)
    groups = order[torch.arange(by // hidden.unit, device=order.device) % len(order)]
    return (groups[:, None] * hidden.unit + torch.arange(hidden.unit, device=order.device)).flatten()


def _divide(hidden: Hidden, consumer, sources: Tensor) -> Tensor:
    """All columns of a consumer after the split: the shares of a unit and its copies add up to its old weights."""
    columns, weight = hidden.read(consumer), consumer.weight  # (width, outputs x spread ...)
    everyone = torch.cat([torch.arange(hidden.width, device=sources.device), sources])  # (width + by,)
    shares = torch.rand(len(everyone), columns.shape[1], dtype=weight.dtype, device=weight.device) + 0.5
    totals = torch.zeros_like(columns).index_add_(0, everyone, shares)
    divided = columns[everyone] * (shares / totals[everyone])
    return _as_columns(divided, consumer, hidden.spread(consumer) * len(everyone))


def _complement(weight: Tensor, by: int) -> Tensor:
    """Directions (by, fan-in) orthogonal to the rows of `weight` while there are any, and as long as those rows."""
    width, fan_in = weight.shape
    both = torch.cat([weight, torch.randn(by, fan_in).to(weight)]).double()
    fresh = torch.linalg.qr(both.T)[0].T[width:]  # (what room there is, fan-in)
    if len(fresh) < by:
        rest = torch.empty(by - len(fresh), fan_in, dtype=both.dtype, device=both.device)
        fresh = torch.cat([fresh, torch.nn.init.orthogonal_(rest)])
    return fresh.to(weight) * weight.norm(dim=1).mean()


def _pairs(hidden: Hidden, by: int):
    return zip(hidden.producers, _rows(hidden, by), strict=True)


def _rows(hidden: Hidden, by: int) -> list[Tensor]:
    """Room for the new units' incoming weights."""
    return [producer.weight.new_empty(by, *producer.weight.shape[1:]) for producer in hidden.producers]


def _columns(hidden: Hidden, by: int) -> list[Tensor]:
    """Room for the weights that read the new units."""
    weights = [(consumer.weight, by * hidden.spread(consumer)) for consumer in hidden.consumers]
    return [weight.new_empty(weight.shape[0], inputs, *weight.shape[2:]) for weight, inputs in weights]


def _zero_biases(hidden: Hidden, by: int) -> list[Tensor | None]:
    return [None if producer.bias is None else producer.bias.new_zeros(by) for producer in hidden.producers]


def _uniform(rows: Tensor) -> Tensor:
    bound = rows[0].numel() ** -0.5
    return rows.uniform_(-bound, bound)


for _init in (zero_out, orthogonal, split, mean_row, zero_row, north, gradmax):
    _init.preserves = True
random.preserves = variance_transfer.preserves = False
split.sources = _most_read
