"""PackNet: tasks share one network of fixed size, and every weight of it belongs to the task that kept it."""

import warnings
from functools import partial

import torch
from torch import Tensor, nn

from growlib.growth.optimizers import restart
from growlib.layers import evaluating, tasks_of
from growlib.sparsity import owned
from growlib.trainer import Callback


class PackNet(Callback):
    """Packs tasks into one network: a task learns with all free weights, keeps the largest, and gives back the rest.

    Every layer is pruned by magnitude to the task's share, what is left is trained on, and then owned for ever; weights
    that are given back are zero and free for the next task. A task reads its own weights and those of the tasks before.
    Layers whose output the model returns are heads: they belong to one task and are not pruned. Biases and
    normalisations that tasks share are fixed with the first task.

    Who owns a weight lies in the model, in a buffer beside it, and the masks act in the model's forward: also in a copy
    of it, and in one that is loaded from a checkpoint. A task that ends before it is pruned is pruned then, with a
    warning.

    Args:
        keep: The share of every layer's weights that each task owns: 0.1 is room for ten tasks.
        train: The share of a task's steps before it is pruned; in the others, what is left is trained.

    Source: Mallya, Lazebnik, "PackNet: Adding Multiple Tasks to a Single Network by Iterative Pruning" (2018),
    section 3. (There a task keeps a share of what is free.)
    """

    remembers = ("tasks", "pruned", "whole")

    def __init__(self, keep: float, train: float = 0.7):
        if not 0 < keep <= 1 or not 0 < train < 1:
            raise ValueError(f"PackNet(keep={keep!r}, train={train!r}): shares between 0 and 1")
        self.keep, self.train = keep, train
        self.tasks, self.pruned = [], False  # packed, or being packed; whether the last of them is pruned
        self.whole = {}  # by the name of a parameter that has one owner only, such as a head: its number
        self.fixed, self.values = {}, {}  # by name: what may not move now, and where it is
        self.model = None

    def before_fit(self, trainer):
        if tasks_of(trainer.model) is None:
            raise ValueError(
                f"PackNet needs a model with a head for every task, and {type(trainer.model).__name__} has one"
            )
        self.model = trainer.model
        if not self.tasks and owned.PACKED in self.model._buffers:
            raise ValueError(
                "the weights of this model belong to tasks that this PackNet knows nothing of: load it with the one "
                "that packed it, Trainer.load(path, model, [pack])"
            )
        self.fix()

    @property
    def owners(self) -> dict[str, Tensor]:
        """By the name of a weight that tasks share: the number of the owner from 1, or 0 for free."""
        return {} if self.model is None else owned.owners_of(self.model)

    def before_task(self, trainer):
        model, task = trainer.model, trainer.data.name
        if task in self.tasks[-1:] and not self.pruned:  # it began, and what came next failed
            return
        if task in self.tasks:
            raise ValueError(f"task {task!r} is packed, its weights are fixed: train a new one")
        used, head = parts(model, trainer.data.batch("train", torch.arange(2, device=trainer.device))[0], task)
        if not self.tasks:
            for name in used:
                if name not in head and model.get_parameter(name).ndim > 1:
                    layer, _, parameter = name.rpartition(".")
                    owned.own(model.get_submodule(layer), parameter)
        if full := [name for name, owner in self.owners.items() if owner.all()]:
            raise ValueError(
                f"task {task!r} finds no free weights in {', '.join(full)}: {len(self.tasks)} tasks own "
                f"{self.keep:g} of every layer each. Let PackNet keep less"
            )
        self.tasks.append(task)
        owned.number_tasks(model, self.tasks)
        self.whole |= {name: len(self.tasks) for name in used if name not in {*self.owners, *self.whole}}
        self.pruned = False
        self.fix()

    @torch.no_grad()
    def fix(self):
        """Notes what may not move now, and where it is."""
        number, named = len(self.tasks), dict(self.model.named_parameters())
        self.fixed = {name: owner != number if self.pruned else owner > 0 for name, owner in self.owners.items()}
        self.fixed |= {n: torch.ones_like(named[n], dtype=torch.bool) for n, of in self.whole.items() if of < number}
        self.values = {name: named[name].detach().clone() for name in self.fixed}

    def before_step(self, trainer):
        if len(self.tasks) > 1:
            for module in trainer.model.modules():
                if getattr(module, "running_mean", None) is not None:  # these statistics are fixed too
                    module.eval()

    def after_backward(self, trainer):
        for name, fixed in self.fixed.items():
            if (gradient := trainer.model.get_parameter(name).grad) is not None:
                gradient.masked_fill_(fixed, 0)

    @torch.no_grad()
    def after_step(self, trainer):
        for name, fixed in self.fixed.items():  # whatever momentum and weight decay did to it
            parameter = trainer.model.get_parameter(name)
            parameter.copy_(torch.where(fixed, self.values[name], parameter))
        if self.tasks and not self.pruned and trainer.done >= self.train:
            self.prune(trainer)

    def after_task(self, trainer):
        if not self.pruned:
            warnings.warn(
                f"task {self.tasks[-1]!r} ended before PackNet pruned it, at {self.train:.0%} of its steps: it is "
                "pruned now, and nothing has trained what is left. Let train= be less, or stop later",
                stacklevel=2,
            )
            self.prune(trainer)

    @torch.no_grad()
    def prune(self, trainer):
        """Leaves the largest free weights of every layer to the present task, and sets the others to zero."""
        for name, owner in self.owners.items():
            parameter, free = trainer.model.get_parameter(name), owner == 0
            count = min(round(self.keep * owner.numel()), int(free.sum()))
            worth = parameter.abs().masked_fill(~free, -1).flatten()
            mine = torch.zeros_like(worth, dtype=torch.bool).index_fill_(0, worth.topk(count).indices, True)
            owner.masked_fill_(mine.view(owner.shape), len(self.tasks))
            parameter.masked_fill_(owner == 0, 0)
            restart(trainer.optimizer, parameter, owner == 0)
        self.pruned = True
        self.fix()


def parts(model: nn.Module, inputs: Tensor, task: str) -> tuple[list[str], list[str]]:
    """The names of the parameters that the model uses for a task, and of those in the layer whose output it returns."""
    outputs, hooks = {}, []
    for path, module in model.named_modules():
        if path and not list(module.children()):
            note = partial(lambda path, module, given, output: outputs.update({path: output}), path)
            hooks.append(module.register_forward_hook(note))
    with evaluating(model), torch.enable_grad():
        logits = model(inputs, task)
    for hook in hooks:
        hook.remove()
    named = dict(model.named_parameters())
    slopes = torch.autograd.grad(logits.sum(), named.values(), allow_unused=True)
    used = [name for name, slope in zip(named, slopes, strict=True) if slope is not None]
    heads = tuple(f"{path}." for path, output in outputs.items() if output is logits)
    return used, [name for name in used if name.startswith(heads)]
