"""CsrLinear: a linear layer that stores, computes and learns its connections only, by compressed sparse rows."""

import time
import warnings
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.optim import SGD, Optimizer
from torch.utils.flop_counter import flop_registry, register_flop_formula

from growlib.growth.journal import all_or_nothing
from growlib.growth.surgery import TensorReplacer
from growlib.growth.tensors import take_or_fill
from growlib.layers import GrowLinear, Sparse, take_shape
from growlib.sparsity.masked import SparseLinear

BACKENDS = "masked", "csr", "auto"
DTYPES = (torch.float32, torch.float64)  # of torch.sparse.sampled_addmm on CPU

with warnings.catch_warnings():  # torch says once, at the first of them, that CSR tensors are in beta
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 0], [], [], (1, 0))


class CsrLinear(Sparse, GrowLinear):
    """A linear layer of which some connections are absent, and are not stored either. On CPU only.

    The trainable parameter is `values`, (connections,), row by row as in the weight: so the gradient and what an
    optimizer remembers have a number a connection too, and an optimizer that looks at a weight's shape (Adafactor,
    Muon) sees a vector. The wiring lies beside it: `columns`, (connections,), the input of every connection, and
    `starts`, (outputs + 1,), where each row begins. Where gradients flow to the inputs, the transposed wiring is kept
    too. That is 4 or 12 bytes a connection.

    Reading `weight` or `mask` computes a dense tensor. Results are those of SparseLinear up to rounding.
    """

    @classmethod
    @torch.no_grad()
    def of(cls, layer: nn.Linear, mask: Tensor) -> "CsrLinear":
        """Turns a linear layer into one of these connections, the same object with the same bias.

        Args:
            layer: Dense or masked. Its weight is no parameter any more: make the optimizer afterwards.
            mask: Boolean, weight-shaped.
        """
        weight = layer._parameters.pop("weight")
        bias = layer._parameters.pop("bias")
        layer._buffers.pop("mask", None)
        layer.__class__ = cls
        layer.register_parameter("values", nn.Parameter(weight[mask], weight.requires_grad))
        layer.register_parameter("bias", bias)
        layer._store(mask.flatten().nonzero()[:, 0])
        return layer

    @property
    def places(self) -> Tensor:
        """The flat indices of the connections in the weight, ascending: (connections,)."""
        rows = torch.arange(self.out_features, device=self.starts.device).repeat_interleave(self.starts.diff())
        return rows * self.in_features + self.columns

    @property
    def mask(self) -> Tensor:
        """True where there is a connection, (outputs, inputs)."""
        flat = torch.zeros(self.out_features * self.in_features, dtype=torch.bool, device=self.starts.device)
        return flat.index_fill_(0, self.places, True).view(self.out_features, self.in_features)

    @property
    def weight(self) -> Tensor:
        """The weight with its zeros, (outputs, inputs)."""
        flat = self.values.new_zeros(self.out_features * self.in_features).index_copy(0, self.places, self.values)
        return flat.view(self.out_features, self.in_features)

    @torch.no_grad()
    def wire(self, mask: Tensor, optimizer=None):
        """Makes these the connections: those that stay keep all they have, new ones start at zero.

        Args:
            mask: Boolean, weight-shaped.
            optimizer: In use; what it knows of a connection goes with the connection, and starts anew with a new one.
        """
        before, after = self.places, mask.flatten().nonzero()[:, 0]
        found = torch.searchsorted(before, after).clamp_max(len(before) - 1)
        origin = torch.where(before[found] == after, found, -1)
        with all_or_nothing(self, optimizer):
            replacer = TensorReplacer(self, optimizer)
            replacer.put(self.values, take_or_fill(self.values, 0, origin), {0: origin})
            replacer.write()
            self._store(after)

    def forward(self, inputs: Tensor) -> Tensor:
        self._refuse_unfit(inputs)
        with torch.autocast("cpu", enabled=False):
            examples = inputs.to(self.values.dtype).reshape(-1, self.in_features)
            transposed = self._transposed() if torch.is_grad_enabled() and examples.requires_grad else None
            wiring = self.starts, self.columns, (self.out_features, self.in_features)
            outputs = _Product.apply(examples.t(), self.values, self.bias, wiring, transposed).t()
        if inputs.ndim != 2:  # a matrix stays transposed in memory, as the next CsrLinear wants it
            outputs = outputs.reshape(*inputs.shape[:-1], self.out_features).contiguous()
        return outputs  # (..., outputs)

    def _store(self, places: Tensor):
        rows = places.div(self.in_features, rounding_mode="floor")
        self.register_buffer("columns", (places % self.in_features).int())
        self.register_buffer("starts", _starts(rows, self.out_features))
        self._forget_transposed()

    def _forget_transposed(self):
        for name in ("rows", "column_starts", "order"):
            self.register_buffer(name, None, persistent=False)

    def _transposed(self) -> tuple:
        """The wiring column by column, and where each of its values lies in `values`; made when first needed."""
        if self.order is None:
            rows = self.places.div(self.in_features, rounding_mode="floor")
            order = self.columns.argsort(stable=True)
            self.rows, self.order = rows[order].int(), order.int()
            self.column_starts = _starts(self.columns, self.in_features)
        return self.column_starts, self.rows, (self.in_features, self.out_features), self.order

    def _refuse_unfit(self, inputs: Tensor):
        if self.values.device.type != "cpu":
            raise RuntimeError(
                f"CsrLinear runs on CPU only, and is on {self.values.device}: sparsify with backend='masked' there, or "
                "pass device='cpu' to the Trainer"
            )
        if self.values.dtype not in DTYPES:
            raise TypeError(f"CsrLinear computes in float32 or float64, and its values are {self.values.dtype}")
        if inputs.dtype != self.values.dtype and not torch.is_autocast_enabled("cpu"):
            raise TypeError(f"the inputs are {inputs.dtype}, and the values of this CsrLinear {self.values.dtype}")
        if inputs.shape[-1:] != (self.in_features,):
            raise ValueError(f"this CsrLinear takes {self.in_features} inputs, and got {tuple(inputs.shape)}")

    def _load_from_state_dict(self, state, prefix, *rest):
        saved = [state.get(prefix + name) for name in ("starts", "columns", "values")]
        if all(map(torch.is_tensor, saved)):
            torch.sparse_csr_tensor(*saved, (len(saved[0]) - 1, self.in_features), check_invariants=True)
            if saved[0].shape == self.starts.shape and saved[2].shape != self.values.shape:
                for name, tensor in zip(("columns", "values"), saved[1:], strict=True):
                    take_shape(getattr(self, name), tensor, [(self, name)])
        super()._load_from_state_dict(state, prefix, *rest)
        self._forget_transposed()


