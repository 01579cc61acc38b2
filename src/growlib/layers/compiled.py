"""torch.compile and a structure that changes: one recompilation a change, and no fall back to eager."""

import sys
from contextlib import nullcontext

import torch
from torch import nn


def renew_compiled(model: nn.Module):
    """Drops the code that torch.compile made for a model, whose widths were others; the next call compiles anew.

    torch keeps what it compiled with the code of a class's `forward`, adds an entry for every new shape, and at 8 of
    them (`recompile_limit`) runs that class uncompiled for good. Every change calls this, so that those entries never
    pile up, for `torch.compile(model)`, `model.compile()` and compiled parts of a model alike. Other instances of the
    classes share the code: they compile anew too. A compiled function that calls the model is out of reach: compile
    the model, or call `torch.compiler.reset()` after each change.
    """
    if "torch._dynamo" not in sys.modules:  # nothing was compiled
        return
    from torch._dynamo.eval_frame import reset_code
    from torch._dynamo.resume_execution import ContinueExecutionCache

    forwards = [module.forward for module in model.modules()]
    for code in {forward.__code__ for forward in forwards if hasattr(forward, "__code__")}:
        _renew(code, ContinueExecutionCache.cache, reset_code)


def _renew(code, resumed, reset_code):
    """Drops what was compiled of a function and of its parts after graph breaks, which are functions of their own."""
    reset_code(code)
    for part in resumed[code].values() if code in resumed else ():
        _renew(part, resumed, reset_code)


def uncompiled():
    """A context in which compiled models run as they are written: to look at them costs no recompilation."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def as_written(model: nn.Module) -> nn.Module:
    """The module inside of `torch.compile(module)`; any other as it is."""
    return getattr(model, "_orig_mod", model)
