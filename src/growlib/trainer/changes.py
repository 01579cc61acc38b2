"""StructuralChanges: how a run changes its model: priced first, made alike on all ranks, recorded after."""

import copy
from contextlib import contextmanager
from dataclasses import replace

from torch import nn

from growlib import parallel
from growlib.growth import Change
from growlib.layers import sparse_layers


class StructuralChanges:
    """What a Trainer can do to the structure of its model."""

    proposal = None  # tells the change that a trigger is asked about: function, name of the layer, settings

    def change(self, function, hidden, *settings, cause: str = "", **named) -> Change:
        """Makes a structural change under the budget, and records it.

        Args:
            function: `widen`, `prune`, or another that returns a Change.
            hidden: A Hidden of the model, or its name.
            settings, named: For the function, after the model and the hidden layer.
            cause: Why.
        """
        name = hidden if isinstance(hidden, str) else hidden.name
        if self.budget is not None and not parallel.rank():
            action = f"{function.__name__}(model, {name!r}, {', '.join(map(repr, settings))})"
            self.budget.refuse(self.trial(function, name, *settings), action)
        return self.tell(function, name, *settings, cause=cause, **named)

    def trial(self, function, name: str, *settings) -> nn.Module:
        """The model as a change would make it, without its values: what the change would cost."""
        model = copy.deepcopy(self.model)
        model = model if sparse_layers(model) else model.to("meta")  # where masks would have no values to count
        function(model, name, *settings)
        return model

    @contextmanager
    def proposing(self, proposal):
        """Lets triggers ask what a change would cost, for a while.

        Args:
            proposal: Called without arguments: the function, the name of the layer, and the settings.
        """
        self.proposal = proposal
        try:
            yield
        finally:
            self.proposal = None

    def tell(self, function, *settings, cause: str = "", **named) -> Change | None:
        """Calls `function(model, *settings, optimizer=optimizer)`, of several processes on all of them.

        Args:
            function: Changes the model in place. A Change that it returns is recorded.
            settings: For the function, on all processes.
            cause: Of a Change.
            named: For the function, where the change is decided; the other processes take over what came of it.
        """
        order = (function, settings, cause)
        return self.make(parallel.agreed() if parallel.rank() else order, **named)

    def make(self, order: tuple, **named) -> Change | None:
        """Does what rank 0 has decided; its values count."""
        function, settings, cause = order
        with parallel.together(self.model, self.optimizer):
            change = function(self.model, *settings, optimizer=self.optimizer, **named)
            if not parallel.rank():
                parallel.agreed(order)
        self.forget_model()
        if change is None:
            return None
        change = replace(change, step=self.step, cause=cause)
        self.history.changes.append({**change.record(), "epoch": self.epoch})
        return change
