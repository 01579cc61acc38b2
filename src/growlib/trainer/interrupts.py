"""Ctrl-C that waits for a good moment, and steps that fail and leave nothing behind."""

import signal
import threading
from contextlib import contextmanager

import torch
from torch import nn

from growlib import generators


class Pressed(list):
    """Every Ctrl-C of a fit: the first waits for the end of the step, a second one stops at once but for `whole`."""

    writing = False

    def note(self, number, frame):
        """What the signal calls."""
        self.append(number)
        if len(self) > 1 and not self.writing:
            raise KeyboardInterrupt

    @contextmanager
    def whole(self):
        """A context in which a second one waits as the first does: weights that are half written can't go on."""
        self.writing = True
        try:
            yield
        finally:
            self.writing = False


@contextmanager
def held_interrupts():
    """Holds Ctrl-C back until the step is done; a second one stops at once."""
    pressed = Pressed()
    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return
    before = signal.signal(signal.SIGINT, pressed.note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def undone_if_it_fails(model: nn.Module, device: torch.device):
    """A context for the passes of a step: if one fails, statistics and generators are as before, so that it can be made
    again; gradients are forgotten then. Where the loss was not finite, the run is back at the start of its epoch, and
    stays there.

    Args:
        model: Whose buffers are copied, but for masks and wiring, which no pass moves.
        device: Of the generators.
    """
    random, buffers = generators.states(device), list(model.buffers())
    kinds = [[one for one in buffers if one.is_floating_point()], [one for one in buffers if not one.ndim]]
    with torch.no_grad():
        copies = [(ones, torch._foreach_mul(ones, 1)) for ones in kinds if ones]
    try:
        yield
    except FloatingPointError:
        raise
    except BaseException:
        with torch.no_grad():
            for ones, values in copies:
                torch._foreach_copy_(ones, values)
        generators.put_back(random, device)
        raise
