"""growable: finds the widths of any model that torch.export takes, and proves all of them before it lists one."""

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from growlib.growth.inserted import name_of
from growlib.growth.units.search import Search
from growlib.layers import as_written, take_on_widths


def growable(model: nn.Module, *args, **kwargs) -> nn.Module:
    """Finds what can grow in a model, and proves it.

    The model is exported by torch.export, sizes are followed through its calls, and all widths that were found are
    tried at once, by their smallest steps: the calls must stay the same but for the sizes foretold, and the values at
    the places of the old units must stay what they were. What fails is refused, and the rest is tried again.

    Args:
        model: Any module that torch.export takes. Its tensors stay the same objects, so that an optimizer, hooks and
            other references stay valid.
        args: Its inputs, of the shapes that it takes.
        kwargs: Inputs by name.

    Returns:
        The same model. `hidden_of(model)` lists what can change (as `model.hidden` does, where that name was free),
        and `model.refused` tells why the rest cannot: {name of the module: reason}.

    Raises:
        ValueError: If torch.export cannot take it. Nothing has changed then.
        TypeError: For a DistributedDataParallel.
    """
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise TypeError(
            "a DistributedDataParallel holds on to the parameters it was built with: pass the model inside of it to "
            "growable, before it is wrapped"
        )
    written = as_written(model)
    args, kwargs = _two_examples(written, args, kwargs)
    search = Search(written, args, kwargs)
    search.run()
    for hidden in search.hidden:
        hidden.name = name_of(written, hidden.name)
    _note_widths(written, search)
    _note_example(written, args, kwargs)
    return model


def _two_examples(model: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Two examples, where the model is: a batch of one hides what is flattened."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    args, kwargs = tree_map(lambda v: v.detach().to(device) if torch.is_tensor(v) else v, (args, kwargs))
    sizes = {len(leaf) for leaf in tree_leaves((args, kwargs)) if torch.is_tensor(leaf) and leaf.ndim}
    if len(sizes) != 1 or sizes == {2}:
        return args, kwargs

    def two(value):
        if not torch.is_tensor(value) or not value.ndim:
            return value
        return torch.cat([value, value]) if len(value) == 1 else value[:2].clone()

    return tree_map(two, (args, kwargs))


def _note_widths(model: nn.Module, search: Search):
    before = getattr(model, "_hidden", None)
    if before is None:
        model.register_load_state_dict_pre_hook(take_on_widths)
    if getattr(model, "hidden", None) is before:  # none, or what was found the last time
        model.hidden = search.hidden
    model._hidden, model._table = search.hidden, search.table
    model.refused = {name_of(model, path): reason for path, reason in search.refused.items()}


def _note_example(model: nn.Module, args: tuple, kwargs: dict):
    """Lets a model tell what it takes: by the shape of one example, or by the examples themselves where that is not
    enough."""
    if kwargs or len(args) != 1 or not torch.is_tensor(args[0]):
        model._example = args, kwargs
        return
    vars(model).pop("_example", None)
    setattr(model, "_input_shape" if hasattr(model, "input_shape") else "input_shape", tuple(args[0].shape[1:]))
    if not args[0].is_floating_point():
        model.input_dtype = args[0].dtype
