"""What a model puts out, judged."""

from torch import Tensor


def right(logits: Tensor, labels: Tensor) -> Tensor:
    """The number of examples whose label has the largest logit; with labels at every pixel, the sum of their shares.

    Args:
        logits: (B, classes), or (B, classes, H, W).
        labels: (B,), or (B, H, W).
    """
    return (logits.argmax(1) == labels).sum() / max(1, labels[:1].numel())
