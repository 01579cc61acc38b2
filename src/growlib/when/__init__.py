"""Triggers: when a callback acts. They combine with & | ~, and hold no state beyond the trainer's History.

A trigger is asked as `trigger(trainer, hidden)` and answers with its cause, a text with the values that fired it, or
None. Periods fire at the end of their unit. In the others a text names a column of History, and they fire once per new
record, at the end of an epoch; a function is a signal, which is read whenever they are asked, so put a period before
it: `every(100, "steps") & above(effective_rank, 0.6)`.
"""

from growlib.when._asked import Trigger, every, narrower_than, new_task, shallower_than, within_budget
from growlib.when._readings import above, below, drop_of, improvement, plateau, quantile, reading, rested, worthwhile

__all__ = [
    "Trigger",
    "above",
    "below",
    "drop_of",
    "every",
    "improvement",
    "narrower_than",
    "new_task",
    "plateau",
    "quantile",
    "reading",
    "rested",
    "shallower_than",
    "within_budget",
    "worthwhile",
]
