"""Ctrl-C that waits for a good moment."""

import signal
import threading
from contextlib import contextmanager


@contextmanager
def held_interrupts():
    """Holds Ctrl-C back until the step is done; a second one stops at once."""
    pressed = []
    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return

    def note(number, frame):
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)
