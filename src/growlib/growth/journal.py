"""Journal: what a change has found, by reference, so that all of it can be put back when something fails."""

from contextlib import contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from growlib import generators
from growlib.layers import Table

PLAIN = (int, float, complex, str, bytes, type(None), Tensor)  # what holds nothing that could be put back
OPEN: ContextVar = ContextVar("the journal of the change that is being made", default=None)


class Journal:
    """Remembers what modules, optimizers and plain containers hold: references, no copies of tensors.

    Whoever changes a model within `all_or_nothing` puts new tensors in the places of old ones. The exception is
    `write`, for the few tensors that must stay the same objects.

    Args:
        things: Models, optimizers, dicts, lists and sets. What lies inside of them is noted too.
    """

    def __init__(self, *things):
        self.noted, self.flags, self.written = {}, [], []
        waiting = [(thing, True) for thing in things]
        while waiting:
            thing, given = waiting.pop()
            if not isinstance(thing, PLAIN) and id(thing) not in self.noted:
                waiting += [(part, False) for part in self._note(thing, given)]
        devices = {torch.device("cpu"), *(parameter.device for parameter, _, _ in self.flags)}
        self.generators = {device: generators.states(device) for device in devices if device.type != "meta"}

    def _note(self, thing, given: bool) -> list:
        """Notes one thing, and returns what may have to be noted inside of it."""
        if isinstance(thing, (dict, list, set)):
            kind = next(kind for kind in (dict, list, set) if isinstance(thing, kind))
            self.noted[id(thing)] = thing, kind(thing)
            return list(thing.values() if kind is dict else thing)
        if isinstance(thing, nn.Module):
            self.flags += [(p, p.requires_grad, p.grad) for p in thing._parameters.values() if p is not None]
        elif isinstance(thing, Table):
            return [thing.sizes]
        elif not given and not hasattr(thing, "param_groups"):
            return list(thing) if isinstance(thing, tuple) else []
        self.noted[id(thing)] = thing, type(thing)
        return [vars(thing)] if hasattr(thing, "__dict__") else []

    @torch.no_grad()
    def write(self, tensor: Tensor, values: Tensor):
        """Gives a tensor other values in place, and remembers those that it had where they differ."""
        tensor = tensor.detach()
        where = (tensor != values).nonzero(as_tuple=True)
        self.written.append((tensor, where, tensor[where]))
        tensor[where] = values[where]

    @torch.no_grad()
    def undo(self):
        """Puts everything back, the last first."""
        for tensor, where, values in reversed(self.written):
            tensor[where] = values
        for thing, contents in reversed(self.noted.values()):
            if isinstance(contents, type):
                if type(thing) is not contents:
                    thing.__class__ = contents
            elif not _same(thing, contents):
                thing.clear()
                (thing.extend if isinstance(thing, list) else thing.update)(contents)
        for parameter, trains, gradient in self.flags:
            if parameter.requires_grad is not trains:
                parameter.requires_grad_(trains)
            if parameter.grad is not gradient:
                parameter.grad = gradient
        for device, states in self.generators.items():
            generators.put_back(states, device)


def _same(now, before) -> bool:
    if isinstance(now, set):
        return now == before
    pairs = zip(now.items(), before.items(), strict=False) if isinstance(now, dict) else zip(now, before, strict=False)
    if len(now) != len(before):
        return False
    if isinstance(now, dict):
        return all(one is two and mine is theirs for (one, mine), (two, theirs) in pairs)
    return all(mine is theirs for mine, theirs in pairs)


@contextmanager
def all_or_nothing(*things):
    """A context in which a change of structure is made as a whole, or not at all: whatever raises undoes it.

    Args:
        things: What the change may write to: the model, the optimizer, a history.

    Yields:
        The Journal.
    """
    outer, journal = OPEN.get(), Journal(*things)
    token = OPEN.set(journal)
    try:
        with torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext():
            yield journal
    except BaseException:
        journal.undo()
        raise
    else:
        if outer is not None:  # which may still fail
            outer.written += journal.written
    finally:
        OPEN.reset(token)


@contextmanager
def for_a_while(*things):
    """A context after which everything that was changed in it is as before.

    Args:
        things: As in `all_or_nothing`.
    """
    journal = Journal(*things)
    token = OPEN.set(journal)
    try:
        yield
    finally:
        OPEN.reset(token)
        journal.undo()
