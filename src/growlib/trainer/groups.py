"""Parameter groups: which parameters learn at a rate of their own."""

from torch import nn

NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def norm_biases_apart(model: nn.Module, lr: float, weight_decay: float = 0.0, factor: float = 64.0) -> list[dict]:
    """Two parameter groups for an optimizer: all that learns but the biases of normalisations, and these.

    The decay of a step, rate x weight decay, is the same in both.

    Args:
        model: Any module.
        lr: The rate of the first group.
        weight_decay: Of the first group.
        factor: By which the biases of normalisations learn faster.

    Source: Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (2024), section 3.3.
    """
    biases = [module.bias for module in model.modules() if isinstance(module, NORMS) and module.bias is not None]
    own = {id(bias) for bias in biases}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in own and parameter.requires_grad]
    fast = {"lr": lr * factor, "weight_decay": weight_decay / factor}
    return [
        {"params": rest, "lr": lr, "weight_decay": weight_decay},
        {"params": [bias for bias in biases if bias.requires_grad], **fast},
    ]
