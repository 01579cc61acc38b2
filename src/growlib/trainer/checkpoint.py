"""Checkpoints: what a trainer must remember, and files written whole or not at all and read without running code."""

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from growlib import generators
from growlib.costs import Budget
from growlib.data.files import whole
from growlib.growth import lost_tensors
from growlib.growth.depth import rediscover
from growlib.growth.inserted import Deeper, insertions, match
from growlib.layers import take_on_widths, take_shapes
from growlib.models import KNOWN, TaskModel
from growlib.sparsity.csr import match_csr
from growlib.sparsity.masked import describe_sparse, match_sparse
from growlib.trainer.events import Callback
from growlib.trainer.optimizers import describe_optimizer, fill_groups, new_optimizer

FORMAT = 2


def write(path, state: dict):
    """Writes a checkpoint: a crash in the middle leaves the old file as it was."""
    try:
        with whole(path) as file:
            torch.save({"format": FORMAT, **state}, file)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise OSError(
            f"could not write the checkpoint {path}: {error}. The one before, if any, is untouched. "
            "Free some space, or save to a folder that can be written"
        ) from error


def read(path) -> dict:
    """Reads a checkpoint; it may hold tensors and plain values only."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} is not a whole checkpoint ({path.stat().st_size:,} bytes; it may have been cut short): {error}. "
            "Use an older one: Checkpoint keeps last.pt and best.pt"
        ) from error
    found = state.get("format") if isinstance(state, dict) else None
    if found is None:
        raise ValueError(f"{path} is not a checkpoint of growlib (format {FORMAT})")
    if found != FORMAT:
        raise ValueError(
            f"{path} is a checkpoint of format {found}, and this growlib reads format {FORMAT}: load it with the "
            "growlib that wrote it, or train again"
        )
    return state


def describe(model: nn.Module) -> dict:
    """The class of a model, for the classes of growlib.models the arguments that build it, and what it has learned."""
    name = type(model).__name__
    config = model.config() if KNOWN.get(name) is type(model) else None
    described = {"class": name, "config": config, "inserted": insertions(model), "sparse": describe_sparse(model)}
    return described | ({"learned": dict(model.learned)} if isinstance(model, TaskModel) else {})


def build(description: dict) -> nn.Module:
    """The model that a checkpoint describes."""
    name, config = description["class"], description["config"]
    if name not in KNOWN or config is None:
        raise ValueError(
            f"the checkpoint holds a {name}, which growlib cannot build by itself: pass a fresh one, "
            f"Trainer.load(path, model={name}(...)), and it is resized to the file"
        )
    return KNOWN[name](**config)


def rebuilt(state: dict) -> nn.Module:
    """The model of a checkpoint without its values, of the file's number format: float64 stays float64."""
    model = build(state["model"])
    formats = {tensor.dtype for tensor in state["weights"].values() if tensor.is_floating_point()}
    return model.to(formats.pop()) if len(formats) == 1 else model


def load_weights(model: nn.Module, description: dict, weights: dict):
    """Loads weights into a model, whose growable layers take on the widths of the file."""
    if type(model).__name__ != description["class"]:
        raise ValueError(f"the checkpoint holds a {description['class']}, and the model is a {type(model).__name__}")
    old = set(model.modules())
    changed = match(model, description.get("inserted", {}))
    for path, module in model.named_modules():
        if module not in old and not isinstance(module, Deeper):
            take_shapes(module, weights, path)
    match_csr(model, description.get("sparse", {}))
    match_sparse(model, description.get("sparse", {}), weights)
    mine, theirs = set(model.state_dict()), set(weights)
    if mine != theirs:
        raise ValueError(
            f"the checkpoint is of another {description['class']}: only the file has {sorted(theirs - mine)}, "
            f"only the model has {sorted(mine - theirs)}"
        )
    take_on_widths(model, weights)  # also where a `hidden` property is all that growlib knows of the model
    model.load_state_dict(weights)
    if changed:
        rediscover(model)
    if isinstance(model, TaskModel):
        model.learned = dict(description["learned"])


def take_out(model: nn.Module, description: dict):
    """Takes layers out of a model of growlib.models that were put in after it was described."""
    if description["config"] is not None:
        kept = {hidden.name for hidden in build(description).hidden}
        for name in {hidden.name for hidden in model.hidden} - kept:
            model.remove_layer(name)


