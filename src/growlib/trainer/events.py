"""Callback: what happens beside the training loop, and when."""

EVENTS = [f"{side}_{unit}" for unit in ("fit", "task", "epoch", "step") for side in ("before", "after")]
EVENTS += ["after_loss", "after_backward"]
RESUMABLE = ["after_step", "after_epoch", "after_task", "after_fit"]  # a checkpoint taken there resumes exactly


class Callback:
    """What happens beside the loop: a method for each event, with the trainer as its argument.

    Events: before_ and after_ fit, task, epoch and step; after_loss (add to `trainer.batch_loss`); after_backward
    (change gradients). Callbacks run in the order of the list. One that remembers anything puts it into `state_dict`.
    Of several processes each runs all callbacks, except that those that are `structural` run on rank 0, and the others
    make the changes that it makes.
    """

    structural = False

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict):
        vars(self).update(state)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


for _event in EVENTS:
    setattr(Callback, _event, lambda self, trainer: None)
