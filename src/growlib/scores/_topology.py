"""The score of a link by the paths that join its ends already."""

import torch
from torch import Tensor, nn

from growlib.signals import Probe

PATHS = 10**9  # in a layer: finding more takes many seconds


def topological(layer: nn.Linear, probe: Probe | None = None) -> Tensor:
    """How well the wiring alone predicts every link (CH3-L3): many paths join its ends, and few links leave them.

    The layer is a graph of inputs and units. A path leads from the link's input by way of another unit and another
    input to the link's unit, and counts 1 / sqrt((1 + a)(1 + b)): of its two inner nodes, a and b links lead to nodes
    that are on no path between the same ends. Neither weights nor data take part. Links that no path joins, which are
    most in very sparse layers, are put in order by numbers from torch's generator, too small to matter for the others.

    Args:
        layer: A sparse linear layer.
        probe: Not used.

    Returns:
        As the weight.

    Raises:
        ValueError: For other layers, and for those with more than 10^9 paths.

    Source: Muscoloni, Michieli, Zhang, Cannistraci, "Adaptive network automata modelling of complex networks" (2022);
        for regrowth Zhang et al., "Epitopological learning and Cannistraci-Hebb network shape intelligence
        brain-inspired theory for ultra-sparse advantage in deep learning" (2024).
    """
    if not isinstance(layer, nn.Linear) or not hasattr(layer, "mask"):
        raise ValueError(
            f"topological reads the wiring of a sparse linear layer, and this is a {type(layer).__name__}: choose "
            "another score for convolutions, and call sparsify before the first move"
        )
    graph = layer.mask.to(torch.float32)  # whose sums of ones are exact
    degrees = graph.sum(1, dtype=torch.float64), graph.sum(0, dtype=torch.float64)
    paths = (degrees[0] - 1) @ graph.double() @ (degrees[1] - 1)
    if paths > PATHS:
        raise ValueError(
            f"topological would follow {paths:.2g} paths of length three through {int(graph.sum()):,} connections, and "
            f"the limit is {PATHS:.0e}: lower the density, or choose another score for this layer"
        )
    worth = _joined(graph) if len(graph) <= graph.shape[1] else _joined(graph.T).T
    return worth + torch.rand_like(worth) / (1000 * max(graph.shape))  # any path counts above 1 / max(shape)


def _joined(graph: Tensor) -> Tensor:
    """What the paths between every row and every column of an adjacency matrix add up to.

    An inner node is linked to one end of a path. The neighbours that it shares with the other end are on paths between
    the two; the link itself, if it is there, makes the first end one of them, and is no path.
    """
    by_row, by_column = graph @ graph.T, graph.T @ graph  # neighbours in common; on the diagonal the degree
    apart = by_row.diagonal() - by_row, by_column.diagonal()[:, None] - by_column
    worth = torch.empty_like(graph)
    for row, linked in enumerate(graph):
        near = linked.nonzero().flatten()  # columns that are the first inner node
        first = (apart[1][near] + linked).clamp_min(1).rsqrt()  # (near, columns)
        first[torch.arange(len(near)), near] = 0.0  # a node is no way to itself
        second = apart[0][row].clamp_min(1).rsqrt()
        second_if_linked = (apart[0][row] + 1).rsqrt()
        second_if_linked[row] = 0.0
        reached = graph[:, near].any(1).nonzero().flatten()  # rows that can be the second: far fewer than all
        onward = graph[reached]
        between = onward[:, near]
        paths = (between * second[reached, None]).T @ onward
        paths[:, near] = (between * second_if_linked[reached, None]).T @ between
        worth[row] = (first * paths).sum(0)
    return worth
