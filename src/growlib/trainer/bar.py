"""ProgressBar: how far a run is, for a person who watches."""

import os
import sys

from tqdm import tqdm

from growlib import parallel
from growlib.trainer.events import Callback

# Set where a person opens notebooks: by Jupyter's server, VS Code, Colab and Kaggle, but not where they are executed.
LIVE = ("JPY_SESSION_NAME", "VSCODE_PID", "COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE")


def watched() -> bool:
    """Whether a person watches: in a terminal or a live notebook, and the environment variable CI is not set."""
    if os.environ.get("CI"):
        return False
    if _in_a_notebook():
        return any(os.environ.get(name, "Batch") != "Batch" for name in LIVE)
    return _console() is not None and sys.stderr.isatty()


class ProgressBar(Callback):
    """A bar that leaves one line behind; quiet where the environment variable CI is set, or nothing can show it."""

    bar = None

    def before_fit(self, trainer):
        if not os.environ.get("CI") and parallel.rank() == 0:
            file = _Line() if _in_a_notebook() else _console()
            if file is None:
                return
            layout = "{percentage:3.0f}% {bar:20} {n_fmt}/{total_fmt} epochs, {elapsed}{postfix}"
            self.bar = tqdm(total=trainer.epochs, file=file, bar_format=layout)

    def after_epoch(self, trainer):
        if self.bar:
            self.bar.set_postfix(val_accuracy=f"{trainer.history.records[-1]['val_accuracy']:.4f}", refresh=False)
            self.bar.update()

    def after_fit(self, trainer):
        if self.bar:
            self.bar.close()
            self.bar = None


def _in_a_notebook() -> bool:
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel")


def _console():
    """Where a bar is written to, if there is such a thing: programs without a console have none, or closed it."""
    return None if sys.stderr is None or getattr(sys.stderr, "closed", False) else sys.stderr


class _Line:
    """A file for tqdm in a notebook, whose one line is replaced: a static page shows the last state only."""

    def __init__(self):
        from IPython.display import display

        self.handle = display({"text/plain": ""}, raw=True, display_id=True)

    def write(self, text: str):
        if text.strip():
            self.handle.update({"text/plain": text.strip()}, raw=True)

    def flush(self):
        pass
