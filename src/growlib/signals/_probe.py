"""Probe: what one batch of training data shows of every layer, gathered once for all signals and inits."""

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from growlib.layers import Hidden, evaluating, uncompiled


class Probe:
    """One training batch, and what every layer with weights does with it.

    Nothing is computed before it is asked for; then one forward and one backward pass see it all, in eval mode, so that
    training goes on as if nobody had looked: no random number is drawn, no running statistic and no `.grad` changes.
    A probe belongs to the model as it is now: make a new one after a step or a change.

    Args:
        model: Any module.
        inputs: The batch, (B, ...).
        labels: Its labels, (B,).
        loss: Of (logits, labels) to a mean over examples.
        optimizer: Asked by signals about steps.
    """

    def __init__(self, model: nn.Module, inputs: Tensor, labels: Tensor, loss=cross_entropy, optimizer=None):
        self.model, self.inputs, self.labels, self._loss = model, inputs, labels, loss
        self.optimizer, self._kept = optimizer, {}

    @property
    def loss(self) -> Tensor:
        """The loss of the batch, a number."""
        return self._gathered[1]

    def inputs_of(self, module: nn.Module) -> Tensor:
        """What a layer reads. If it is called several times, the batches of all calls follow one another."""
        return self._seen(module)[0]

    def outputs_of(self, module: nn.Module) -> Tensor:
        """What a layer puts out."""
        return self._seen(module)[1]

    def gradient_of(self, module: nn.Module) -> Tensor:
        """The gradient of the loss with respect to what a layer puts out."""
        return self._seen(module)[2]

    def input_gradient(self, module: nn.Module) -> Tensor:
        """The gradient of the loss with respect to what a layer reads, by way of this layer alone.

        Costs the layer's passes anew.
        """
        inputs = self.inputs_of(module).clone().requires_grad_()
        return self._again(module, inputs, {}, inputs)

    def weight_gradient(self, module: nn.Module) -> Tensor:
        """The gradient of the loss with respect to a layer's weight, frozen or not.

        Costs the layer's passes anew.
        """
        if "weight" not in module._parameters:
            raise ValueError(
                f"{_called(module)} has no weight tensor to take the gradient of: sparsify with backend='masked', and "
                "where no plain layer holds the weights look at these alone, as `magnitude` does"
            )
        weight = module.weight.detach().requires_grad_()
        return self._again(module, self.inputs_of(module), {"weight": weight}, weight)

    def once(self, name: str, about, compute: Callable):
        """What a computation found the first time that it was asked for, so that signals share their work.

        Args:
            name: Of the computation.
            about: What else it depends on; hashable.
            compute: Called without arguments.
        """
        if (name, about) not in self._kept:
            self._kept[name, about] = compute()
        return self._kept[name, about]

    def pre(self, hidden: Hidden) -> Tensor:
        """The units before their activation, (B, width, ...): what the last of the producers and norms puts out."""
        module, columns = self._last(hidden)
        return by_unit(self.outputs_of(module), module, columns)

    def gradient(self, hidden: Hidden) -> Tensor:
        """The gradient of the loss with respect to `pre`, (B, width, ...)."""
        module, columns = self._last(hidden)
        return by_unit(self.gradient_of(module), module, columns)

    def post(self, hidden: Hidden) -> Tensor:
        """The units as the first consumer reads them, (B, width, ...)."""
        seen = self._gathered[0]
        consumer = next((layer for layer in hidden.consumers if layer in seen), hidden.consumers[0])
        return by_unit(self.inputs_of(consumer), consumer, hidden.columns(consumer))

    def _again(self, module: nn.Module, inputs: Tensor, tensors: dict, about: Tensor) -> Tensor:
        """The gradient with respect to something that takes part in the work of one layer."""
        with evaluating(module), torch.enable_grad():
            outputs = functional_call(module, tensors, inputs)
        return torch.autograd.grad(outputs, about, self.gradient_of(module))[0]

    def _last(self, hidden: Hidden):
        makers = {*hidden.producers, *hidden.norms}
        module = ([module for module in self._gathered[0] if module in makers] or hidden.producers)[-1]
        if module in hidden.producers:
            return module, hidden.places(hidden.entry(module, "producer"))
        return module, hidden.columns(module)

    def _seen(self, module: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        seen = self._gathered[0]
        if module not in seen:
            raise ValueError(
                f"the model did not call {_called(module)} on this batch, as a layer with a weight: the probe knows "
                "nothing of it"
            )
        return seen[module]

    @cached_property
    def _gathered(self) -> tuple[dict, Tensor]:
        calls = []

        def watch(module, inputs, outputs):
            if not torch.is_tensor(outputs):
                return None
            if not outputs.requires_grad:  # of frozen layers
                outputs = outputs.detach().requires_grad_()
            calls.append((module, inputs[0].detach(), outputs))
            return outputs.clone()  # for an activation that works in place

        hooks = [m.register_forward_hook(watch) for m in self.model.modules() if hasattr(m, "weight")]
        try:
            with evaluating(self.model), uncompiled(), torch.enable_grad():
                loss = self._loss(self.model(self.inputs), self.labels)
        finally:
            for hook in hooks:
                hook.remove()
        outputs = [call[2] for call in calls]
        gradients = torch.autograd.grad(loss, outputs, allow_unused=True, materialize_grads=True) if outputs else ()
        seen = {}
        for (module, read, written), gradient in zip(calls, gradients, strict=True):
            seen.setdefault(module, []).append((read, written.detach(), gradient))
        return {
            module: tuple(map(torch.cat, zip(*found, strict=True))) for module, found in seen.items()
        }, loss.detach()


def _called(module: nn.Module) -> str:
    return f"{module}" if isinstance(module, nn.Module) and not list(module.children()) else type(module).__name__


def by_unit(values: Tensor, module: nn.Module, columns: Tensor) -> Tensor:
    """The features `columns`, (width, spread), of a layer's inputs or outputs: (B, width, ...)."""
    if isinstance(module, (nn.Linear, nn.LayerNorm)):
        values = values.movedim(-1, 1)
    values = values.index_select(1, columns.flatten().to(values.device)).unflatten(1, columns.shape)
    return values.squeeze(2)  # (B, width, spread, ...), without a spread of 1
