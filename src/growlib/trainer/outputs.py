"""What a model puts out, judged."""

from collections.abc import Mapping

from torch import Tensor


def logits_in(outputs) -> Tensor:
    """The tensor by which a model's answers are judged: of several the one called "logits" or "out", or the first.

    Args:
        outputs: A tensor, or a tuple or dict that holds one.

    Raises:
        TypeError: There is none.
    """
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, Mapping):
        outputs = [outputs[name] for name in ("logits", "out", *outputs) if name in outputs]
    tensors = [value for value in outputs if isinstance(value, Tensor)] if isinstance(outputs, (tuple, list)) else []
    if not tensors:
        raise TypeError(f"the model puts out a {type(outputs).__name__} without a tensor: there is nothing to judge")
    return tensors[0]


def count_correct(outputs, labels: Tensor) -> Tensor:
    """The number of examples whose label has the largest logit; with labels at every pixel, the sum of their shares.

    Args:
        outputs: Logits (B, classes) or (B, classes, H, W), or a tuple or dict that holds them.
        labels: (B,), or (B, H, W); or of the logits' shape, probabilities of which the largest counts.
    """
    logits = logits_in(outputs)
    labels = labels.argmax(1) if labels.ndim > 1 and labels.shape == logits.shape else labels
    return (logits.argmax(1) == labels).sum() / max(1, labels[:1].numel())
