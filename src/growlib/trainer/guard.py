"""LossGuard: reads the losses, and puts a run back to the start of the epoch when numbers are not finite any more."""

import copy
import math

import torch
from torch import Tensor, nn

from growlib.trainer import checkpoint


class LossGuard:
    """Watches the losses and the weights of a run.

    On an accelerator a loss is read at every fiftieth step and at the end of an epoch only: reading waits for it.

    Args:
        trainer: Whose history takes the losses, and who is put back.
    """

    def __init__(self, trainer):
        self.trainer, self.unread, self.good, self.marks = trainer, [], None, {}

    def remember(self):
        """Keeps a copy of all that the trainer is now, to go back to; of its history, which only grows, the length."""
        if not finite(self.trainer.model):
            self.refuse("weights", math.nan)
        state = checkpoint.state_of(self.trainer)
        self.marks = {name: len(values) for name, values in state.pop("history").items()}
        self.good = copy.deepcopy(state)

    @property
    def looks(self) -> bool:
        """Whether losses are read in this step."""
        return self.trainer.device.type == "cpu" or self.trainer.step % 50 == 0

    def checked(self, loss: Tensor) -> Tensor | float:
        """The loss, as a number on the CPU.

        Raises:
            FloatingPointError: It is not finite. The trainer is back at the start of the epoch then.
        """
        if not self.looks:
            return loss
        if not math.isfinite(value := loss.item()):
            self.refuse("loss", value)
        return value if self.trainer.device.type == "cpu" else loss

    def note(self, loss: Tensor | float):
        """Adds the loss of a step to the history, at once or when it is read."""
        (self.unread if torch.is_tensor(loss) else self.trainer.history.losses).append(loss)

    def read(self):
        """Reads what was left on the device."""
        if self.unread:
            losses = torch.stack(self.unread).tolist()
            self.unread = []
            self.trainer.history.losses += losses
            for loss in losses:
                if not math.isfinite(loss):
                    self.refuse("loss", loss)

    def check_weights(self):
        """Raises a FloatingPointError unless all weights are finite; the trainer is back at the start of the epoch."""
        if not finite(self.trainer.model):
            self.refuse("weights", math.nan)

    def refuse(self, what: str, value: float):
        """Goes back to the start of the epoch, if there was one, and raises."""
        trainer, step, rate = self.trainer, self.trainer.step, self.trainer.optimizer.param_groups[0]["lr"]
        said = f"the loss is {value}" if what == "loss" else "weights are not finite"
        self.unread = []
        trainer.optimizer.zero_grad()
        if self.good is None:
            raise FloatingPointError(f"{said} at step {step}, before anything was trained: build the model anew")
        checkpoint.restore(trainer, {**self.good, "history": self.shortened()})
        raise FloatingPointError(
            f"{said} at step {step} (learning rate {rate:g}): the trainer is back at step "
            f"{trainer.step}, the start of the epoch. Lower the rate, or pass clip="
        )

    def shortened(self) -> dict:
        """The history as it was when the epoch began."""
        now = self.trainer.history.state_dict()
        return {name: now[name][:length] for name, length in self.marks.items()}


@torch.no_grad()
def finite(model: nn.Module) -> bool:
    """Whether no parameter holds an inf or a nan."""
    parameters = [parameter.detach() for parameter in model.parameters() if parameter.numel()]
    if not parameters or parameters[0].is_meta:
        return True
    return bool(torch.stack([norm.float() for norm in torch._foreach_norm(parameters, float("inf"))]).isfinite().all())