class _Product(torch.autograd.Function):
    """The product of a CSR weight with dense columns, whose gradients are products of CSR weights as well.

    torch's own gradient of a CSR weight is dense, or is made by way of a sort in every step.
    """

    @staticmethod
    def forward(ctx, inputs, values, bias, wiring, transposed):
        inputs = inputs.contiguous()  # (inputs, B)
        ctx.save_for_backward(inputs, values)
        ctx.wiring, ctx.transposed = wiring, transposed
        outputs = _times(wiring, values, inputs)  # (outputs, B)
        return outputs if bias is None else outputs.add_(bias[:, None])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        inputs, values = ctx.saved_tensors
        gradient = gradient.contiguous()  # (outputs, B)
        wanted, found = ctx.needs_input_grad, [None] * 5
        if wanted[0]:
            *wiring, order = ctx.transposed
            found[0] = _times(wiring, values.index_select(0, order), gradient)
        if wanted[1]:
            zeros = _csr(ctx.wiring, torch.zeros_like(values))
            found[1] = torch.sparse.sampled_addmm(zeros, gradient, inputs.t()).values()
        if wanted[2]:
            found[2] = gradient.sum(1)
        return tuple(found)


def _csr(wiring, values: Tensor) -> Tensor:
    starts, columns, size = wiring
    return torch.sparse_csr_tensor(starts, columns, values, size, check_invariants=False)


def _times(wiring, values: Tensor, dense: Tensor) -> Tensor:
    """The product as torch's own kernel does it: unlike that of MKL it exists on every platform."""
    return torch.sparse.mm(_csr(wiring, values), dense, "sum")


