"""The training loop, what happens beside it, and what is left of a run: its history and its checkpoints."""

from growlib.trainer.batches import derive_seed
from growlib.trainer.checkpoint import load_model
from growlib.trainer.events import Callback
from growlib.trainer.groups import norm_biases_apart
from growlib.trainer.history import History
from growlib.trainer.loop import Trainer
from growlib.trainer.views import cropped, mirrored, view_accuracy
