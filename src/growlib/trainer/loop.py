"""Trainer: the loop of every chapter. Everything else happens in callbacks."""

import time
from collections.abc import Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from growlib import costs, parallel
from growlib.data import normalized
from growlib.layers import as_written, evaluating, known_hidden
from growlib.trainer import checkpoint
from growlib.trainer.bar import ProgressBar, watched
from growlib.trainer.batches import Batch, derive_seed
from growlib.trainer.changes import StructuralChanges
from growlib.trainer.checks import note_data, refuse_optimizer, refuse_settings, refuse_unfit
from growlib.trainer.events import RESUMABLE, Callback, Events, refuse_misspelt
from growlib.trainer.guard import LossGuard
from growlib.trainer.history import History
from growlib.trainer.interrupts import held_interrupts, undone_if_it_fails
from growlib.trainer.optimizers import as_one
from growlib.trainer.outputs import count_correct, logits_in
from growlib.trainer.progress import Progress
from growlib.trainer.status import Status


class Trainer(Status, Events, StructuralChanges):
    """Trains a model whose structure may change while it learns.

    Args:
        model: Any module; moved to the device.
        optimizer: Over the model's parameters, or a list of them, each over its own, see `Optimizers`.
        callbacks: What happens beside the loop, in order.
        loss: Of (logits, labels) to a mean over examples.
        batch_size: Examples a forward pass.
        accumulate: Forward passes an optimizer step; the gradients add up to those of one large batch.
        clip: The largest norm of all gradients together, or None.
        budget: A `costs.Budget` that no change may break.
        device: "auto" (CUDA, else CPU), or what torch calls it. bfloat16 is used everywhere but on the CPU.
        seed: Of shuffling and augmentation. Weights and new units draw from torch's own generator: seed it before
            building the model.
        progress: Whether to show a bar; None shows it where a person watches, in a terminal or a live notebook.

    Raises:
        ValueError: For a size below 1, or a norm to clip at that is not above 0.
        TypeError: For a callback with a method that is no event.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        callbacks: Sequence[Callback] = (),
        *,
        loss=cross_entropy,
        batch_size: int = 128,
        accumulate: int = 1,
        clip: float | None = None,
        budget: costs.Budget | None = None,
        device: str = "auto",
        seed: int = 0,
        progress: bool | None = None,
    ):
        refuse_settings(batch_size, accumulate, clip, seed)
        refuse_optimizer(optimizer)
        refuse_misspelt(callbacks)
        self.device = parallel.device() if device == "auto" else torch.device(device)
        self.replica = parallel.Replica(model.to(self.device))
        self.model, self.optimizer, self.callbacks = as_written(model), as_one(optimizer), list(callbacks)
        self.bar = ProgressBar() if progress or (progress is None and watched()) else None
        self.loss, self.clip, self.budget, self.seed = loss, clip, budget, seed
        self.batch_size, self.accumulate = batch_size, accumulate
        if budget is not None:
            budget.refuse(self.model, "the model as it is")
        self.history, self.progress, self.guard = History(), Progress(), LossGuard(self)
        self.plan = None  # epochs of every task, once there is a fit
        self.stopped = None  # why the last task or run ended early
        self.halted = False  # whether it was the run
        self.data = self.inputs = self.labels = self.logits = self.batch_loss = None  # of the last step
        self.normalization = None  # mean and std of the training data
        self.forget_model()

    # ------------------------------------------------------------------------------------------------- the loop

    def fit(self, *data, epochs: int | Sequence[int]) -> History:
        """Trains on one data set, or on several as a sequence of tasks.

        Args:
            data: Datasets. A model that knows tasks is called as model(inputs, data.name).
            epochs: For each of them, or a number for every one. A trainer that was interrupted, or loaded, does what is
                left of them.

        Returns:
            The history, which is also `trainer.history`.
        """
        plan = list(epochs) if isinstance(epochs, (list, tuple)) else [epochs] * len(data)
        present = self.progress.task - (self.progress.running == "after_task")  # whose callbacks are not through
        refuse_unfit(self.model, data, plan, present, self.progress.learned)
        self.plan, self.stopped, self.halted = plan, self.progress.ending, False
        self.data = data[present].to(self.device)
        with torch.inference_mode(False), torch.enable_grad(), held_interrupts() as self.ctrl_c:
            unfinished = self.progress.event
            self.emit("before_fit")
            self.catch_up(*unfinished)
            while self.progress.task < len(data) and not self.halted:
                self.train_task(data[self.progress.task].to(self.device))
            if self.progress.task == len(data):
                self.progress.task = 0
            self.emit("after_fit")
            if self.ctrl_c:
                raise KeyboardInterrupt
        return self.history

    def train_task(self, data):
        """Trains on one data set, for the epochs that are left of it."""
        self.data, self.normalization = data, (data.mean, data.std)
        note_data(self.model, data, self.progress.learned)
        with self.around("task"):
            while self.is_left(data):
                self.train_epoch(data)

    def train_epoch(self, data):
        """Makes the steps that are left of an epoch."""
        with self.around("epoch"):
            self._statistics = None  # between two epochs anybody may have changed the model
            self.guard.remember()  # where a loss that is not finite leads back to
            self.model.train()
            with self.clock():
                for batch in self.batches(data):
                    with self.around("step"):
                        self.train_step(data, batch)
            if self.interrupted:
                raise KeyboardInterrupt

    def train_step(self, data, batch: Batch):
        """Makes one step of the optimizer, from as many forward passes as `accumulate` says."""
        with undone_if_it_fails(self.statistics(), self.device):
            loss, correct = self.pass_batch(data, batch)
            self.emit("after_backward")
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        with self.ctrl_c.whole():
            self.optimizer.step()
            self.optimizer.zero_grad()
            parallel.share(self.model.buffers())
            self.guard.note(loss)
            self.progress.count(batch.count(data), loss, correct, self.flops_of_an_example())

    def pass_batch(self, data, batch: Batch) -> tuple:
        """The gradients of a step; returns the loss and the number of right answers, of all ranks."""
        if any(p.grad is not None for group in self.optimizer.param_groups for p in group["params"]):
            self.optimizer.zero_grad()  # what a step that failed has left
        loss = correct = 0.0
        for self.inputs, self.labels, share, last in batch.parts(data):  # (B, ...), (B,)
            size = len(self.labels)
            self.emit("before_forward")  # which may leave examples out
            with self.replica.gradients(synced=last):
                with self.autocast():
                    self.logits = self.replica(self.inputs, *self.task_of(data))  # (B, classes)
                    self.batch_loss = self.loss(self.logits, self.labels)
                self.emit("after_loss")
                part = self.batch_loss if share == 1 else self.batch_loss * share
                part.backward()
            loss = loss + part.detach()
            right = count_correct(self.logits, self.labels) * bool(share)
            correct = correct + (right if len(self.labels) == size else right * size / len(self.labels))
        loss, correct = self.replica.totals(loss, correct, self.ctrl_c, self.guard.looks)
        return self.guard.checked(loss), correct

    @contextmanager
    def around(self, unit: str):
        """The events of a step, an epoch or a task: what began does not begin again, what was cut short does not end;
        but a task that was ended early has its end."""
        if unit not in self.progress.begun:
            self.emit(f"before_{unit}")
            if unit != "step":
                self.progress.begun.append(unit)
            if unit == "task":
                self.history.starts.append(self.step)
        yield
        if unit == "epoch" and self.progress.examples >= len(self.data.train):
            self.guard.check_weights()
            self.progress.end_epoch()
            self.history.log(self.step, **self.record(self.data))
        elif unit == "epoch" or (unit == "task" and self.halted):
            return
        elif unit == "task":
            self.progress.end_task()
        self.emit(f"after_{unit}")

    def batches(self, data):
        """The steps that are left of an epoch."""
        now = self.progress
        while now.examples < len(data.train) and not (now.ending or self.halted):
            batch = Batch(self.seed, now.epoch, now.step, now.examples, self.batch_size, self.accumulate)
            now.batch = [batch.epoch, batch.step, batch.start, batch.size, batch.passes]
            if rank := parallel.rank():  # a function of the step alone: a checkpoint holds rank 0's generator only
                torch.manual_seed(derive_seed(self.seed, now.step, 0, rank))
            yield batch
            if self.interrupted:
                break

    def record(self, data) -> dict:
        """What History keeps of an epoch that has just ended."""
        size = len(data.train)
        return {
            "epoch": self.epoch,
            "task": self.progress.task,
            "train_loss": float(self.progress.loss) / size,
            "train_accuracy": float(self.progress.correct) / size,
            **{f"val_{name}": value for name, value in self.evaluate(data).items()},
            "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
            "parameters": costs.parameters(self.model),
            "training_flops": self.training_flops,
            "seconds": self.seconds,
            "widths": {hidden.name: hidden.width for hidden in known_hidden(self.model)},
        }

    # ------------------------------------------------------------------------------------------ looking at data

    @torch.no_grad()
    def evaluate(self, data, split: str = "val") -> dict[str, float]:
        """The mean loss and the accuracy on a split of a data set: "train", "val" or "test"."""
        data, size = data.to(self.device), len(getattr(data, split))
        loss = correct = 0.0
        with evaluating(self.model):
            for index in torch.arange(size, device=self.device).split(max(self.batch_size, 1000)):
                inputs, labels = data.batch(split, index)  # (B, ...), (B,)
                with self.autocast():
                    logits = self.replica.model(inputs, *self.task_of(data))  # (B, classes)
                    loss += self.loss(logits, labels) * len(index)
                correct += count_correct(logits, labels)
        return {"loss": float(loss) / size, "accuracy": float(correct) / size}

    @torch.no_grad()
    def predict(self, images) -> Tensor:
        """Logits for images, in eval mode.

        Args:
            images: (N, C, H, W) of uint8, which are normalised as the training data were; or floats, taken as they are.

        Returns:
            (N, classes) of float32.
        """
        images = torch.as_tensor(images, device=self.device)
        if images.dtype == torch.uint8:
            if self.normalization is None:
                raise ValueError(
                    "this trainer has seen no data, so it can't normalise uint8 images: fit it or give floats"
                )
            images = normalized(images, *self.normalization)
        with evaluating(self.model), self.autocast():
            parts = images.split(max(self.batch_size, 1000))
            return torch.cat([logits_in(self.replica.model(part)) for part in parts]).float()

    # ---------------------------------------------------------------------------------------------------- files

    def save(self, path):
        """Writes a checkpoint: architecture, weights, optimizer, history, the callbacks' state and random numbers."""
        if self.progress.event and self.progress.running not in RESUMABLE:
            raise RuntimeError(
                f"a checkpoint can't be taken in {self.progress.running}: take it in {', '.join(RESUMABLE)}"
            )
        self.guard.check_weights()
        if parallel.rank() == 0:
            checkpoint.write(path, checkpoint.state_of(self))

    def resume(self, path) -> "Trainer":
        """This trainer, where the one that wrote the file was; as it is if there is no file.

        Args:
            path: A file that `save` or Checkpoint wrote in an earlier attempt at the same run.
        """
        return checkpoint.resume(self, path)

    @classmethod
    def load(cls, path, model: nn.Module | None = None, callbacks=(), *, loss=None, device: str = "auto") -> "Trainer":
        """A trainer that goes on where the one that wrote the file was.

        Args:
            path: A file that `save` or Checkpoint wrote.
            model: A fresh one, for classes that growlib.models does not have; it is resized to the file.
            callbacks: As they were passed to the trainer that wrote the file.
            loss: Needed only if it was not one of torch.nn.functional.
            device: As in Trainer.
        """
        return checkpoint.load_trainer(cls, path, model, callbacks, loss=loss, device=device)

    # --------------------------------------------------------------------------------------------- small parts

    @contextmanager
    def clock(self):
        """Adds the seconds to the run's, and reads the losses that are still on the device."""
        began = time.perf_counter()
        yield
        self.guard.read()
        self.progress.seconds = parallel.agreed(self.seconds + time.perf_counter() - began)
