"""Trainer: the loop of every chapter. Everything else happens in callbacks."""

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from growlib import costs, parallel
from growlib.data import normalized
from growlib.growth import Change
from growlib.layers import as_written, evaluating, sparse_layers
from growlib.signals import Probe
from growlib.trainer import checkpoint
from growlib.trainer.checks import refuse_unfit
from growlib.trainer.events import RESUMABLE, Callback
from growlib.trainer.history import History
from growlib.trainer.interrupts import held_interrupts

__all__ = ["Callback", "History", "Trainer"]


class Trainer:
    """Trains a model whose structure may change while it learns.

    Args:
        model: Any module; moved to the device.
        optimizer: Over the model's parameters.
        callbacks: What happens beside the loop, in order.
        loss: Of (logits, labels) to a mean over examples.
        batch_size: Examples a forward pass.
        accumulate: Forward passes an optimizer step; the gradients add up to those of one large batch.
        clip: The largest norm of all gradients together, or None.
        budget: A `costs.Budget` that no change may break.
        device: "auto" (CUDA, else CPU), or what torch calls it. bfloat16 is used on CUDA only.
        seed: Of shuffling and augmentation. Weights and new units draw from torch's own generator: seed it before
            building the model.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        callbacks=(),
        *,
        loss=cross_entropy,
        batch_size: int = 128,
        accumulate: int = 1,
        clip: float | None = None,
        budget: costs.Budget | None = None,
        device: str = "auto",
        seed: int = 0,
    ):
        self.device = parallel.device() if device == "auto" else torch.device(device)
        self.called = model.to(self.device)  # in a step: perhaps compiled
        self.model, self.optimizer, self.callbacks = as_written(self.called), optimizer, list(callbacks)
        parallel.equalize(self.model)
        self._wrapped, self._asked = None, False  # of several processes: what a step calls; whether one is to stop
        self.loss, self.clip, self.budget, self.seed = loss, clip, budget, seed
        self.batch_size, self.accumulate = batch_size, accumulate
        for name in ("batch_size", "accumulate"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, and is {getattr(self, name)!r}")
        if budget is not None:
            budget.refuse(self.model, "the model as it is")
        self.history = History()
        self.step = self.epoch = 0  # done in all
        self.training_flops, self.seconds = 0, 0.0  # spent in all
        self.stopped = None  # why the run ended early
        self.proposal = None  # tells the change that a trigger is asked about: function, name of the layer, settings
        self.normalization = None  # mean and std of the training data
        self._progress = {"task": 0, "epoch": 0, "position": 0, "correct": 0.0, "loss": 0.0}  # in this fit
        self._event = None  # what is running, and the index of the callback after the one that runs
        self._flops_an_example = None
        self._unread = []  # losses that are still on the device
        self._probe = None, None  # the moment of the last probe, and the probe

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
        ended = bool(self._event) and self._event[0] == "after_task"  # its callbacks are not through
        refuse_unfit(self.model, data, plan, self._progress["task"] - ended)
        self.stopped, self._plan = None, plan
        with held_interrupts() as self._interrupted:
            unfinished = self._event
            self.data = data[self._progress["task"] - ended].to(self.device)
            self.emit("before_fit")
            self._resume(unfinished)
            while self._progress["task"] < len(data) and not self.stopped:
                self._run_task(data[self._progress["task"]].to(self.device))
            if not self.stopped:
                self._progress["task"] = 0
            self.emit("after_fit")
            if self._interrupted:
                raise KeyboardInterrupt
        return self.history

    def _run_task(self, data):
        self.data, self.normalization = data, (data.mean, data.std)
        progress = self._progress
        if not (progress["epoch"] or progress["position"]):
            self.emit("before_task")
        while progress["epoch"] < self.epochs and not self.stopped:
            self._run_epoch(data)
        if not self.stopped:
            progress.update(task=progress["task"] + 1, epoch=0)
            self.emit("after_task")

    def _run_epoch(self, data):
        progress = self._progress
        if not progress["position"]:
            progress.update(correct=0.0, loss=0.0)
            self.emit("before_epoch")
        self._good = copy.deepcopy(checkpoint.state_of(self))
        began, size = time.perf_counter(), len(data.train)
        order, noise = self._order(self.epoch, size), torch.Generator(self.device)
        self.model.train()
        while progress["position"] < size and not self.stopped:
            index = order[progress["position"] : progress["position"] + self.batch_size * self.accumulate]
            self.emit("before_step")
            progress["batch"] = [self.epoch, self.step, progress["position"], self.batch_size, self.accumulate]
            self._run_step(data, index, noise)
            progress["position"] += len(index)
            self.step += 1
            self.emit("after_step")
            if self._halted:
                break
        self._read_losses()
        self.seconds = parallel.agreed(self.seconds + time.perf_counter() - began)
        if self._halted:
            raise KeyboardInterrupt
        if progress["position"] >= size:
            self._end_epoch(data, size)

    def _order(self, epoch: int, size: int) -> Tensor:
        order = torch.randperm(size, generator=torch.Generator().manual_seed(derive_seed(self.seed, epoch)))
        return order.to(self.device)

    def _end_epoch(self, data, size: int):
        progress = self._progress
        self.epoch += 1
        progress.update(position=0, epoch=progress["epoch"] + 1)
        self.history.log(
            self.step,
            epoch=self.epoch,
            task=progress["task"],
            train_loss=float(progress["loss"]) / size,
            train_accuracy=float(progress["correct"]) / size,
            **{f"val_{name}": value for name, value in self.evaluate(data).items()},
            learning_rate=float(self.optimizer.param_groups[0]["lr"]),
            parameters=costs.parameters(self.model),
            training_flops=self.training_flops,
            seconds=self.seconds,
            widths=widths(self.model),
        )
        self.emit("after_epoch")

    def _run_step(self, data, index: Tensor, noise: torch.Generator):
        if rank := parallel.rank():  # a pure function of the step, so that a checkpoint needs rank 0's generator only
            torch.manual_seed(derive_seed(self.seed, self.step, 0, rank))
        if data.augments:
            noise.manual_seed(derive_seed(self.seed, self.step, 1 + rank))
        self._wrapped = parallel.wrap(self.called, self._wrapped)
        step_loss, correct = 0.0, 0
        parts = index.split(self.batch_size)
        for part in parts:
            mine, share = parallel.portion(part, len(index))
            self.inputs, self.labels = data.batch("train", mine, noise)  # (B, ...), (B,)
            with parallel.unsynced(self._wrapped, part is not parts[-1]):
                loss = self._part_loss(share * parallel.world())  # for the ranks' gradients are averaged
                loss.backward()
            step_loss = step_loss + loss.detach()
            correct = correct + right(self.logits, self.labels) * bool(share)
        step_loss, correct = self._totals(step_loss, correct)
        self.emit("after_backward")
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        parallel.share(self.model.buffers())
        self._progress["correct"] += correct
        self._progress["loss"] += step_loss * len(index)
        (self.history.losses if self.device.type == "cpu" else self._unread).append(step_loss)
        if self._flops_an_example is None:
            self._flops_an_example = costs.training_flops(self.model) or 0
        self.training_flops += self._flops_an_example * len(index)

    def _part_loss(self, weight: float) -> Tensor:
        with self._autocast():
            self.logits = self._wrapped(self.inputs, *self._asked_about(self.data))  # (B, classes)
            self.batch_loss = self.loss(self.logits, self.labels)
        self.emit("after_loss")
        return self.batch_loss if weight == 1 else self.batch_loss * weight

    def _totals(self, loss: Tensor, correct: Tensor):
        """The loss and the number of right answers of all ranks."""
        if parallel.world() > 1:
            asked = torch.tensor(float(bool(self._interrupted)), device=self.device)
            loss, correct, asked = parallel.total(
                torch.stack([loss.float() / parallel.world(), correct.float(), asked])
            )
            self._asked = self._looks() and bool(asked)
        return self._checked(loss), correct

    @property
    def _halted(self) -> bool:
        """Whether Ctrl-C was pressed: of several processes, on any of them and before this step's gradients met."""
        return bool(self._interrupted) if parallel.world() == 1 else self._asked

    def change(self, function, hidden, *settings, cause: str = "", **named) -> Change:
        """Makes a structural change under the budget, and records it.

        Args:
            function: `widen`, `prune`, or another that returns a Change.
            hidden: A Hidden of the model, or its name.
            settings, named: For the function, after the model and the hidden layer.
            cause: Why.
        """
        name = hidden if isinstance(hidden, str) else hidden.name
        if self.budget is not None and not parallel.rank():
            deed = f"{function.__name__}(model, {name!r}, {', '.join(map(repr, settings))})"
            self.budget.refuse(self.trial(function, name, *settings), deed)
        return self.tell(function, name, *settings, cause=cause, **named)

    def tell(self, function, *settings, cause: str = "", **named) -> Change | None:
        """Calls `function(model, *settings, optimizer=optimizer)`, of several processes on all of them.

        Args:
            function: Changes the model in place. A Change that it returns is recorded.
            settings: For the function, on all processes.
            cause: Of a Change.
            named: For the function, where the change is decided; the other processes take over what came of it.
        """
        if parallel.rank():
            return self._follow(parallel.agreed())
        with parallel.together(self.model, self.optimizer):
            result = function(self.model, *settings, optimizer=self.optimizer, **named)
            parallel.agreed((function, settings, cause))
        return self._note(result, cause)

    def _follow(self, order) -> Change | None:
        """Does what rank 0 has done, and takes over its values."""
        function, settings, cause = order
        with parallel.together(self.model, self.optimizer):
            result = function(self.model, *settings, optimizer=self.optimizer)
        return self._note(result, cause)

    def _note(self, change: Change | None, cause: str) -> Change | None:
        self._probe, self._flops_an_example = (None, None), None  # the model is another
        if change is None:
            return None
        change = replace(change, step=self.step, cause=cause)
        self.history.changes.append({**change.record(), "epoch": self.epoch})
        return change

    def probe(self) -> Probe:
        """The batch of the last step (where gradients accumulate, its last part) as the model sees it now.

        Nothing is computed before it is asked for, and nothing twice between two changes of the model.
        """
        moment = self.step, id(self.inputs)
        if self._probe[0] != moment:
            self._probe = moment, Probe(self.model, self.inputs, self.labels, self.loss, self.optimizer)
        return self._probe[1]

    def trial(self, function, name: str, *settings) -> nn.Module:
        """The model as a change would make it, without its values: what the change would cost."""
        model = copy.deepcopy(self.model)
        model = model if sparse_layers(model) else model.to("meta")  # where masks would have no values to count
        function(model, name, *settings)
        return model

    @property
    def epochs(self) -> int:
        """Of the present task."""
        return self._plan[min(self._progress["task"], len(self._plan) - 1)]

    @property
    def steps(self) -> int:
        """Of the present task, all in all."""
        return self.epochs * math.ceil(len(self.data.train) / (self.batch_size * self.accumulate))

    def _asked_about(self, data) -> tuple:
        """What a model that knows tasks is told beside the inputs."""
        return (data.name,) if hasattr(self.model, "tasks") else ()

    @property
    def done(self) -> float:
        """The share of the present task that is done, from 0 to 1."""
        progress = self._progress
        return min(1.0, (progress["epoch"] + progress["position"] / len(self.data.train)) / self.epochs)

    def stop(self, reason: str):
        """Ends the run after the current step or epoch."""
        self.stopped = reason

    @torch.no_grad()
    def evaluate(self, data, split: str = "val") -> dict[str, float]:
        """The mean loss and the accuracy on a split of a data set: "train", "val" or "test"."""
        data, size = data.to(self.device), len(getattr(data, split))
        loss = correct = 0.0
        with evaluating(self.model):
            for index in torch.arange(size, device=self.device).split(max(self.batch_size, 1000)):
                inputs, labels = data.batch(split, index)  # (B, ...), (B,)
                with self._autocast():
                    logits = self.called(inputs, *self._asked_about(data))  # (B, classes)
                    loss += self.loss(logits, labels) * len(index)
                correct += right(logits, labels)
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
        with evaluating(self.model), self._autocast():
            return torch.cat([self.called(part) for part in images.split(max(self.batch_size, 1000))]).float()

    def save(self, path):
        """Writes a checkpoint: architecture, weights, optimizer, history, the callbacks' state and random numbers."""
        if self._event and self._event[0] not in RESUMABLE:
            raise RuntimeError(f"a checkpoint can't be taken in {self._event[0]}: take it in {', '.join(RESUMABLE)}")
        if parallel.rank() == 0:
            checkpoint.write(path, checkpoint.state_of(self))

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
        state = checkpoint.read(path)
        settings = dict(state["settings"])
        name, budget = settings.pop("loss"), checkpoint.known_budget(settings.pop("budget"))
        model = checkpoint.build(state["model"]) if model is None else model
        checkpoint.load_weights(model, state["model"], state["weights"])  # takes on the widths
        optimizer = checkpoint.new_optimizer(model, state["optimizer"])
        loss = loss or checkpoint.known_loss(name)
        trainer = cls(model, optimizer, callbacks, loss=loss, budget=budget, device=device, **settings)
        checkpoint.restore(trainer, state)
        return trainer

    def counters(self) -> dict:
        """How far the run is, as plain values."""
        self._read_losses()
        progress = {name: float(n) if name in ("correct", "loss") else n for name, n in self._progress.items()}
        plain = {name: getattr(self, name) for name in ("step", "epoch", "training_flops", "seconds", "_event")}
        return {**plain, "_progress": progress, "normalization": self.normalization, "_flops_an_example": None}

    @property
    def moment(self) -> str | None:
        """What has just begun or ended: "step", "epoch", "task" or "fit"."""
        return self._event and self._event[0].split("_")[1]

    def emit(self, event: str, start: int = 0):
        """Runs the callbacks' method of this name, in their order."""
        for index, callback in enumerate(self.callbacks[start:], start + 1):
            self._event = [event, index]
            act = getattr(callback, event)
            if callback.structural and getattr(type(callback), event) is not getattr(Callback, event):
                parallel.led(lambda act=act: act(self), self._follow)
            else:
                act(self)
        self._event = None

    def _resume(self, unfinished):
        """Runs the callbacks that were still to come when the checkpoint was taken, or when one of them failed."""
        if unfinished and unfinished[0] in RESUMABLE[:3]:
            epoch, step, start, size, parts = self._progress["batch"]  # of the last step: they may look at it
            index = self._order(epoch, len(self.data.train))[start : start + size * parts]
            noise = torch.Generator(self.device).manual_seed(derive_seed(self.seed, step, 1 + parallel.rank()))
            for part in index.split(size):
                self.inputs, self.labels = self.data.batch("train", parallel.portion(part, len(index))[0], noise)
            self.emit(*unfinished)

    def _autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def _looks(self) -> bool:
        """Whether values are read in this step: on CUDA, where that waits for the device, only now and then."""
        return self.device.type == "cpu" or self.step % 50 == 0

    def _checked(self, loss: Tensor) -> Tensor | float:
        """The loss, as a number on the CPU."""
        if not self._looks():
            return loss
        if not math.isfinite(value := loss.item()):
            step, rate = self.step, self.optimizer.param_groups[0]["lr"]
            self._unread = []
            self.optimizer.zero_grad()
            checkpoint.restore(self, self._good)
            raise FloatingPointError(
                f"the loss is {value} at step {step} (learning rate {rate:g}): the trainer is back at step "
                f"{self.step}, the start of the epoch. Lower the rate, or pass clip="
            )
        return value if self.device.type == "cpu" else loss

    def _read_losses(self):
        if self._unread:
            self.history.losses += torch.stack(self._unread).tolist()
            self._checked(self._unread[-1])
            self._unread = []


def right(logits: Tensor, labels: Tensor) -> Tensor:
    """The number of examples whose label has the largest logit; with labels at every pixel, the sum of their shares.

    Args:
        logits: (B, classes), or (B, classes, H, W).
        labels: (B,), or (B, H, W).
    """
    return (logits.argmax(1) == labels).sum() / max(1, labels[:1].numel())


def widths(model: nn.Module) -> dict[str, int]:
    """The width of every hidden layer, by name."""
    return {hidden.name: hidden.width for hidden in getattr(model, "hidden", [])}


def derive_seed(*numbers: int) -> int:
    """A seed for torch made of several numbers (torch's generators look at 32 bits only)."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