def state_of(trainer) -> dict:
    """All that a trainer must remember to go on as if it had not stopped."""
    named = {id(parameter) for parameter in trainer.model.parameters()}
    held = [id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]]
    if strangers := sum(one not in named for one in held):
        lost = ", ".join(lost_tensors(trainer.model, trainer.optimizer)) or "none"
        raise ValueError(
            f"the optimizer holds {strangers} tensors that the model does not have (of the model's, it lacks: {lost}). "
            "Where the model was changed, pass optimizer= to widen and prune; else build the optimizer anew"
        )
    trainer.guard.read()
    loss, budget = trainer.loss, trainer.budget
    return {
        "model": describe(trainer.model),
        "weights": trainer.model.state_dict(),
        "optimizer": describe_optimizer(trainer.optimizer, trainer.model),
        "callbacks": states_of(trainer.callbacks),
        "history": trainer.history.state_dict(),
        "settings": {
            "loss": name_of(loss),
            "batch_size": trainer.batch_size,
            "accumulate": trainer.accumulate,
            "clip": trainer.clip,
            "budget": None if budget is None else vars(budget),
            "seed": trainer.seed,
        },
        "progress": trainer.progress.state_dict(),
        "normalization": trainer.normalization,
        "random": generators.states(trainer.device),
    }


def states_of(callbacks) -> list[dict]:
    """What every callback remembers, beside how it is written."""
    return [{"repr": written(callback), "state": callback.state_dict()} for callback in callbacks]


def written(callback) -> str:
    """What is compared when callbacks are passed again: how one is written, or of a user's own class its name.

    What a class of a user takes may be a path or a number that differs by design; with a `__repr__` of its own it
    tells what must be the same.
    """
    own = type(callback).__repr__ is Callback.__repr__ and not type(callback).__module__.startswith("growlib.")
    return type(callback).__name__ if own else repr(callback)


def restore(trainer, state: dict):
    """Puts a trainer whose model, optimizer and callbacks are of the right kinds back to a state."""
    theirs = [saved["repr"] for saved in state["callbacks"]]
    mine = [written(callback) for callback in trainer.callbacks]
    if theirs != mine:
        raise ValueError(f"the checkpoint was written with the callbacks {theirs}; pass the same, not {mine}")
    take_out(trainer.model, state["model"])
    load_weights(trainer.model, state["model"], state["weights"])
    trainer.model.to(trainer.device)
    fill_groups(trainer.optimizer, trainer.model, state["optimizer"])
    for callback, saved in zip(trainer.callbacks, state["callbacks"], strict=True):
        callback.load_state_dict(saved["state"])
    trainer.history.load_state_dict(state["history"])
    trainer.progress.load_state_dict(state["progress"])
    trainer.normalization = state["normalization"]
    trainer.forget_model()
    trainer.batch_size, trainer.accumulate = state["settings"]["batch_size"], state["settings"]["accumulate"]
    generators.put_back(state["random"], trainer.device)


def load_model(path, model: nn.Module | None = None) -> nn.Module:
    """The model of a checkpoint alone, in eval mode on the CPU. No code of the file is run.

    Args:
        path: A file that `Trainer.save` or Checkpoint wrote.
        model: A fresh one, for classes that growlib.models does not have; it is resized to the file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no whole checkpoint of this format, or of another class.
    """
    state = read(path)
    model = rebuilt(state) if model is None else model
    load_weights(model, state["model"], state["weights"])
    return model.eval()


def load_trainer(kind, path, model, callbacks, *, loss, device):
    """The trainer of a file, see `Trainer.load`."""
    state = read(path)
    settings = dict(state["settings"])
    name, budget = settings.pop("loss"), known_budget(settings.pop("budget"))
    model = rebuilt(state) if model is None else model
    load_weights(model, state["model"], state["weights"])  # takes on the widths
    optimizer = new_optimizer(model, state["optimizer"])
    trainer = kind(model, optimizer, callbacks, loss=loss or known_loss(name), budget=budget, device=device, **settings)
    restore(trainer, state)
    return trainer


def resume(trainer, path):
    """The trainer where the one that wrote the file was, see `Trainer.resume`."""
    if not Path(path).exists():
        return trainer
    state = read(path)
    if (seed := state["settings"]["seed"]) != trainer.seed:
        raise ValueError(f"{path} is of a run with seed {seed}, and this trainer has seed {trainer.seed}")
    restore(trainer, state)
    return trainer


def name_of(loss) -> str:
    """What a checkpoint calls a loss: a function of torch.nn.functional by its name, any other by its full name."""
    named = loss if hasattr(loss, "__qualname__") else type(loss)
    if getattr(functional, named.__name__, None) is loss:
        return named.__name__
    return f"{named.__module__}.{named.__qualname__}"


def known_loss(name: str):
    """A loss of torch.nn.functional by its name."""
    if not hasattr(functional, name):
        raise ValueError(
            f"the checkpoint was written with the loss {name!r}, not one of torch.nn.functional: pass loss="
        )
    return getattr(functional, name)


def known_budget(limits: dict | None) -> Budget | None:
    """Return the budget that a checkpoint describes."""
    return None if limits is None else Budget(**limits)
