"""What averages of weights mean over layers that store their connections only."""

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.optim.swa_utils import AveragedModel

from growlib.sparsity.csr import CsrLinear


def refuse_average(holder: nn.Module, name: str, part: nn.Module | None):
    """Raises a TypeError where an AveragedModel takes on CSR layers: torch calls this wherever a module is put in one.

    It pairs numbers by their place in a tensor, and after a rewiring a place in `values` is another connection.
    """
    if not isinstance(holder, AveragedModel) or part is None:
        return
    if names := [path or "the layer" for path, layer in part.named_modules() if isinstance(layer, CsrLinear)]:
        raise TypeError(
            f"AveragedModel can't average {', '.join(names)}: CSR layers store their connections only, and after a "
            "rewiring the same place is another connection. Average a masked model: sparsify with backend='masked'"
        )


register_module_module_registration_hook(refuse_average)
