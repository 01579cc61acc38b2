"""The search for widths that can change: follow, try all at once, refuse what failed, and try again."""

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from growlib.growth.units import rules_calls, rules_layers, rules_pieces, rules_positions  # noqa: F401  (the table)
from growlib.growth.units.exported import View, export, module_of, place_of
from growlib.growth.units.follow import Follower
from growlib.growth.units.literals import attributes_of, sized
from growlib.growth.units.numbers import Side
from growlib.growth.units.proof import Problem, as_grown, blame, compare_calls, failed_at, steps
from growlib.growth.units.sizes import Size, equal
from growlib.growth.units.widths import Places, names_of, refusals, refuse_lonely, table_of
from growlib.layers import noted

SMALL = 20_000_000  # parameters of a model whose numbers are compared in float64
MOST = 40  # trials, after which what is left is refused


class Search:
    """Follows, tries, and refuses, until what is left is proved."""

    def __init__(self, model: nn.Module, args: tuple, kwargs: dict):
        self.model, self.args, self.kwargs, self.places = model, args, kwargs, Places(model)
        self.views = [(False, export(model, args, kwargs, False))]
        train = export(model, args, kwargs, True)
        if train.text() != self.views[0][1].text():
            self.views.append((True, train))
        self.follower, self.known = Follower(), []
        for _, view in self.views:
            self.known.append(self.follower.follow(view))
        self._follow_another_batch()
        self._tie_attentions()
        self.trials, self.suspects, self.options, self.turns = 0, set(), {}, {}

    def _follow_another_batch(self):
        """Follows the calls for three examples too: what is a width must be as many there."""
        tensors = [leaf for leaf in tree_leaves((self.args, self.kwargs)) if torch.is_tensor(leaf) and leaf.ndim]
        if {len(tensor) for tensor in tensors} != {2}:
            return
        three = tree_map(
            lambda v: torch.cat([v, v[:1]]) if torch.is_tensor(v) and v.ndim else v, (self.args, self.kwargs)
        )
        try:
            self.follower.follow(export(self.model, *three, False))
        except ValueError:  # a model of two examples is one
            return

    def _tie_attentions(self):
        """torch's attention counts the entries of a head as those of a token over the number of heads."""
        for module in self.model.modules():
            if isinstance(module, nn.MultiheadAttention):
                axes = [self.follower.axes.get(id(t)) for t in (module.out_proj.weight, module.in_proj_weight)]
                if axes[0]:
                    equal(*axes[0], "torch's attention has as many units inside as outside")
                if all(axes):
                    equal(axes[1][1], axes[0][1], "torch's attention has as many units inside as outside")

    def run(self):
        """Tries and refuses until nothing fails."""
        while problems := self._problems():
            for problem in problems:
                problem.settle()
            if self.trials == MOST:
                self._give_up(problems)
        self.refused = refusals(self.follower, self.places)

    def _give_up(self, problems: list[Problem]):
        reason = next((problem.reason for problem in problems if problem.reason), "numbers of modules do not fit")
        Problem(tuple(self.names), f"after {MOST} trials something still fails: {reason}").settle()

    def _problems(self) -> list[Problem]:
        self._settle_lonely()
        self.names = names_of(self.follower)
        self.table, self.hidden = table_of(self.follower, self.places)
        if not self.hidden:
            return []
        self.sizes = steps(self.hidden)
        self.trials += 1
        attributes = self._attributes()
        self.table.attributes = attributes
        with as_grown(self.table, self.sizes, attributes):
            try:
                grown = [export(self.model, self.args, self.kwargs, training) for training, _ in self.views]
            except ValueError as error:
                return self._failed(error)
        return self._compared(grown)

    def _failed(self, error: ValueError) -> list[Problem]:
        """What an export failed at: numbers of the modules there, which are tried first, or sizes that must stay."""
        views = [(view, known) for (_, view), known in zip(self.views, self.known, strict=True)]
        failed, modules = failed_at(error, views), dict(self.model.named_modules())
        near = {module_of(node) for call, _ in failed for node in (call, *call.all_input_nodes)}
        if self._turned(near):
            return [Problem((), "")]
        suspects = {type(modules[path]) for path in near if path in modules and not noted(modules[path])}
        if suspects - self.suspects:
            self.suspects |= suspects
            return [Problem((), "")]
        if self._joined(failed):
            return [Problem((), "")]
        self.turns.clear()
        return blame(self.follower, failed) or self._everything(str(error.__cause__))

    def _turned(self, near: set[str]) -> bool:
        """Takes the numbers of some modules for the sizes of something else, if there is anything left to try."""
        turned = set()
        for (module, name), options in self.options.items():
            kind = _kind((module, name))
            if self.places.paths[module] in near and self.turns.get(kind, 0) + 1 < len(options):
                turned.add(kind)
        for kind in turned:
            self.turns[kind] = self.turns.get(kind, 0) + 1
        return bool(turned)

    def _joined(self, failed: list) -> bool:
        """Makes one what code takes for one: `reshape(B, N, C)` of heads, where C is the width of the tokens."""
        joined = False
        for node, known in failed:
            self.follower.sizes = known
            for _, size in sized(self.follower, node):
                for other in self._as_large(node, known, size):
                    equal(size, other, f"{place_of(node)} counts them in another order")
                    joined = True
        return joined

    def _as_large(self, node, known: dict, size: Size) -> list[Size]:
        """The widths in the calls of the same module that are as large as a size and not in it."""
        if len(size.leaves()) < 2 and size.free():
            return []
        path = module_of(node)
        near = [
            n for n in known if n.op == "call_function" and f"{module_of(n)}.".startswith(f"{path}." if path else "")
        ]
        dims = [d for n in near for s in (n, *n.all_input_nodes) for d in known[s] or () if isinstance(d, Size)]
        found = {dim.root for dim in dims if dim.size == size.size and dim.root.kind == "free"}
        return [dim for dim in found if dim not in size.leaves()]

    def _settle_lonely(self):
        before = None
        while before != (before := len(names_of(self.follower))):
            refuse_lonely(self.follower, self.places)

    def _attributes(self) -> list:
        found = {}
        for (_, view), known in zip(self.views, self.known, strict=True):
            self.follower.sizes = known
            for key, options in attributes_of(self.model, self.follower, view, self.names, self.suspects).items():
                found.setdefault(key, []).extend(o for o in options if o not in found.get(key, ()))
        self.options = found
        chosen = {key: options[min(self.turns.get(_kind(key), 0), len(options) - 1)] for key, options in found.items()}
        return [(*key, option) for key, option in chosen.items() if option is not None]

    def _compared(self, grown: list[View]) -> list[Problem]:
        problems = []
        for (_, view), known, new in zip(self.views, self.known, grown, strict=True):
            self.follower.sizes, self.follower.view = known, view
            problems += compare_calls(self.follower, view, new, self.names, self.sizes)
        return [p for p in problems if p.sizes] or self._moved(grown)

    def _moved(self, grown: list[View]) -> list[Problem]:
        size, problems = sum(tensor.numel() for tensor in self.follower.tensors.values()), []
        for (_, view), known, new in zip(self.views, self.known, grown, strict=True):
            self.follower.sizes, self.follower.view = known, view
            for dtype in (torch.float64, torch.float32) if size <= SMALL else (torch.float32,):
                try:
                    side = Side(self.follower, self.names, self.hidden, self.sizes, dtype)
                    with torch.random.fork_rng(devices=[]):
                        problems += side.compare(view, new)
                    break
                except RuntimeError:
                    if dtype is torch.float32:
                        raise
        return [p for p in problems if p.sizes]

    def _everything(self, reason: str) -> list[Problem]:
        return [Problem(tuple(self.names), f"the model fails when they are more: {reason.splitlines()[0]}")]


def _kind(key: tuple[nn.Module, str]) -> tuple[type, str]:
    """Modules of one class keep the same numbers for the same things."""
    return type(key[0]), key[1]