def _starts(sorted_rows: Tensor, count: int) -> Tensor:
    starts = torch.zeros(count + 1, dtype=torch.int32, device=sorted_rows.device)
    starts[1:] = sorted_rows.bincount(minlength=count).cumsum(0)
    return starts


def _flops(weight: Tensor, dense: Tensor, *rest, out_val=None, **named) -> int:
    """Two a connection and example: what a CSR layer does in any of its three products."""
    return 2 * weight._nnz() * dense.shape[1]


for _product in (torch.ops.aten._sparse_mm_reduce_impl, torch.ops.aten.sparse_sampled_addmm):
    if _product not in flop_registry:  # of a later torch
        register_flop_formula(_product, get_raw=True)(_flops)


@cache
def faster(inputs: int, outputs: int, connections: int, batch_size: int = 128, rounds: int = 5) -> str:
    """The backend that makes the faster training step for a linear layer on this machine, as it is now: measured once.

    Args:
        inputs: Of the layer.
        outputs: Of the layer.
        connections: Of the layer, spread at random here.
        batch_size: Examples a step.
        rounds: Steps of either that are timed, in turn; the fastest counts, for whatever else runs only adds to it.

    Returns:
        "csr" or "masked".
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.default_generator.manual_seed(0)  # of the CPU alone
        mask = torch.zeros(outputs * inputs, dtype=torch.bool)
        mask[torch.randperm(len(mask))[:connections]] = True
        mask = mask.view(outputs, inputs)
        masked = SparseLinear(inputs, outputs)
        masked.register_buffer("mask", mask)
        layers = {"csr": CsrLinear.of(GrowLinear(inputs, outputs), mask), "masked": masked}
        examples, slopes = torch.randn(batch_size, inputs, requires_grad=True), torch.randn(batch_size, outputs)
    steps = {
        name: partial(_step, layer, SGD(layer.parameters(), 1e-9, 0.9), examples, slopes)
        for name, layer in layers.items()
    }
    times = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    return min(times, key=lambda name: min(times[name][1:]))  # the first step warms up


def _step(layer: nn.Module, optimizer: Optimizer, examples: Tensor, slopes: Tensor):
    with torch.enable_grad():
        layer(examples).backward(slopes)
    optimizer.step()
    optimizer.zero_grad()


def to_store(name: str, layer: nn.Module, connections: int, backend: str, optimizer=None) -> bool:
    """Whether sparsify has to make a layer a CsrLinear.

    Args:
        name: Of the layer.
        layer: Dense or sparse.
        connections: That it will have.
        backend: "masked", "csr" or "auto".
        optimizer: In use, or None.

    Raises:
        ValueError: For an unknown backend, an optimizer that holds the weight, or "csr" where that is impossible.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r} must be one of {', '.join(map(repr, BACKENDS))}")
    if backend == "masked" or isinstance(layer, CsrLinear) or not isinstance(layer, nn.Linear):
        return False
    if optimizer is not None:
        raise ValueError(
            f"cannot store layer {name!r} by its connections while an optimizer holds its weight: sparsify with "
            f"backend={backend!r} before the optimizer is made, or with backend='masked'"
        )
    fit = layer.weight.dtype in DTYPES and layer.weight.device.type == "cpu"
    if backend == "csr" and not fit:
        raise ValueError(
            f"layer {name!r} is {layer.weight.dtype} on {layer.weight.device}, and CSR layers are float32 or float64 "
            "on CPU: use backend='masked'"
        )
    return fit and (backend == "csr" or faster(layer.in_features, layer.out_features, connections) == "csr")


def match_csr(model: nn.Module, wanted: dict[str, list[str]]):
    """Makes the layers of a model CSR layers that are so in a checkpoint, ready to load their connections.

    Args:
        model: Any module.
        wanted: What `describe_sparse` gave: for every sparse layer its buffers.
    """
    for name, buffers in wanted.items():
        layer = model.get_submodule(name)
        if "columns" not in buffers and isinstance(layer, CsrLinear):
            raise ValueError(f"layer {name!r} is masked in the checkpoint, and CSR in the model: pass a dense model")
        if "columns" in buffers and not isinstance(layer, CsrLinear):
            CsrLinear.of(layer, torch.zeros_like(layer.weight, dtype=torch.bool))
