"""What tells a model that knows tasks."""

from torch import nn


def tasks_of(model: nn.Module) -> list[str] | None:
    """The names of the tasks that a model knows, or None: a user's attribute of that name may be something else."""
    tasks = getattr(model, "tasks", None)
    known = isinstance(tasks, (list, tuple)) and all(isinstance(task, str) for task in tasks)
    return list(tasks) if known else None
