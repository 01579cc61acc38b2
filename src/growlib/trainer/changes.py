"""StructuralChanges: how a run changes its model: priced first, made alike on all ranks, recorded after."""

from contextlib import contextmanager
from dataclasses import replace

from growlib import costs, parallel
from growlib.growth import Change
from growlib.growth.journal import all_or_nothing, for_a_while


class StructuralChanges:
    """What a Trainer can do to the structure of its model."""

    proposal = None  # tells the change that a trigger is asked about: function, name of the layer, settings

    def change(self, function, hidden, *settings, cause: str = "", check=None, **named) -> Change:
        """Makes a structural change under the budget, and records it.

        Whatever raises, the check too: model, optimizer and history are as before.

        Args:
            function: `widen`, `prune`, or another that returns a Change.
            hidden: A Hidden of the model, or its name.
            settings, named: For the function, after the model and the hidden layer.
            cause: Why.
            check: Called with the Change; it raises if that must not be.
        """
        name = hidden if isinstance(hidden, str) else hidden.name
        if self.budget is not None and not parallel.rank():
            action = f"{function.__name__}(model, {name!r}, {', '.join(map(repr, settings))})"
            with self.trial(function, name, *settings) as model:
                self.budget.refuse(model, action)
        return self.tell(function, name, *settings, cause=cause, check=check, **named)

    @contextmanager
    def trial(self, function, name: str, *settings):
        """The model as a change would leave it, for a while: to ask what it would cost."""
        with for_a_while(self.model):
            function(self.model, name, *settings)
            yield self.model

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
            named: For the function, where the change is decided; the other processes take over what came of it. And
                `check`, see `change`.
        """
        order = (function, settings, cause)
        return self.make(parallel.agreed() if parallel.rank() else order, **named)

    def make(self, order: tuple, check=None, **named) -> Change | None:
        """Does what rank 0 has decided, wholly or not at all; its values count."""
        function, settings, cause = order
        try:
            with (
                parallel.together(self.model, self.optimizer),
                all_or_nothing(self.model, self.optimizer, self.history.changes),
            ):
                change = function(self.model, *settings, optimizer=self.optimizer, **named)
                self.forget_model()
                change = self.recorded(change, cause)
                if check is not None:
                    check(change)
                if not parallel.rank():
                    parallel.agreed(order)
        finally:
            self.forget_model()
        return change

    def recorded(self, change: Change | None, cause: str) -> Change | None:
        """A Change with its step and cause, which the history keeps."""
        if change is not None:
            change = replace(change, step=self.step, cause=cause)
            self.history.changes.append({**change.record(), "epoch": self.epoch})
        return change

    def forget_model(self):
        """Forgets what was known of the model: it is another."""
        self.last_probe, self._flops_of_an_example = (None, None), None

    def flops_of_an_example(self) -> int:
        """Of a training step; counted once between two changes of the model."""
        if self._flops_of_an_example is None:
            self._flops_of_an_example = costs.training_flops(self.model) or 0
        return self._flops_of_an_example
