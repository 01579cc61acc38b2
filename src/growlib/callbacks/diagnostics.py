"""Diagnostics: what every layer feels, on record."""

from collections.abc import Callable, Sequence

from growlib import signals
from growlib.layers import hidden_of
from growlib.trainer import Callback
from growlib.when import Trigger, every, reading

EVERYTHING = (
    signals.gradient_norm,
    signals.relative_gradient,
    signals.update_ratio,
    signals.activation_mean,
    signals.activation_variance,
    signals.saturation,
    signals.dead,
    signals.dormancy,
    signals.effective_rank,
    signals.stable_rank,
    signals.weight_effective_rank,
    signals.weight_stable_rank,
    signals.orthogonality_gap,
    signals.mutual_information,
    signals.input_information,
    signals.gradmax_gain,
    signals.natural_gain,
)
DEAR = (
    signals.weight_effective_rank,
    signals.weight_stable_rank,
    signals.input_information,
    signals.gradmax_gain,
    signals.natural_gain,
)
USUAL = tuple(signal for signal in EVERYTHING if signal not in DEAR)


class Diagnostics(Callback):
    """Reads signals of every hidden layer now and then, into `history.readings`; it changes nothing.

    A signal that refuses a layer is left out there, and `.refused` tells why, by (layer, signal).

    Args:
        signals: (probe, hidden) -> a number or (units,), of which the mean is kept. Left out, all but five that
            cost more than the others together: the ranks of the weights, what units tell about the inputs, and the
            two gains.
        when: A trigger, asked about every hidden layer after each step and each epoch.
    """

    def __init__(self, signals: Sequence[Callable] = USUAL, when: Trigger = every(100, "steps")):  # noqa: B008
        self.signals, self.when, self.refused = tuple(signals), when, {}

    def before_fit(self, trainer):
        if not hidden_of(trainer.model):
            raise ValueError(
                f"Diagnostics: {type(trainer.model).__name__} has no hidden layer to look at. Models of growlib list "
                "theirs; growable(model, example) finds those of others"
            )

    def after_step(self, trainer):
        for hidden in hidden_of(trainer.model):
            if self.when(trainer, hidden):
                for signal in self.signals:
                    self._read(trainer, signal, hidden)

    after_epoch = after_step

    def _read(self, trainer, signal: Callable, hidden):
        if (hidden.name, signal) in self.refused:
            return
        try:
            reading(trainer, signal, hidden)
        except ValueError as reason:
            self.refused[hidden.name, signal] = str(reason)
