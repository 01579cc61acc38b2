"""Following units through a traced model, from the layers that make them to the layers that read them.

Every linear layer and convolution makes an Axis of units; every tensor has a Layout, which says where units lie in it.
The calls of a model move Layouts (flatten, permute, cat), join Axes (add, multiply, convolutions with groups), or do
what this module does not follow, which refuses the Axes with the reason.
"""

from dataclasses import replace
from itertools import accumulate
from math import lcm

import torch
from torch import fx, nn

from growlib.growth.layouts import Axis, Layout, permuted, reduced, reshaped
from growlib.layers import GROWN

LINEAR, CONVOLUTIONS = (nn.Linear,), (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# Calls that treat every unit alike, by the name of their function or, in lower case, of their module's class.
SCALINGS = {"identity", "dropout", "dropout1d", "dropout2d", "dropout3d", "contiguous", "clone"}
SCALINGS |= {"stochastic_depth", "stochasticdepth"}
ELEMENTWISE = SCALINGS | {"relu", "relu_", "relu6", "gelu", "silu", "mish", "elu", "selu", "celu", "sigmoid", "tanh"}
ELEMENTWISE |= {"leaky_relu", "leakyrelu", "hardswish", "hardsigmoid", "hardtanh", "logsigmoid", "softplus", "softsign"}
ELEMENTWISE |= {"alphadropout", "neg", "abs", "exp", "sqrt", "pow", "clamp", "float", "double", "to", "type"}
SUMS = {"add", "add_", "iadd", "sub", "sub_", "isub"}
PAIRS = SUMS | {"mul", "mul_", "imul", "div", "truediv", "maximum", "minimum"}
POOLINGS = {f"{kind}{size}d": size for kind in ("max_pool", "avg_pool", "maxpool", "avgpool") for size in (1, 2, 3)}
POOLINGS |= {f"adaptive_{name}": size for name, size in POOLINGS.items()}
POOLINGS |= {name.replace("_", ""): size for name, size in POOLINGS.items()}
REDUCTIONS = {"mean", "sum", "amax", "amin"}
RESHAPES = {"flatten", "reshape", "view", "squeeze", "unsqueeze", "unflatten"}
PERMUTATIONS = {"permute", "transpose"}


class Tracer(fx.Tracer):
    """Enters everything but the layers of torch and the growable ones, and answers questions about shapes.

    Args:
        example: What the model is called with: a branch that asks for its shape is taken as for the example.
    """

    def __init__(self, example: torch.Tensor):
        super().__init__()
        self.example = example

    def is_leaf_module(self, module, path):
        known = isinstance(module, (*GROWN, *GROWN.values())) or type(module).__name__ == "StochasticDepth"
        return known or super().is_leaf_module(module, path)

    def to_bool(self, proxy) -> bool:
        """The answer to a condition, unless it depends on the data."""
        run = fx.Interpreter(self.root, garbage_collect_values=False, graph=self.graph)
        run.args_iter = iter([self.example])
        with torch.no_grad():
            for node in self.graph.nodes:
                run.env[node] = run.run_node(node)
        answer = run.env[proxy.node]
        read = any(node.op == "call_method" and node.target in ("item", "tolist") for node in self.graph.nodes)
        return super().to_bool(proxy) if torch.is_tensor(answer) or read else bool(answer)


class Follower:
    """Follows the units through the calls of a graph.

    Args:
        model: The module that was traced.
    """

    def __init__(self, model: nn.Module):
        self.model, self.axes, self.reads, self.direct = model, {}, {}, set()

    def found(self) -> list[Axis]:
        """All axes, in the order of the calls that make them."""
        for axis in {axis.root for axis in self.axes.values()}:
            for module in (*axis.producers.values(), *(module for module, _ in axis.consumers.values())):
                if id(module.weight) in self.direct:
                    axis.refuse("a weight of theirs is also used by itself")
        return list(dict.fromkeys(axis.root for axis in self.axes.values()))

    def follow(self, graph: fx.Graph, values: dict):
        """Gives every node of a graph its Layout.

        Args:
            graph: The calls.
            values: What every node put out for an example: its shape is what counts.
        """
        self.values, self.layouts, self.lost = values, {}, {}
        for node in graph.nodes:
            inputs = [self.layouts[source] for source in node.all_input_nodes if self.layouts.get(source)]
            self.reason = None
            self.layouts[node] = self._layout(node, inputs)
            if self.layouts[node] is None:
                earlier = (self.lost[source] for source in node.all_input_nodes if source in self.lost)
                if reason := self.reason or next(earlier, None):
                    self.lost[node] = reason

    def _layout(self, node, inputs) -> Layout | None:
        if node.op == "output":
            return self._refuse(inputs, "they are the model's output")
        if node.op == "get_attr":
            self.direct.add(id(self.values[node]))
        if node.op in ("placeholder", "get_attr"):
            return None
        module = self.model.get_submodule(node.target) if node.op == "call_module" else None
        if type(module) in GROWN or type(module) in GROWN.values():
            return self._layer(node, module, self.layouts.get(node.args[0]))
        name = name_of(node, module)
        if name in ("getattr", "size", "dim"):
            return None
        if not inputs:
            return self._lost(node, ()) if "attention" in name else None
        return self._call(node, name, inputs) if torch.is_tensor(self.values[node]) else self._lost(node, inputs)

    def _call(self, node, name, inputs) -> Layout | None:
        if name in ("cat", "concat"):
            return self._concatenated(node)
        if name in PAIRS and len(node.args) == 2:
            return self._paired(node, name)
        tensors = [source for source in node.all_input_nodes if torch.is_tensor(self.values[source])]
        if len(tensors) > 1:
            return self._lost(node, inputs)
        layout, before, after = inputs[0], self._shape(tensors[0]), self._shape(node)
        moved = None
        if name in ELEMENTWISE:
            moved = replace(layout, linear=layout.linear and name in SCALINGS)
        elif name in POOLINGS and layout.dim < -POOLINGS[name]:
            moved = replace(layout, linear=layout.linear and "max" not in name)
        elif name in RESHAPES:
            moved = reshaped(layout, before, after)
        elif name in PERMUTATIONS:
            moved = permuted(layout, _order(node, name, len(before)))
        elif name in REDUCTIONS:
            moved = _reduced(layout, node, name, len(before), len(after))
        return moved or self._lost(node, inputs)

    # ------------------------------------------------------------------------------------------------- layers

    def _layer(self, node, module, layout) -> Layout | None:
        if isinstance(module, LINEAR):
            return self._producer(node, module, layout, dim=-1)
        if isinstance(module, CONVOLUTIONS):
            dim = 1 - module.weight.ndim
            if module.groups > 1:
                return self._grouped(node, module, layout, dim)
            return self._producer(node, module, layout, dim)
        return None if layout is None else self._norm(node, module, layout)

    def _producer(self, node, module, layout, dim) -> Layout:
        made = Layout(dim, ((self._made_by(node, module), 1),))
        if layout is not None and layout.dim != dim:
            return self._refuse([layout, made], f"{node.target!r} acts along another dimension of theirs")
        parts = layout.parts if layout else ((None, module.weight.shape[1]),)
        self._attach("consumers", node, module, parts)
        for axis, _ in parts:
            if axis is not None:
                axis.root.read_raw |= not layout.normed
        return made

    def _grouped(self, node, module, layout, dim) -> Layout:
        """A convolution with groups reads unit by unit or group by group, so what it reads and makes are one width."""
        axis = self._made_by(node, module)
        made = Layout(dim, ((axis, 1),), linear=False)
        both = [made, layout] if layout else [made]
        if layout is None:
            self._refuse(both, f"{node.target!r} reads unit by unit what cannot grow")
        elif module.in_channels != module.out_channels:
            self._refuse(both, f"the groups of {node.target!r} read and make different numbers of units")
        elif layout.dim != dim or len(layout.parts) > 1 or layout.parts[0][1] != 1:
            self._refuse(both, f"the groups of {node.target!r} read several widths side by side")
        else:
            axis.root.unit = lcm(axis.root.unit, module.out_channels // module.groups)
            axis.root.read_raw = True  # what it reads, no LayerNorm has centred for it
            layout.parts[0][0].join(axis)
        return made

    def _norm(self, node, module, layout) -> Layout | None:
        axes = [axis for axis, _ in layout.parts if axis is not None]
        if module.weight is None and getattr(module, "running_mean", None) is None:
            return self._refuse([layout], f"{node.target!r} has no tensor that could tell its width")
        if isinstance(module, nn.LayerNorm):
            if (
                not layout.linear
                or len(layout.parts) > 1
                or layout.parts[0][1] != 1
                or len(module.normalized_shape) > 1
            ):
                return self._refuse([layout], f"LayerNorm {node.target!r} is exact only right behind linear layers")
            self._attach("norms", node, module, layout.parts)
            return replace(layout, linear=False, normed=True)
        if layout.dim != 1 - self.values[node].ndim:
            return self._lost(node, [layout])
        if isinstance(module, nn.GroupNorm):
            group = module.num_channels // module.num_groups
            sizes = [(len(axis.first.weight) if axis else 1) * spread for axis, spread in layout.parts]
            if any(start % group for start in accumulate(sizes)) or any(s != 1 for axis, s in layout.parts if axis):
                return self._refuse([layout], f"the groups of {node.target!r} mix several widths")
            for axis in axes:
                axis.root.unit = lcm(axis.root.unit, group)
        self._attach("norms", node, module, layout.parts)
        return replace(layout, linear=False)

    def _made_by(self, node, module) -> Axis:
        axis = self.axes.setdefault(id(module.weight), Axis(len(self.axes))).root
        axis.producers[node.target] = module
        return axis

    def _attach(self, role: str, node, module, parts: tuple):
        """Notes who reads units. A tensor that is used twice, or tied, reads the same widths each time."""
        tensor = module.running_mean if module.weight is None else module.weight
        earlier = self.reads.setdefault(id(tensor), parts)
        same = [(axis is None, size) for axis, size in earlier] == [(axis is None, size) for axis, size in parts]
        for axis, _ in parts if same else (*parts, *earlier):
            if axis is not None:
                getattr(axis.root, role)[node.target] = module, parts
                if not same:
                    axis.refuse(f"{node.target!r} reads different things at different times")
        for (mine, _), (theirs, _) in zip(earlier, parts, strict=False):
            if same and mine is not None:
                mine.join(theirs)

    # --------------------------------------------------------------------------------------- several tensors

    def _concatenated(self, node) -> Layout | None:
        tensors = node.args[0]
        layouts = [self.layouts.get(tensor) for tensor in tensors]
        known = [layout for layout in layouts if layout]
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        dim -= self.values[node].ndim if dim >= 0 else 0
        if any(layout.dim != dim for layout in known):
            return self._refuse(known, f"{node.name!r} puts them beside other examples or positions")
        parts = [
            layout.parts if layout else ((None, self._shape(tensor)[dim]),)
            for tensor, layout in zip(tensors, layouts, strict=True)
        ]
        linear = all(layout and layout.linear for layout in layouts)
        return Layout(dim, sum(parts, ()), linear)

    def _paired(self, node, name: str) -> Layout | None:
        """Adding or multiplying: units that meet have one width."""
        first, second = (self.layouts.get(arg) if isinstance(arg, fx.Node) else None for arg in node.args)
        if first is None or second is None:
            layout, other = (first, node.args[1]) if first else (second, node.args[0])
            value = self.values[other] if isinstance(other, fx.Node) else other
            if torch.is_tensor(value) and value.ndim >= -layout.dim and value.shape[layout.dim] > 1:
                if other in self.lost:
                    return self._refuse([layout], self.lost[other])
                return self._refuse([layout], f"they meet {str(other.target)!r}, which no layer makes")
            return replace(layout, linear=layout.linear and not name.endswith("imum"))
        if first.dim != second.dim:
            return self._refuse([first, second], f"{node.name!r} joins them along another dimension")
        sizes = [self._shape(arg)[first.dim] for arg in node.args]
        if sizes[0] != sizes[1]:
            lone, other = (first, second) if sizes[0] == 1 else (second, first)
            lone.refuse("it is one number that all units of another layer share")
            return replace(other, linear=False)
        if [spread for _, spread in first.parts] != [spread for _, spread in second.parts]:
            return self._refuse([first, second], f"{node.name!r} joins them in another order")
        for (mine, _), (theirs, _) in zip(first.parts, second.parts, strict=True):
            if mine is None or theirs is None:
                return self._refuse([first, second], f"{node.name!r} joins them with something that cannot grow")
            mine.join(theirs)
        linear = name in SUMS and first.linear and second.linear
        return replace(first, linear=linear, normed=first.normed and second.normed)

    # -------------------------------------------------------------------------------------------------------

    def _lost(self, node, inputs) -> None:
        module = self.model.get_submodule(node.target) if node.op == "call_module" else None
        name = name_of(node, module)
        if "attention" in name:
            return self._refuse(inputs, f"they are shared out among the heads of {node.name!r}")
        return self._refuse(inputs, f"they go through {name!r}, which is not followed")

    def _refuse(self, layouts, reason: str) -> None:
        self.reason = reason
        for layout in layouts:
            layout.refuse(reason)

    def _shape(self, node) -> tuple:
        return tuple(getattr(self.values[node], "shape", ()))


def name_of(node: fx.Node, module: nn.Module | None) -> str:
    """What a node calls: the name of a function or method, or of a module's class in lower case."""
    if module is not None:
        return type(module).__name__.lower()
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return name.strip("_")


def _order(node: fx.Node, name: str, ndim: int) -> list[int]:
    """The order of dimensions that a permute or a transpose makes."""
    dims = node.args[1:] or tuple(node.kwargs.values())
    if name == "permute":
        return list(dims[0]) if isinstance(dims[0], (list, tuple)) else list(dims)
    order = list(range(ndim))
    order[dims[0]], order[dims[1]] = order[dims[1]], order[dims[0]]
    return order


def _reduced(layout: Layout, node: fx.Node, name: str, before: int, after: int) -> Layout | None:
    dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", range(before))
    dims = dims if isinstance(dims, (list, tuple, range)) else [dims]
    return reduced(layout, list(dims), before, kept=before == after, linear=name in ("mean", "sum"))
