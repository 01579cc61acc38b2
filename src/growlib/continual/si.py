"""SI: importance measured along the way, as what every weight contributed to the fall of the loss."""

import math

import torch

from growlib.continual._calls import learning, moved, on, same_shaped
from growlib.trainer import Callback

DAMPING = 0.1  # of the paper; keeps the importance of weights that hardly moved finite
REMEMBERED = ("importance", "anchors", "start", "path", "before", "slopes")


class SI(Callback):
    """Synaptic intelligence: adds strength x sum of importance x (distance from where the last task ended) squared.

    Its gradient is added to that of the loss, so the recorded losses are of the data alone.

    The importance of a weight is what its steps have taken off the loss during a task, in total (the gradient of the
    loss, without the penalty's, times its step), over the square of the way it went. Where the sum over tasks is
    negative it is set to 0, as in the authors' code.

    Args:
        strength: Of the penalty.

    Source: Zenke, Poole, Ganguli, "Continual Learning Through Synaptic Intelligence" (2017), equations 3 to 5.
    """

    remembers = REMEMBERED

    def __init__(self, strength: float):
        if not 0 <= strength < math.inf:
            raise ValueError(f"SI(strength={strength!r}): a finite number from 0 on")
        self.strength = strength
        for name in REMEMBERED:  # by parameter
            setattr(self, name, {})

    def before_fit(self, trainer):
        for name in REMEMBERED:
            setattr(self, name, on(trainer.device, getattr(self, name)))

    def before_task(self, trainer):
        self.start = {name: parameter.detach().clone() for name, parameter in learning(trainer.model).items()}
        self.path = {name: torch.zeros_like(start) for name, start in self.start.items()}

    @torch.no_grad()
    def after_backward(self, trainer):
        same_shaped(trainer.model, self.start, "SI")
        pulls = moved(trainer.model, self.anchors, "SI")
        self.before, self.slopes = {}, {}
        for name, parameter in learning(trainer.model).items():
            if name not in self.start:  # born in the middle of the task
                self.start[name], self.path[name] = parameter.detach().clone(), torch.zeros_like(parameter)
            if parameter.grad is not None:
                self.before[name], self.slopes[name] = parameter.detach().clone(), parameter.grad.clone()
                if name in pulls and name in self.importance:
                    parameter.grad += 2 * self.strength * self.importance[name] * pulls[name]

    @torch.no_grad()
    def after_step(self, trainer):
        for name, step in moved(trainer.model, self.before, "SI").items():
            self.path[name] -= self.slopes[name] * step

    @torch.no_grad()
    def after_task(self, trainer):
        for name, way in moved(trainer.model, self.start, "SI").items():
            found = self.importance.get(name, 0.0) + self.path[name] / (way.square() + DAMPING)
            self.importance[name] = found.clamp(min=0)
        self.anchors = {name: parameter.detach().clone() for name, parameter in learning(trainer.model).items()}
