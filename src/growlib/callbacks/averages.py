"""Average and Lookahead: a mean of the weights along the way, which does better than the last ones.

The mean of a parameter lies in the optimizer's state, beside its momentum: so it follows every change of structure, is
kept by a checkpoint and is the same on all ranks, like all that lies there. The statistics of batch normalisations are
not averaged but measured anew, on training examples.
"""

import copy
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from growlib.layers import evaluating
from growlib.trainer import Callback

AVERAGE = "ax"  # as torch's ASGD calls its own: growth knows that it goes through what the weights go through


class Average(Callback):
    """Keeps a running mean of the weights and records after every epoch how well it does: `val_loss_averaged` and
    `val_accuracy_averaged`. Training does not notice.

    Every few steps the mean becomes kept x mean + (1 - kept) x weights. That of a new unit begins at its weights.

    Args:
        kept: The share that stays, or a function of the trainer that tells.
        every: Steps between two updates.
        examples: Training examples on which the statistics of normalisations are measured.
    """

    def __init__(self, kept=0.9, every: int = 5, examples: int = 5000):
        self.kept, self.every, self.examples = kept, every, examples

    def before_fit(self, trainer):
        if any(isinstance(one, torch.optim.ASGD) for one in parts_of(trainer.optimizer)):
            raise TypeError(f"ASGD keeps an average of its own: use another optimizer with {type(self).__name__}")

    def after_step(self, trainer):
        for parameter, state in states_of(trainer.optimizer):
            if AVERAGE not in state:
                state[AVERAGE] = parameter.detach().clone()
        if trainer.step % self.every == 0:
            self.mix(trainer, self.kept(trainer) if callable(self.kept) else self.kept)

    def after_epoch(self, trainer):
        with averaged(trainer, self.examples):
            found = trainer.evaluate(trainer.data)
        trainer.history.log(trainer.step, **{f"val_{name}_averaged": value for name, value in found.items()})

    @torch.no_grad()
    def mix(self, trainer, kept: float):
        """Takes the present weights into the mean."""
        if pairs := pairs_of(trainer.optimizer):
            means, weights = zip(*pairs, strict=True)
            torch._foreach_lerp_(means, weights, 1 - kept)


def rising(trainer) -> float:
    """The share that Lookahead keeps by default: nothing at first, 0.95 ** 5 at the end of the task, as the third power
    of what is done.

    Source: Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (2024), listing 4.
    """
    return 0.95**5 * trainer.done**3


class Lookahead(Average):
    """Lets the weights go back to their running mean every few steps, and end there.

    Args:
        kept: The share of the mean that stays when the weights come in, or a function of the trainer that tells.
        every: Steps between two updates.
        examples: As in Average; they are looked at once, at the end of the task.

    Source: Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back" (2019).
    """

    def __init__(self, kept=rising, every: int = 5, examples: int = 5000):
        super().__init__(kept, every, examples)

    def after_step(self, trainer):
        super().after_step(trainer)
        last = trainer.done == 1
        if last or trainer.step % self.every == 0:
            take(pairs_of(trainer.optimizer))
            trainer.last_probe = None, None  # which saw other weights
        if last:
            measure_statistics(trainer, self.examples)

    def after_epoch(self, trainer):
        """The weights are the mean, or near it: there is nothing to compare."""


@contextmanager
def averaged(trainer, examples: int = 5000):
    """A context in which the model has the averaged weights of Average, and statistics that fit them.

    Args:
        trainer: With an Average among its callbacks; it has trained.
        examples: Training examples on which the statistics of normalisations are measured.
    """
    pairs = pairs_of(trainer.optimizer)
    if not pairs:
        raise ValueError("there are no averaged weights: give the trainer an Average, and train")
    tensors = [weight.detach() for _, weight in pairs] + list(trainer.model.buffers())
    before = [tensor.clone() for tensor in tensors]
    try:
        take(pairs)
        measure_statistics(trainer, examples)
        yield trainer.model
    finally:
        for tensor, value in zip(tensors, before, strict=True):
            tensor.copy_(value)
        trainer.last_probe = None, None


def parts_of(optimizer) -> list:
    """The optimizers that a trainer's consists of."""
    return getattr(optimizer, "optimizers", [optimizer])


def states_of(optimizer) -> list[tuple[nn.Parameter, dict]]:
    """The parameters that learn, each with what is kept for it. But SGD, optimizers make that if it is empty: before
    they have, there is no place for more."""
    found = []
    for one in parts_of(optimizer):
        lazy = not isinstance(one, torch.optim.SGD)
        parameters = [parameter for group in one.param_groups for parameter in group["params"]]
        learning = [p for p in parameters if p.requires_grad and (one.state.get(p) or not lazy)]
        found += [(parameter, one.state[parameter]) for parameter in learning]
    return found


def pairs_of(optimizer) -> list[tuple[Tensor, nn.Parameter]]:
    """The averages that an optimizer's state holds, each with its parameter."""
    return [(state[AVERAGE], parameter) for parameter, state in states_of(optimizer) if AVERAGE in state]


@torch.no_grad()
def take(pairs: list[tuple[Tensor, nn.Parameter]]):
    """Gives parameters their averages."""
    for mean, parameter in pairs:
        parameter.copy_(mean)


@torch.no_grad()
def measure_statistics(trainer, examples: int):
    """Sets the running statistics of a model's batch normalisations to their means over training examples.

    Those of closed tasks, and those that these examples do not reach, stay as they are. Nothing is drawn or augmented.
    """
    model, data = trainer.model, trainer.data
    size = min(examples, len(data.train))
    parts = torch.arange(size, device=trainer.device).split(trainer.batch_size)
    with evaluating(model), trainer.autocast():
        norms = {norm: copy.deepcopy(norm.state_dict()) for norm in open_norms(model)}
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.train().reset_running_stats()
            norm.momentum = None  # the mean of all batches
        for index in parts if norms else ():
            if len(index) == trainer.batch_size or len(parts) == 1:
                trainer.replica.model(data.batch("train", index)[0], *trainer.task_of(data))
        for (norm, before), momentum in zip(norms.items(), momenta, strict=True):
            norm.eval().momentum = momentum
            if not norm.num_batches_tracked:
                norm.load_state_dict(before)


def open_norms(model: nn.Module) -> list[nn.Module]:
    """The batch normalisations that gather running statistics while a model trains."""
    model.train()
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if norm.training and norm.track_running_stats]
    model.eval()
    return norms
