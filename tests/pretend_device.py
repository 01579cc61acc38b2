"""A pretended accelerator: it computes on the CPU, and everything that is an error on a GPU is an error on it.

Importing this module registers the device "pretend" with torch, for the whole process and for good: only a process of
its own should do so (see test_on_a_device.py). A tensor of the device has the sizes, strides and offset of a tensor on
the CPU, and its storage knows that one's storage: so views, saved tensors and checkpoints need no care of their own.

What it holds code to, as CUDA does:

- tensors of two devices do not meet, except numbers without dimensions in pointwise operations, and indices;
- a generator belongs to a device, and the device draws from a generator of its own;
- operations that CUDA does not have, or that come from outside of torch, do not fall back to the CPU in silence;
- NumPy cannot look at its tensors, and bfloat16 is used under autocast.

One fault of a GPU goes unseen: an operation on the CPU takes a generator of the device.
"""

from contextlib import contextmanager, nullcontext

import torch
from torch.utils import _pytree as tree
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "pretend"
META = torch._C.DispatchKeySet(torch._C.DispatchKey.Meta)  # whose kernels of views ask for sizes only
PLACE = torch.ops.aten.set_.source_Storage_storage_offset
VIEWS = "as_strided", "view", "_reshape_alias", "unfold", "set_.source_Storage_storage_offset"
INDEXED = {"index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_"}  # take indices from the CPU
NUMBERED = {"masked_fill", "masked_fill_", "index_fill", "index_fill_", "where"}  # take numbers from the CPU
LOWERED = "linear", "matmul", "mm", "addmm", "bmm", "baddbmm", "conv1d", "conv2d"  # by autocast
RAISED = "log_softmax.int", "softmax.int", "nll_loss", "mse_loss", "layer_norm", "group_norm", "prod", "cumsum"


class Generator(torch.Generator):
    """A generator of the CPU, or one of the device, which gives the same numbers."""

    ours = set()  # by their addresses: a kernel sees another Python object

    def __new__(cls, device="cpu"):
        here = str(device).partition(":")[0] == NAME
        made = super().__new__(cls, "cpu" if here else device)
        (cls.ours.add if here else cls.ours.discard)(made._cdata)
        return made


class Module(_DummyBackendModule):
    """What `torch.get_device_module("pretend")` answers."""

    def __init__(self):
        self.generator = Generator(NAME)

    def get_amp_supported_dtype(self):
        return [torch.bfloat16]

    def manual_seed_all(self, seed):
        self.generator.manual_seed(seed)

    def get_rng_state(self, device=NAME):
        return self.generator.get_state()

    def set_rng_state(self, state, device=NAME):
        self.generator.set_state(state)


def is_far(value) -> bool:
    return isinstance(value, torch.Tensor) and value.device.type == NAME


def near(value):
    """The tensor on the CPU behind one of the device; anything else as it is."""
    if not is_far(value):
        return value
    storage = value.untyped_storage().near
    return torch.empty(0, dtype=value.dtype).set_(storage, value.storage_offset(), value.shape, value.stride())


def far(tensor: torch.Tensor, storage=None) -> torch.Tensor:
    """A tensor of the device that stands for one on the CPU.

    Args:
        tensor: On the CPU.
        storage: Of the device, where the tensor is a view into it.
    """
    if tensor.layout != torch.strided:
        raise NotImplementedError(f"{NAME}: no tensors of layout {tensor.layout}")
    made = torch._C._acc.create_empty_tensor((0,), tensor.dtype)
    if storage is None:
        storage = made.untyped_storage()
        storage.near = tensor.untyped_storage()
    return placed(made, tensor, storage)


def placed(made: torch.Tensor, tensor: torch.Tensor, storage) -> torch.Tensor:
    """Gives a tensor of the device the sizes, strides and offset of one on the CPU."""
    return PLACE.redispatch(META, made, storage, tensor.storage_offset(), tensor.shape, tensor.stride())


def fallback(op, *args, **kwargs):
    """The kernel of every operation that has none of its own."""
    refuse_uncovered(op)
    return compute(op, *args, **kwargs)


def compute(op, *args, **kwargs):
    """The CPU's kernel, for tensors of the device only."""
    tensors = [value for value in tree.tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
    refuse_strangers(op, args, tensors)
    target = torch.device(kwargs.get("device") or NAME).type
    if "device" in kwargs:
        kwargs = {**kwargs, "device": "cpu", "pin_memory": None}
    refuse_generator(op, kwargs.get("generator"))
    pairs = [(value, near(value)) for value in tensors if is_far(value)]
    args, kwargs = closer(numbers_as_tensors(op, args, tensors), pairs), closer(kwargs, pairs)
    with own_draws() if torch.Tag.nondeterministic_seeded in op.tags else nullcontext():
        found = op(*args, **kwargs)
    return found if target == "cpu" else tree.tree_map(lambda value: wrapped(value, pairs), found)


def closer(arguments, pairs):
    """The arguments with the tensors on the CPU in place of those of the device."""
    known = {id(argument): close for argument, close in pairs}
    return tree.tree_map(lambda value: known.get(id(value), value), arguments)


def numbers_as_tensors(op, args, tensors) -> list:
    """The arguments with tensors where the operation takes only tensors, and was given Python's numbers."""
    kinds = [str(argument.type) for argument in op._schema.arguments]
    return [
        torch.tensor(value, dtype=torch.result_type(tensors[0], value))
        if kind == "Tensor" and isinstance(value, (bool, int, float))
        else value
        for kind, value in zip(kinds, args, strict=False)
    ]


def wrapped(value, pairs):
    """What comes back to the device: an argument itself, a view of an argument, or something new."""
    if not isinstance(value, torch.Tensor):
        return value
    for argument, close in pairs:
        if value is close:
            return argument if value.shape == argument.shape else placed(argument, value, argument.untyped_storage())
    for argument, close in pairs:
        if value.untyped_storage()._cdata == close.untyped_storage()._cdata:
            return far(value, argument.untyped_storage())
    return far(value)


def refuse_uncovered(op):
    """Raises for what would run on the CPU only."""
    name = op._schema.name
    known = name.startswith("aten::") and not any(word in name for word in ("sparse", "mkldnn", "_for_cpu"))
    if known and torch.backends.cuda.is_built():
        known = torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), "CUDA")
    if not known:
        raise NotImplementedError(f"{NAME}: {name} has no kernel for this device")


