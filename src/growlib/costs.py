"""What a model costs at a moment: parameters, FLOPs, memory; and budgets."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

from growlib.layers import evaluating, flat, sparse_layers, tensors_in, uncompiled


def parameters(model: nn.Module) -> int:
    """The number of parameters, frozen ones too; of a sparse weight its connections."""
    absent = {layer.weight: int((~layer.mask).sum()) for layer in sparse_layers(model).values()}
    return sum(parameter.numel() - absent.get(parameter, 0) for parameter in model.parameters())


def flops(model: nn.Module, *task) -> int | None:
    """Floating-point operations of one forward pass of one example, as they are done: matrix products and convolutions,
    2 a multiply-add. CsrLinear does them for its connections only; SparseLinear and SparseConv2d for all weights, their
    zeros too. None for a model without an `input_shape`. A model that knows tasks may be asked about one.

    Raises:
        ValueError: For a model that does not run on an example of its `input_shape`.
    """
    return _counted(model, *task, backward=False)


def training_flops(model: nn.Module) -> int | None:
    """Floating-point operations of one forward and backward pass of one example, counted as in `flops`. None too for a
    model that does not run on an example of its `input_shape`: a user's attribute may mean something else."""
    try:
        return _counted(model, backward=True)
    except ValueError:
        return None


def _counted(model: nn.Module, *task, backward: bool) -> int | None:
    if (inputs := example(model, 1)) is None:
        return None
    args, kwargs = inputs
    counter = FlopCounterMode(display=False)
    try:
        with evaluating(model), uncompiled(), torch.set_grad_enabled(backward), counter:
            total = flat(model(*args, *task, **kwargs)).sum()
            if backward and total.requires_grad:
                trained = [p for p in model.parameters() if p.requires_grad]
                torch.autograd.grad(total, trained, allow_unused=True)
    except Exception as error:
        told = ", ".join(f"{tuple(tensor.shape[1:])} of {tensor.dtype}" for tensor in tensors_in(inputs))
        raise ValueError(
            f"cannot count what {type(model).__name__} computes: it does not run on an example of its input_shape, "
            f"{told}: {error}. Set model.input_shape to the shape of one example "
            "(and model.input_dtype, of token ids torch.long), or delete it"
        ) from error
    return counter.get_total_flops()


def example(model: nn.Module, size: int, generator: torch.Generator | None = None) -> tuple[tuple, dict] | None:
    """Inputs of the kind that a model takes, as it tells: (args, kwargs), or None where it tells nothing.

    Args:
        model: With an `input_shape`, of one example, and an `input_dtype` if that is not the dtype of its weights.
            `growable` has noted the shape, where that name was taken, or kept examples, where a shape says too little.
        size: The number of examples.
        generator: Draws them; without it they are zeros. Kept ones are repeated.
    """
    tensor = next(iter(model.parameters()), None)
    if tensor is None:
        return None
    if hasattr(model, "_example"):
        return _repeated(model._example, size, tensor)
    shape = getattr(model, "_input_shape", getattr(model, "input_shape", None))
    dtype = getattr(model, "input_dtype", None)
    if not (isinstance(shape, (tuple, list)) and all(isinstance(size, int) for size in shape)):
        return None
    if isinstance(dtype, torch.dtype) and not dtype.is_floating_point:
        ids = [module.num_embeddings for module in model.modules() if isinstance(module, nn.Embedding)]
        most = min(ids, default=2) if generator else 1
        return (torch.randint(most, (size, *shape), generator=generator).to(tensor.device, dtype),), {}
    drawn = torch.randn(size, *shape, generator=generator) if generator else torch.zeros(size, *shape)
    return (drawn.to(tensor if tensor.is_floating_point() else tensor.device),), {}


def _repeated(example: tuple[tuple, dict], size: int, like: torch.Tensor) -> tuple[tuple, dict] | None:
    """Examples again and again, where the weights of a model are; None where it cannot be told which are one."""
    lengths = {len(value) for value in tree_leaves(example) if torch.is_tensor(value) and value.ndim}
    if len(lengths) != 1:
        return None

    def repeat(value):
        if not torch.is_tensor(value):
            return value
        value = value.to(like if value.is_floating_point() and like.is_floating_point() else like.device)
        return value[torch.arange(size, device=value.device) % len(value)] if value.ndim else value

    return tree_map(repeat, example)


def memory(model: nn.Module, optimizer: torch.optim.Optimizer, batch_size: int) -> dict[str, int]:
    """Bytes that a training step holds at its peak, part by part.

    Args:
        model: A model with an `input_shape`.
        optimizer: Its optimizer, after at least one step (it makes its state then).
        batch_size: Examples a step.

    Returns:
        parameters, gradients, optimizer, activations (what autograd keeps for the backward pass), buffers where there
        are any (masks, the wiring of CSR layers, running statistics), and their total.
    """
    weights = {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor.detach()  # an attached one would hold its own graph, and so the model, until the next collection

    with evaluating(model), uncompiled(), saved_tensors_hooks(keep, lambda tensor: tensor):
        args, kwargs = example(model, batch_size)
        outputs = model(*args, **kwargs)  # alive while its saved tensors are counted
    state = [v for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v)]
    bill = {
        "parameters": sum(p.nbytes for p in model.parameters()),
        "gradients": sum(p.nbytes for p in model.parameters() if p.requires_grad),
        "optimizer": sum(value.nbytes for value in state),
        "activations": sum(kept.values()) + sum(tensor.nbytes for tensor in tensors_in(outputs)),
    }
    if buffers := sum(buffer.nbytes for buffer in model.buffers()):
        bill["buffers"] = buffers
    return bill | {"total": sum(bill.values())}


@dataclass(frozen=True)
class Budget:
    """The most that a model may ever cost, for `Trainer(budget=)`.

    Args:
        parameters: Of the model, frozen ones too.
        flops: Floating-point operations of one forward pass of one example.
    """

    parameters: int | None = None
    flops: int | None = None

    def refuse(self, model: nn.Module, deed: str):
        """Raises a ValueError if the model costs more than the budget."""
        for name, limit, cost in (("parameters", self.parameters, parameters), ("flops", self.flops, flops)):
            if limit is None:
                continue
            if (price := cost(model)) is None:
                raise ValueError(
                    f"{type(model).__name__} has no input_shape, the shape of one example, so its {name} can't be "
                    "counted: give it one"
                )
            if price > limit:
                raise ValueError(
                    f"{deed} would need {price:,} {name}, and the budget is {limit:,}: nothing was changed. Raise the "
                    "budget, or let the trigger ask first: `when=... & within_budget(...)`"
                )
