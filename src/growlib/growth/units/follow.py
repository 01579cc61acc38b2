"""Following sizes through the calls of a model: what they make equal, take apart, and put together."""

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import fx

from growlib.growth.units.exported import View, module_of, place_of
from growlib.growth.units.sizes import INPUT, Size, equal, fixed

RULES = {}  # by the name of the ATen call


def rule(*names: str):
    """Enters a function into the table, under the names of the calls that it is about."""

    def enter(function):
        RULES.update(dict.fromkeys(names, function))
        return function

    return enter


@dataclass(frozen=True)
class Origin:
    """A tensor of the model that a value is a rearrangement of.

    Args:
        key: Which tensor.
        axes: For every dimension of the value, the axis of the tensor that it is, or None.
    """

    key: int
    axes: tuple


class Follower:
    """Follows sizes through graphs that share tensors."""

    def __init__(self):
        self.axes = {}  # by the id of a tensor: the Size of every axis
        self.tensors = {}  # by id
        self.roles = defaultdict(set)  # by id and axis: producer, consumer, bias, norm, add, scale
        self.marks = []  # (Size, mark, path of the module): centred, averaged, summed, contracted with one another

    def follow(self, view: View) -> dict:
        """The sizes of every value of a graph, by node: a list for a tensor, a list of lists for several."""
        self.view, self.sizes, self.origins, self.data = view, {}, {}, set()
        for node in view.graph.nodes:
            self.sizes[node] = self._sizes(node)
        return self.sizes

    def _sizes(self, node: fx.Node):
        if node.op == "placeholder":
            return self._input(node)
        if node.op == "output":
            for source in node.all_input_nodes:
                self.fix(self.sizes[source], "they are the model's output")
            return None
        if node.op != "call_function":
            return None
        if any(source in self.data for source in node.all_input_nodes):
            self.data.add(node)
        call = Call(self, node)
        if call.name == "getitem":
            found = self.sizes[node.args[0]]
            return found[node.args[1]] if isinstance(found, list) and node.args[1] < len(found) else call.unknown()
        found = RULES["pointwise"] if treats_alike(call.name, node) else RULES.get(call.name)
        sizes = call.unknown() if found is None else found(call)
        return call.checked(sizes)

    def _input(self, node):
        tensor = self.view.tensors.get(node.name)
        if tensor is None:
            self.data.add(node)
            return new_like(node, INPUT)
        if node.name not in self.view.names:
            return [fixed(size, "they meet a constant") for size in tensor.shape]
        key = id(tensor)
        self.tensors[key] = tensor
        self.origins[node] = (Origin(key, tuple(range(tensor.ndim))),)
        return self.axes.setdefault(key, [Size(size) for size in tensor.shape])

    def fix(self, sizes, reason: str):
        """Keeps all sizes of a value, or of several, from changing."""
        for size in sizes or ():
            if isinstance(size, Size):
                size.fix(reason)
            else:
                self.fix(size, reason)


def new_like(node: fx.Node, reason: str):
    """Sizes for what a call puts out that nothing is known of."""
    value = node.meta.get("val")
    if isinstance(value, (tuple, list)):
        return [_fixed_shape(part, reason) for part in value]
    return _fixed_shape(value, reason)


def _fixed_shape(value, reason: str):
    return [fixed(int(size), reason) for size in value.shape] if torch.is_tensor(value) else None


def treats_alike(name: str, node: fx.Node) -> bool:
    """Whether a call treats every entry alike: torch says so of most that do, and the table of the others."""
    if name in RULES:
        return RULES[name] is RULES["pointwise"]
    return torch.Tag.pointwise in getattr(node.target, "tags", ())


class Call:
    """One call of a graph, with its arguments by name.

    Args:
        follower: What knows the sizes of its inputs.
        node: The call.
    """

    def __init__(self, follower: Follower, node: fx.Node):
        self.follower, self.node = follower, node
        schema = getattr(node.target, "_schema", None)
        self.name = schema.name.partition("::")[2] if schema else getattr(node.target, "__name__", str(node.target))
        self.args = {}
        for place, argument in enumerate(schema.arguments if schema else ()):
            default = argument.default_value if argument.has_default_value() else None
            given = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name, default)
            self.args[argument.name] = given
        self.first = next(iter(self.args.values()), None)
        self.reason = f"they go through {place_of(node)}, which takes them apart"

    def __getitem__(self, name: str):
        return self.args.get(name)

    def sizes(self, value) -> list[Size] | None:
        """The sizes of an input, None for what is no tensor."""
        return self.follower.sizes.get(value) if isinstance(value, fx.Node) else None

    def tensors(self) -> list[fx.Node]:
        """The inputs that are tensors."""
        return [node for node in self.node.all_input_nodes if isinstance(self.sizes(node), list)]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the output."""
        return tuple(int(size) for size in self.node.meta["val"].shape)

    def equal(self, first: Size, second: Size):
        """Makes two sizes one."""
        equal(first, second, f"{place_of(self.node)} joins them in another order")

    def new(self, size: int) -> Size:
        """A size of the output that no input has, and that can't change: positions, kernels."""
        return fixed(size, "")

    def fix(self, sizes: list[Size], reason: str | None = None):
        """Keeps sizes from changing, by default because the call mixes them."""
        self.follower.fix(sizes, reason or f"they go through {place_of(self.node)}, which mixes them")

    def mark(self, size: Size, mark: str):
        """Notes what the call does with units, for those who make new ones."""
        self.follower.marks.append((size, mark, module_of(self.node)))

    def is_data(self, value) -> bool:
        """Whether a value depends on the model's inputs."""
        return value in self.follower.data

    def role(self, value, dim: int, role: str):
        """Notes what a tensor of the model does with the units along a dimension of its value here."""
        for origin in self.follower.origins.get(value, ()) if isinstance(value, fx.Node) else ():
            axis = origin.axes[dim] if origin.axes else None
            if axis is not None:
                self.follower.roles[origin.key, axis].add(role)
                continue
            leaves = {leaf.root for leaf in self.sizes(value)[dim].leaves()}
            for number, size in enumerate(self.follower.axes[origin.key]):
                if leaves.intersection(leaf.root for leaf in size.leaves()):
                    self.follower.roles[origin.key, number].add(role)

    def keep_origin(self, value, dims: list | None):
        """Notes that the output is a rearrangement of an input: its dimension n is the input's `dims[n]`, if any."""
        found = [
            Origin(o.key, tuple(o.axes[dim] if dim is not None and o.axes else None for dim in dims) if dims else ())
            for o in self.follower.origins.get(value, ())
        ]
        self.follower.origins[self.node] = (*self.follower.origins.get(self.node, ()), *found)

    def unknown(self):
        """Refuses everything that a call without a rule touches."""
        for source in self.tensors():
            self.fix(self.sizes(source), f"they go through {place_of(self.node)}, which is not followed")
        return new_like(self.node, f"they go through {place_of(self.node)}, which is not followed")

    def checked(self, sizes):
        """The sizes that a rule gave, if they are those of the value; a rule that is wrong refuses."""
        value = self.node.meta.get("val")
        if torch.is_tensor(value) and [size.size for size in sizes or ()] != [int(size) for size in value.shape]:
            return self.unknown()
        return sizes