def refuse_strangers(op, args, tensors):
    """Raises where a tensor of the CPU meets one of the device."""
    name = op._schema.name.removeprefix("aten::")
    strangers = [value for value in tensors if not is_far(value)]
    if torch.Tag.pointwise in op.tags or name in NUMBERED or name.startswith("_foreach"):
        strangers = [value for value in strangers if value.ndim]
    if name in INDEXED and is_far(args[0]):
        indices = {id(index) for index in args[1]}
        strangers = [value for value in strangers if id(value) not in indices]
    if strangers:
        raise RuntimeError(
            f"{NAME}: {name} expected all tensors to be on the same device, and one of shape "
            f"{tuple(strangers[0].shape)} is on {strangers[0].device}"
        )


def refuse_generator(op, generator):
    """Raises for a generator of the CPU."""
    if generator is not None and generator._cdata not in Generator.ours:
        raise RuntimeError(f"{NAME}: {op._schema.name} expected a generator of this device, and got one of the CPU")


@contextmanager
def own_draws():
    """What draws from torch's default generator draws from that of the device."""
    before = torch.get_rng_state()
    torch.set_rng_state(MODULE.generator.get_state())
    yield
    MODULE.generator.set_state(torch.get_rng_state())
    torch.set_rng_state(before)


def copy_(target, source, non_blocking=False):
    near(target).copy_(near(source))
    return target


def empty(size, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
    return far(torch.empty(size, dtype=dtype, device="cpu", memory_format=memory_format or torch.contiguous_format))


def empty_strided(size, stride, *, dtype=None, layout=None, device=None, pin_memory=None):
    return far(torch.empty_strided(size, stride, dtype=dtype, device="cpu"))


def convolution(*args):
    return compute(torch.ops.aten.convolution.default, *args)


def convolution_backward(slopes, inputs, weight, *settings):
    return compute(torch.ops.aten.convolution_backward.default, slopes, inputs, weight, weight.shape[:1], *settings)


def apply(module, *args, **kwargs):
    """`Module._apply`, on which `to` relies: Parameters stay the same objects, as they do for devices torch knows."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        return APPLY(module, *args, **kwargs)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def clone(storage):
    """`UntypedStorage.clone`, by which `copy.deepcopy` copies buffers."""
    return far(torch.empty(0, dtype=torch.uint8).set_(storage.near.clone())).untyped_storage()


def patch(owner, name: str, ours):
    """Replaces a method of torch's storages for those of the device: torch would look for their memory."""
    theirs = getattr(owner, name)
    setattr(owner, name, lambda self, *args: (ours if self.device.type == NAME else theirs)(self, *args))


def operation(name: str):
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def by_meta(op):
    return lambda *args, **kwargs: op.redispatch(META, *args, **kwargs)


def under_autocast(op, dtype):
    """The kernel of autocast: floats become of a type, and the operation runs as it is."""

    def cast(value):
        kind = getattr(value, "dtype", None)
        return value.to(dtype) if kind in (torch.float32, torch.bfloat16) else value

    def kernel(*args, **kwargs):
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)):
            return op(*tree.tree_map(cast, args), **tree.tree_map(cast, kwargs))

    return kernel


def register():
    """Tells torch of the device; returns what must be kept alive."""
    _setup_privateuseone_for_python_backend(NAME, MODULE)
    torch.Generator, torch.nn.Module._apply = Generator, apply
    patch(torch.UntypedStorage, "clone", clone)
    patch(torch.UntypedStorage, "cpu", lambda storage: storage.near.clone())
    patch(torch.UntypedStorage, "data_ptr", lambda storage: storage.near.data_ptr())
    everything, aten = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    everything.fallback(fallback, "PrivateUse1")
    everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    own = {
        "copy_": copy_,
        "empty.memory_format": empty,
        "empty_strided": empty_strided,
        "convolution_overrideable": convolution,
        "convolution_backward_overrideable": convolution_backward,
        **{name: by_meta(operation(name)) for name in VIEWS},
    }
    for name, kernel in own.items():
        aten.impl(name, kernel, "PrivateUse1")
    for names, dtype in ((LOWERED, torch.bfloat16), (RAISED, torch.float32)):
        for name in names:
            aten.impl(name, under_autocast(operation(name), dtype), "AutocastPrivateUse1")
    return everything, aten


APPLY, MODULE = torch.nn.Module._apply, Module()
KEPT = register()
