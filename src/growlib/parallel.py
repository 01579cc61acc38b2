"""Many processes, one model: data-parallel training in which rank 0 decides and all ranks change together.

Start a script with `torchrun --nproc-per-node 2 script.py`, and call `torch.distributed.init_process_group()` in it:
then Trainer trains on all processes. In a single process the functions of this module do nothing.
"""

import hashlib
import os
import pickle
from collections.abc import Iterable
from contextlib import contextmanager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer


def world() -> int:
    """The number of processes that train together: 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among those that train together, from 0."""
    return dist.get_rank() if world() > 1 else 0


def device() -> torch.device:
    """CUDA, one GPU for each process of this machine, or else the CPU.

    Raises:
        RuntimeError: Under torchrun without a process group: every process would train a model of its own.
    """
    started = int(os.environ.get("WORLD_SIZE", 1)) if "TORCHELASTIC_RUN_ID" in os.environ else 1
    if started > world():
        raise RuntimeError(
            f"torchrun started {started} processes that do not know of each other: call "
            "torch.distributed.init_process_group() before the Trainer is made"
        )
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if world() > 1 else torch.device("cuda")


def portion(index: Tensor, size: int) -> tuple[Tensor, float]:
    """This process's part of a batch, and what its mean loss counts in the mean over all.

    Args:
        index: The examples of a forward pass, (B,).
        size: The examples of the whole step.

    Returns:
        Every world-th example from its rank on, and their share of `size`. Where there are fewer examples than
        processes, the first one and 0: it must take part in the averaging of gradients, and counts nothing.
    """
    mine = index[rank() :: world()]
    return (mine, len(mine) / size) if len(mine) else (index[:1], 0.0)


def wrap(model: nn.Module, wrapper: DistributedDataParallel | None = None) -> nn.Module:
    """The model in a DistributedDataParallel that fits its parameters as they are now.

    A wrapper holds on to the parameters that it was built with: it never hears of the gradients of those that took
    their places. Only the shapes decide what a new one costs: no weights are sent.

    Args:
        model: Equal on all ranks, see `equalize`.
        wrapper: The one before; it is returned where no parameter was replaced.
    """
    if world() == 1:
        return model
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if wrapper is not None and _same(wrapper.wrapped, parameters):
        return wrapper
    wrapper = DistributedDataParallel(model, init_sync=False)
    wrapper.wrapped = parameters
    return wrapper


def unsynced(wrapper: nn.Module, wanted: bool):
    """A context in which gradients stay on their rank: for all but the last of several backward passes a step."""
    return wrapper.no_sync() if wanted and world() > 1 else nullcontext()


class Replica:
    """A model as this rank's steps call it: in the wrapper that fits it, with what all ranks must agree on.

    Args:
        model: Perhaps compiled. All ranks get the weights of rank 0.
    """

    def __init__(self, model: nn.Module):
        self.model, self.wrapper, self.asked = model, None, False
        equalize(model)

    def __call__(self, *inputs):
        return self.wrapper(*inputs)

    def gradients(self, synced: bool):
        """A context for one of several forward and backward passes: only after the last do gradients meet."""
        self.wrapper = wrap(self.model, self.wrapper)
        return unsynced(self.wrapper, not synced)

    def totals(self, loss: Tensor, correct: Tensor, pressed, looks: bool) -> tuple[Tensor, Tensor]:
        """The loss and the number of right answers of all ranks; on the way, whether Ctrl-C was pressed on any.

        Args:
            loss: The mean of this rank's examples, weighted as `Batch.parts` says.
            correct: Right answers on this rank.
            pressed: True if Ctrl-C was pressed on this rank.
            looks: Whether to read, in this step, if it was on any: reading waits for the device.
        """
        if world() == 1:
            return loss, correct
        asked = torch.tensor(float(bool(pressed)), device=loss.device)
        loss, correct, asked = total(torch.stack([loss.float() / world(), correct.float(), asked]))
        self.asked = looks and bool(asked)
        return loss, correct


