"""Progress: how far a run is, in plain values."""

from dataclasses import asdict, dataclass, field


@dataclass
class Progress:
    """How far a run is: what a checkpoint needs to go on in the middle of an epoch.

    Args:
        step: Optimizer steps, in all.
        epoch: Epochs, in all.
        task: Data sets of this fit that are done.
        task_epoch: Epochs of the present one that are done.
        examples: Examples of the present epoch that are done.
        loss: Its sum over these examples.
        correct: How many of them were right.
        training_flops: Spent, in all.
        seconds: Spent in training, in all.
        batch: The arguments of the last `Batch`: callbacks that are still to run look at it.
        event: Which is running, and the index of the callback that comes next; empty between events.
        begun: What is under way, "task" and "epoch": it does not begin again.
        learned: The identity of the data of every task, by name.
        ending: Why the present task is to end, once `stop_task` was called.
    """

    step: int = 0
    epoch: int = 0
    task: int = 0
    task_epoch: int = 0
    examples: int = 0
    loss: float = 0.0
    correct: float = 0.0
    training_flops: int = 0
    seconds: float = 0.0
    batch: list = field(default_factory=list)
    event: list = field(default_factory=list)
    begun: list = field(default_factory=list)
    learned: dict = field(default_factory=dict)
    ending: str | None = None

    @property
    def running(self) -> str:
        """The event that is running, or an empty text."""
        return self.event[0] if self.event else ""

    def end_epoch(self):
        """Counts an epoch."""
        self.epoch, self.task_epoch, self.examples, self.begun = self.epoch + 1, self.task_epoch + 1, 0, ["task"]

    def end_task(self):
        """Counts a task; what was left of an epoch is dropped."""
        self.task, self.task_epoch, self.examples, self.begun, self.ending = self.task + 1, 0, 0, [], None

    def count(self, examples: int, loss, correct, flops: int):
        """Counts a step: `loss` is the mean over its examples."""
        if not self.examples:
            self.loss = self.correct = 0.0
        self.step += 1
        self.examples += examples
        self.loss = self.loss + loss * examples
        self.correct = self.correct + correct
        self.training_flops += flops * examples

    def state_dict(self) -> dict:
        return {**asdict(self), "loss": float(self.loss), "correct": float(self.correct)}

    def load_state_dict(self, state: dict):
        vars(self).update(state)
