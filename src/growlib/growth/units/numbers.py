"""The second half of the proof: both graphs computed side by side, and compared call by call."""

import zlib
from collections import Counter

import torch
from torch import Tensor, fx

from growlib.growth.tensors import write_at
from growlib.growth.units.exported import View, place_of
from growlib.growth.units.follow import Call, Follower, treats_alike
from growlib.growth.units.frozen import frozen
from growlib.growth.units.proof import Problem, at_old_places, leaves_at
from growlib.layers.hidden import Entry, Hidden
from growlib.layers.layouts import kept, labels, size_of

MADE = {"producer", "bias", "add"}
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}  # relative to the largest value of the call
NEAR = 1e-5  # where an eps is added to a mean over more units, which growth does not change
DRAWN = {
    "empty",
    "new_empty",
    "empty_like",
    "rand",
    "randn",
    "bernoulli",
    "bernoulli_",
    "rand_like",
    "randn_like",
    "uniform_",
    "normal_",
    "randperm",
}
DROPPED = {"dropout", "dropout_", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"}


class Side:
    """A model as it was and as it is with more units, computed side by side.

    Args:
        follower: What knows the sizes of the old graph.
        names: Of the widths.
        hidden: The widths.
        sizes: Of the widths when grown.
        dtype: In which to compute.
    """

    def __init__(self, follower: Follower, names: dict, hidden: list[Hidden], sizes: dict[str, int], dtype):
        self.follower, self.names, self.after, self.dtype = follower, names, sizes, dtype
        self.before = hidden[0].table.sizes
        self.entries = {}
        for own in hidden:
            for entry in own.entries:
                self.entries.setdefault(id(entry.tensor), []).append((own, entry))
        self.styles, self.tinted = {own.own: own.style for own in hidden}, set()
        self.layouts = {key: [frozen(size, names) for size in axes] for key, axes in follower.axes.items()}

    @torch.no_grad()
    def compare(self, view: View, grown: View) -> list[Problem]:
        """The calls whose old entries moved."""
        pairs = list(zip(view.graph.nodes, grown.graph.nodes, strict=True))
        left = Counter(source for old, _ in pairs for source in old.all_input_nodes)
        self.view, self.old, self.new, problems = view, {}, {}, []
        self.written = {id(tensor) for tensor in map(view.tensors.get, _written(view)) if tensor is not None}
        for old, new in pairs:
            if old.op == "call_function":
                self._compute(old, new)
                problems += self._difference(old, new)
            for source in old.all_input_nodes:
                left[source] -= 1
                if not left[source]:
                    self.old.pop(source, None)
                    self.new.pop(source, None)
        return problems

    def _compute(self, old: fx.Node, new: fx.Node):
        name = Call(self.follower, old).name
        if name in DROPPED:
            self.old[old], self.new[old] = self._pair(old.args[0])
            return
        pairs = fx.node.map_aggregate((old.args, old.kwargs), lambda value: self._pair(value)[0])
        self.old[old] = self._called(old, *pairs)
        by_name = dict(zip(new.all_input_nodes, old.all_input_nodes, strict=True))
        args = fx.node.map_aggregate(
            (new.args, new.kwargs), lambda v: self._pair(by_name[v])[1] if isinstance(v, fx.Node) else v
        )
        if name in DRAWN:
            self.new[old] = self._drawn(old, new)
        else:
            self.new[old] = self._called(new, *args)

    def _called(self, node: fx.Node, args, kwargs):
        if Call(self.follower, node).name == "scaled_dot_product_attention":
            args, kwargs = (*args[:4], *(0.0 for _ in args[4:5]), *args[5:]), {**kwargs, "dropout_p": 0.0}
            kwargs = {key: value for key, value in kwargs.items() if key != "dropout_p" or len(args) < 5}
        if node.kwargs.get("dtype") in (torch.float32, torch.float64):
            kwargs = {**kwargs, "dtype": self.dtype}
        return node.target(*args, **kwargs)

    def _drawn(self, old: fx.Node, new: fx.Node) -> Tensor:
        """What was drawn for the old model stands for the new one too."""
        value = torch.zeros([int(n) for n in new.meta["val"].shape], dtype=self.old[old].dtype)
        write_at(value, self.old[old], self._kept(old))
        return value

    def _kept(self, node: fx.Node) -> list[Tensor]:
        layouts = [frozen(size, self.names) for size in self.follower.sizes[node]]
        return [kept(layout, self.before, self.after) for layout in layouts]

    def _pair(self, value) -> tuple:
        """A value of the old and of the new graph, for a node of the old one."""
        if not isinstance(value, fx.Node):
            return value, value
        if value in self.old:
            return self.old[value], self.new[value]
        if value.op == "placeholder" and value.name in self.view.tensors:
            tensor = self.view.tensors[value.name]
            if value.name not in self.view.names:
                return (self._cast(tensor),) * 2
            return self._grown(tensor)
        if value.op == "placeholder":
            given = self.view.inputs.get(value.name)
            return (self._cast(given),) * 2 if torch.is_tensor(given) else (given, given)
        raise NotImplementedError(f"{value.op} {value.target}")

    def _cast(self, tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        return tensor.to(self.dtype, copy=True) if tensor.is_floating_point() else tensor.clone()

    # -------------------------------------------------------------------------------------------- the model's tensors

    def _grown(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        old, generator = self._shaken(tensor)
        entries = self.entries.get(id(tensor))
        if not entries:
            return old, old.clone() if id(tensor) in self.written else old
        scaled = old
        for hidden, entry in entries:
            if entry.role == "norm" and hidden.style in ("centred", "averaged"):
                scaled = scaled * (self.before[hidden.own] / self.after[hidden.own]) ** 0.5
        new = self._lengthened(scaled, self.layouts[id(tensor)], generator)
        if any(entry.role == "variance" for _, entry in entries):
            new = new.abs() + 0.5
            write_at(new, scaled, [kept(layout, self.before, self.after) for layout in self.layouts[id(tensor)]])
        for hidden, entry in sorted(entries, key=lambda pair: pair[1].role == "consumer"):
            self._start(new, hidden, entry)
        return old, new

    def _lengthened(self, value: Tensor, layouts: list, generator) -> Tensor:
        """A tensor with room for new units, which are random; one axis after the other, so as not to hold many."""
        scale, fresh = value.std() if value.numel() > 1 else 1.0, {}
        for axis, layout in enumerate(layouts):
            places = kept(layout, self.before, self.after)
            origin = torch.full((size_of(layout, self.after),), -1).index_copy_(0, places, torch.arange(len(places)))
            if len(places) != len(origin):
                origin = origin.to(value.device)
                value, fresh[axis] = value.index_select(axis, origin.clamp_min(0)), (origin < 0).nonzero().flatten()
        for axis, where in fresh.items():
            shape = [len(where) if dim == axis else size for dim, size in enumerate(value.shape)]
            drawn = torch.randn(shape, generator=generator, dtype=value.dtype).to(value.device)
            value.index_copy_(axis, where, drawn * scale)
        return value

    def _start(self, new: Tensor, hidden: Hidden, entry: Entry):
        """New units start in the way that keeps the function."""
        told = labels(entry.layout, hidden.own, self.after).to(new.device)
        fresh = (told >= self.before[hidden.own]).nonzero().flatten()
        if entry.role == "consumer" and hidden.style != "plain" and "raw" not in entry.also:
            return  # what reads them behind a norm finds zeros, and may be random
        if entry.role == "shift" and hidden.style != "plain":
            new.index_fill_(entry.axis, fresh, 0.0)
        if entry.role == "consumer" or (hidden.style in ("averaged", "summed") and entry.role in MADE):
            new.index_fill_(entry.axis, fresh, 0.0)
        elif hidden.style == "centred" and entry.role in MADE:
            rest = ((told >= 0) & (told < self.before[hidden.own])).nonzero().flatten()
            mean = new.index_select(entry.axis, rest).mean(entry.axis, keepdim=True)
            new.index_copy_(entry.axis, fresh, mean.repeat_interleave(len(fresh), entry.axis))

    def _shaken(self, tensor: Tensor) -> tuple[Tensor, torch.Generator]:
        """A tensor's values, random where they are a scale, a bias or a statistic, or zero."""
        generator = torch.Generator().manual_seed(zlib.crc32(repr(tuple(tensor.shape)).encode()) + self._number(tensor))
        value = tensor.detach().to(self.dtype) if tensor.is_floating_point() else tensor.detach()
        value = value.clone() if id(tensor) in self.written else value
        roles = {role for axis in range(tensor.ndim) for role in self.follower.roles.get((id(tensor), axis), ())}
        vector = tensor.numel() == max(tensor.shape, default=1)
        if not value.is_floating_point():
            return value, generator
        if roles & {"norm", "variance", "scale", "slope"} and vector:
            drawn = torch.rand(value.shape, generator=generator, dtype=value.dtype) + 0.5
        elif vector or not value.any():
            drawn = torch.randn(value.shape, generator=generator, dtype=value.dtype) * 0.2
        else:
            return value, generator
        return drawn.to(value.device), generator

    def _number(self, tensor: Tensor) -> int:
        return list(self.follower.axes).index(id(tensor))

    # ------------------------------------------------------------------------------------------------- the comparison

    def _read_raw(self, node: fx.Node) -> bool:
        """Whether a weight reads units before a norm, though others do so behind it: it must start with zeros."""
        tensors = [self.view.tensors.get(source.name) for source in node.all_input_nodes]
        entries = [pair for tensor in tensors for pair in self.entries.get(id(tensor), ())]
        found = [e for own, e in entries if e.role == "consumer" and own.style != "plain" and "raw" not in e.also]
        for entry in found:
            entry.also += ("raw",)
        return bool(found)

    def _is_mean(self, node: fx.Node) -> bool:
        """A mean square over more units is smaller, until the scale of the norm makes up for it."""
        call = Call(self.follower, node)
        free = [leaf for size in call.sizes(call.first) or () if call.name == "mean" for leaf in size.free()]
        return any(self.styles.get(self.names[leaf][0]) == "averaged" for leaf in free)

    def _difference(self, old: fx.Node, new: fx.Node) -> list[Problem]:
        sizes, before, after = self.follower.sizes.get(old), self.old[old], self.new[old]
        if torch.is_tensor(before) and sizes is not None:
            layouts = [frozen(size, self.names) for size in sizes]
            seen = at_old_places(after, layouts, self.before, self.after)
            tinted = bool(self.tinted.intersection(old.all_input_nodes))
            tolerance = max(TOLERANCE[self.dtype], NEAR) if tinted else TOLERANCE[self.dtype]
            same = seen.shape == before.shape and _same(seen, before, tolerance)
            if not same and (self._is_mean(old) or (tinted and treats_alike(Call(self.follower, old).name, old))):
                self.tinted.add(old)
                return []
            if after.is_floating_point() and not torch.equal(seen, before) and 0 not in after.stride():
                write_at(after, before, self._kept(old))  # in place, as others may look at the same memory
            if same:
                return []
            if self._read_raw(old):
                self._compute(old, new)
                return self._difference(old, new)
            found = tuple(leaves_at(self.follower, old))
            return [Problem(found, f"new units move what {place_of(old)} puts out")]
        return []


def _written(view: View) -> set[str]:
    """The inputs of a graph that some call writes to, or to a part of them."""
    found = set()
    for node in view.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        for place, argument in enumerate(schema.arguments if schema else ()):
            source = node.args[place] if place < len(node.args) else None
            while argument.alias_info is not None and argument.alias_info.is_write and isinstance(source, fx.Node):
                found.add(source.name)
                source = source.args[0] if source.args else None
    return found | {
        node.name for node in view.graph.nodes if "norm" in str(node.target) for node in node.all_input_nodes
    }


def _same(first: Tensor, second: Tensor, tolerance: float) -> bool:
    if not first.is_floating_point():
        return torch.equal(first, second)
    if not first.numel():
        return True
    moved = (first - second).abs().max() / second.abs().max().clamp_min(1e-30)
    return bool(moved <= tolerance) or torch.equal(first, second)