def _same(ones: list, others: list) -> bool:
    return len(ones) == len(others) and all(one is other for one, other in zip(ones, others, strict=True))


def equalize(model: nn.Module):
    """Gives all ranks the parameters and buffers of rank 0.

    Raises:
        ValueError: For ranks with different architectures.
    """
    if world() > 1:
        theirs = gathered({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})
        if other := sorted({name for shapes in theirs for name, _ in shapes.items() ^ theirs[0].items()}):
            raise ValueError(f"the ranks have different models: not of one shape, or missing, are {', '.join(other)}")
        share(model.state_dict().values())


@torch.no_grad()
def share(tensors: Iterable[Tensor]):
    """Gives all ranks the values of rank 0."""
    for tensor in tensors if world() > 1 else ():
        values = tensor.detach().contiguous()
        dist.broadcast(values, 0)
        if values.data_ptr() != tensor.data_ptr():
            tensor.detach().copy_(values)


@contextmanager
def together(model: nn.Module, optimizer: Optimizer | None = None):
    """A context for a structural change on all ranks: what it replaced takes rank 0's values, in the model and in the
    optimizer's state.

    Args:
        model: Not wrapped; every rank changes it in the same way (new units may be drawn differently).
        optimizer: Its optimizer.
    """
    before = [*model.parameters(), *model.buffers()] if world() > 1 else []  # held, so that no new tensor gets an id
    yield
    if world() > 1:
        known = {id(tensor) for tensor in before}
        fresh = [parameter for parameter in model.parameters() if id(parameter) not in known]
        states = [optimizer.state.get(parameter, {}) for parameter in fresh] if optimizer else []
        values = [v for state in states for _, v in sorted(state.items()) if torch.is_tensor(v) and v.ndim]
        share([*fresh, *values, *model.buffers()])


def agreed(value=None):
    """What rank 0 passes, on all ranks. None travels as a single number."""
    if world() == 1:
        return value
    place = torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
    data = pickle.dumps(value) if rank() == 0 and value is not None else b""
    size = torch.tensor([len(data)], device=place)
    dist.broadcast(size, 0)
    if not size.item():
        return None
    text = torch.frombuffer(bytearray(data or size.item()), dtype=torch.uint8).to(place)
    dist.broadcast(text, 0)
    return pickle.loads(text.cpu().numpy().tobytes())  # from a process of the same run


def total(values: Tensor) -> Tensor:
    """The sum over all ranks."""
    if world() > 1:
        dist.all_reduce(values)
    return values


def gathered(value) -> list:
    """The values of all ranks, on all of them."""
    values = [value] * world()
    if world() > 1:
        dist.all_gather_object(values, value)
    return values


def led(act, follow):
    """Runs `act` on rank 0, while the other ranks follow the orders that it gives through `agreed`.

    Args:
        act: Called on rank 0; it may call `agreed` any number of times, with anything but None.
        follow: Called on the other ranks, once for each of these.
    """
    if world() == 1:
        return act()
    if rank() == 0:
        try:
            act()
        except BaseException as error:
            agreed(Failure(f"{type(error).__name__}: {error}"))
            raise
        return agreed(None)
    while (order := agreed()) is not None:
        if isinstance(order, Failure):
            raise RuntimeError(f"rank 0 failed: {order}")
        follow(order)


class Failure(str):
    """What went wrong on rank 0."""


def fingerprint(model: nn.Module, optimizer: Optimizer | None = None) -> str:
    """A hash of every bit of a model and of its optimizer's state: equal on two ranks if they are equal."""
    digest = hashlib.sha256()
    states = optimizer.state if optimizer else {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        entries = [("", tensor), *sorted(states.get(tensor, {}).items())]
        for key, value in entries:
            value = torch.as_tensor(value).detach().cpu().contiguous()
            bits = value.flatten().view(torch.uint8).numpy().tobytes()
            digest.update(f"{name} {key} {tuple(value.shape)}".encode() + bits)
    return digest.hexdigest()[:16]
