"""Status: what callbacks ask a trainer, and people too: where the run is, what it has just seen, and to stop."""

import math

import torch

from growlib import parallel
from growlib.layers import tasks_of
from growlib.signals import Probe


class Status:
    """Where a Trainer is."""

    @property
    def step(self) -> int:
        """Optimizer steps that are done, in all."""
        return self.progress.step

    @property
    def epoch(self) -> int:
        """Epochs that are done, in all."""
        return self.progress.epoch

    @property
    def training_flops(self) -> int:
        """Floating-point operations that training took, in all."""
        return self.progress.training_flops

    @property
    def seconds(self) -> float:
        """Spent in training, in all."""
        return self.progress.seconds

    @property
    def epochs(self) -> int:
        """Of the present task."""
        self.need_fit("epochs")
        return self.plan[min(self.progress.task, len(self.plan) - 1)]

    @property
    def steps(self) -> int:
        """Of the present task, all in all."""
        self.need_fit("steps")
        return self.epochs * math.ceil(len(self.data.train) / (self.batch_size * self.accumulate))

    @property
    def done(self) -> float:
        """The share of the present task that is done, from 0 to 1."""
        self.need_fit("done")
        return min(1.0, (self.progress.task_epoch + self.progress.examples / len(self.data.train)) / self.epochs)

    def is_left(self, data) -> bool:
        """Whether there is an epoch to train, or one to end whose steps are done."""
        now = self.progress
        return now.examples >= len(data.train) or (now.task_epoch < self.epochs and not (now.ending or self.halted))

    @property
    def moment(self) -> str | None:
        """What has just begun or ended: "step", "epoch", "task" or "fit"."""
        return self.progress.running.partition("_")[2] or None

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C was pressed: of several processes, on any of them and before this step's gradients met."""
        return bool(self.ctrl_c) if parallel.world() == 1 else self.replica.asked

    def stop_task(self, reason: str):
        """Ends the present task after this step or epoch: its `after_task` runs, and the next one starts afresh.

        In the middle of an epoch the rest of it is dropped, and leaves no record.
        """
        self.need_fit("stop_task")
        if self.progress.running not in ("after_task", "after_fit"):  # where there is nothing left to end
            self.stopped = self.progress.ending = reason

    def stop_run(self, reason: str):
        """Ends the run after this step or epoch: nothing else ends, and the next call of `fit` goes on from here."""
        self.need_fit("stop_run")
        self.stopped, self.halted = reason, True

    def task_of(self, data) -> tuple:
        """What a model that knows tasks is told beside the inputs."""
        return () if tasks_of(self.model) is None else (data.name,)

    def autocast(self):
        """bfloat16 on a device; float32 on the CPU."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type != "cpu")

    def need_fit(self, what: str):
        """Raises a RuntimeError before the first call of `fit`."""
        if self.plan is None:
            raise RuntimeError(f"there is no `{what}` before the first fit: it speaks of the task that is trained")

    def probe(self) -> Probe:
        """The batch of the last step (where gradients accumulate, its last part) as the model sees it now.

        Nothing is computed before it is asked for, and nothing twice between two changes of the model.

        Raises:
            RuntimeError: Before the first step.
        """
        if self.inputs is None:
            raise RuntimeError(
                "there is no batch to probe before the first step: call fit first, or make one, "
                "Probe(model, inputs, labels, loss)"
            )
        moment = self.step, id(self.inputs)
        if self.last_probe[0] != moment:
            self.last_probe = moment, Probe(self.model, self.inputs, self.labels, self.loss, self.optimizer)
        return self.last_probe[1]
