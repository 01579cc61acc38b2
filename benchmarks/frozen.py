"""Whether growlib still does what it did, bit for bit: fingerprints of some tiny runs, before and after a refactoring.

    python benchmarks/frozen.py                     a table of cases and their hashes
    python benchmarks/frozen.py --against COMMIT    this checkout, uncommitted changes too, beside a commit

The second checks the commit out into a temporary git worktree, runs this same file there, tells which parts of which
runs differ, and exits with 1 if any do. So cases import only names of `growlib` itself that both sides have.

A hash covers the weights and buffers by name, the optimizer's state and the group of every parameter, the records
without their times, the changes, the losses and the readings. It holds for one machine and one version of torch.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import relu
from torch.optim.lr_scheduler import OneCycleLR

import growlib
from growlib import (
    AGEM,
    EWC,
    GEM,
    MLP,
    SI,
    Budget,
    Callback,
    Certify,
    Checkpoint,
    ConvNet,
    Deepen,
    Diagnostics,
    EarlyStopping,
    Evaluate,
    Joint,
    LRSchedule,
    LwF,
    NeuronGenesis,
    PackNet,
    Prune,
    RandomWalk,
    Replay,
    ResNet,
    Rewire,
    StepByAge,
    TaskNet,
    Trainer,
    Widen,
    above,
    activation_mean,
    activation_variance,
    at_random,
    below,
    by_shortfall,
    dead,
    dormancy,
    drop_of,
    effective_rank,
    erk,
    every,
    fork,
    gradient_importance,
    gradient_norm,
    gradmax,
    gradmax_gain,
    growable,
    hebbian,
    identity,
    input_information,
    largest_gradient,
    load,
    lottery,
    loudest,
    mutual_information,
    narrower_than,
    natural_gain,
    new_task,
    north,
    orthogonal,
    orthogonality_gap,
    permuted,
    plateau,
    quantile,
    quietest,
    random,
    relative_gradient,
    rested,
    saturation,
    shallower_than,
    shuffled,
    sign_flip,
    smallest_magnitude,
    sparsify,
    split,
    split_by_class,
    stable_rank,
    stdp,
    taylor,
    topological,
    uniform,
    untrained,
    update_ratio,
    variance_transfer,
    warmup_decay,
    weight_effective_rank,
    weight_stable_rank,
    wire,
    within_budget,
    worthwhile,
    zero_out,
)

ROOT = Path(__file__).resolve().parents[1]
ADAM = partial(torch.optim.AdamW, lr=0.01)
MOMENTUM = partial(torch.optim.SGD, lr=0.02, momentum=0.9, weight_decay=1e-3)


# ------------------------------------------------------------------------------------------------- what is compared


def plain(value):
    """A value whose repr tells every bit of it."""
    if torch.is_tensor(value):
        bits = value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        return str(value.dtype), tuple(value.shape), hashlib.sha256(bits).hexdigest()
    if isinstance(value, dict):
        return [(str(key), plain(value[key])) for key in sorted(value, key=str)]
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def hashed(value) -> str:
    return hashlib.sha256(repr(plain(value)).encode()).hexdigest()[:16]


def told(history) -> dict:
    return {
        "records": [{name: value for name, value in record.items() if name != "seconds"} for record in history.records],
        "changes": history.changes,
        "losses": history.losses,
        "readings": history.readings,
    }


def parts(trainer, *data) -> dict:
    """All that a run left behind, and how it does on the test split of some data sets."""
    named, state = {id(parameter): name for name, parameter in trainer.model.named_parameters()}, {}
    for number, group in enumerate(trainer.optimizer.param_groups):
        state |= {named[id(p)]: (number, trainer.optimizer.state.get(p, {})) for p in group["params"]}
    tested = [trainer.evaluate(one, "test") for one in data]
    return {"weights": trainer.model.state_dict(), "optimizer": state, **told(trainer.history), "tested": tested}


def fingerprint(case) -> dict[str, str]:
    """The hash of every part of every run of a case."""
    return {f"{run}: {part}": hashed(value) for run, found in case().items() for part, value in found.items()}


# ------------------------------------------------------------------------------------------------ what the runs use


def trainer_of(build, callbacks=(), optimizer=ADAM, seed_of_weights=0, **settings) -> Trainer:
    torch.manual_seed(seed_of_weights)
    model = build()
    return Trainer(model, optimizer(model.parameters()), callbacks, device="cpu", **settings)


def run(build, *data, callbacks=(), epochs=2, **settings) -> dict:
    trainer = trainer_of(build, callbacks, **settings)
    trainer.fit(*data, epochs=epochs)
    return parts(trainer, *data)


def mlp():
    return MLP(64, [8, 6], 10)


def sparse(allocation=erk, backend="masked"):
    return sparsify(MLP(64, [20, 16], 10), 0.2, allocation, backend=backend)


def convnet():
    return ConvNet((3, 32, 32), [4, 4], [6], 10)


def resnet():
    return ResNet((3, 32, 32), [4, 6], [1, 1], 10, stride=2)


def shapes():
    return load("shapes", n=240)


def tasks():
    return split_by_class(load("digits"), 5)[:2]


class Residual(nn.Module):
    """A stem, a block whose branch is added, one that halves the image, and a head, as torchvision writes them."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4)
        self.inner, self.bn2 = nn.Conv2d(4, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
        self.back, self.bn3 = nn.Conv2d(5, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.halve, self.bn4 = nn.Conv2d(4, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6)
        self.downsample = nn.Sequential(nn.Conv2d(4, 6, 1, 2, bias=False), nn.BatchNorm2d(6))
        self.fc = nn.Linear(6, 10)

    def forward(self, images):
        stream = relu(self.bn1(self.conv1(images)))
        stream = relu(stream + self.bn3(self.back(relu(self.bn2(self.inner(stream))))))
        stream = relu(self.downsample(stream) + self.bn4(self.halve(stream)))
        return self.fc(stream.mean((2, 3)))


class Heads(nn.Module):
    """One hidden layer for all tasks, then a head for each."""

    def __init__(self):
        super().__init__()
        self.hidden1 = nn.Linear(64, 12)
        self.heads = nn.ModuleDict({task.name: nn.Linear(12, 2) for task in tasks()})

    @property
    def tasks(self):
        return list(self.heads)

    def forward(self, images, task):
        return self.heads[task](relu(self.hidden1(images.flatten(1))))


class Save(Callback):
    """Writes a checkpoint after one step."""

    def __init__(self, path, step):
        self.path, self.step = path, step

    def after_step(self, trainer):
        if trainer.step == self.step:
            trainer.save(self.path)

    def __repr__(self):
        return "Save()"  # whatever it is passed when the run goes on


# -------------------------------------------------------------------------------------------------------- the cases


def widening():
    when = every(4, "steps") & narrower_than(16)
    inits = (zero_out, split, random, orthogonal, north, gradmax, variance_transfer)
    return {init.__name__: run(mlp, load("digits"), callbacks=[Widen(2, when, init=init)]) for init in inits}


def widening_with_momentum():
    when = every(1, "epoch") | every(5, "steps")
    found = {}
    for init in (zero_out, split, north, variance_transfer):
        grow = Widen(2, when, quietest(gradient_norm), init)
        found[init.__name__] = run(convnet, shapes(), callbacks=[grow], optimizer=MOMENTUM, batch_size=32)
    return found


def deepening():
    found = {}
    for build in (convnet, resnet):
        grow = [Deepen(every(1, "epoch") & shallower_than(6)), Widen(1, every(1, "epoch"), init=split)]
        found[build.__name__] = run(build, shapes(), callbacks=grow, batch_size=64)
    for init in (identity, untrained):
        grow = [Deepen(every(8, "steps") & shallower_than(4), after="hidden1", init=init)]
        found[init.__name__] = run(mlp, load("digits"), callbacks=grow, optimizer=MOMENTUM)
    return found


def pruning():
    prune = [Widen(3, every(6, "steps"), init=random), Prune(1, every(2, "steps") & ~narrower_than(5), score=taylor)]
    chain = run(mlp, load("digits"), callbacks=prune)
    images = run(resnet, shapes(), callbacks=[Prune(1, every(3, "steps") & ~narrower_than(3))], optimizer=MOMENTUM)
    return {"mlp": chain, "resnet": images}


def rewiring(drop, regrow, *more, scope="layer", optimizer=ADAM, **settings):
    """The run of a sparse network whose connections move."""
    callbacks = [*more, Rewire(drop, regrow, every(3, "steps"), scope=scope)]
    return run(partial(sparse, **settings), load("digits"), callbacks=callbacks, optimizer=optimizer)


def rewiring_masked():
    walk = RandomWalk(1e-3, 1e-5)
    return {
        "RigL": rewiring(smallest_magnitude, largest_gradient),
        "RigL, momentum": rewiring(smallest_magnitude, largest_gradient, optimizer=MOMENTUM),
        "SET": rewiring(smallest_magnitude, at_random, allocation=uniform),
        "SET, global": rewiring(smallest_magnitude, at_random, scope="global"),
        "DeepR": rewiring(sign_flip, at_random, walk, allocation=uniform, optimizer=MOMENTUM),
        "convolutions": run(
            lambda: sparsify(convnet(), 0.4),
            shapes(),
            callbacks=[Rewire(smallest_magnitude, largest_gradient, every(1, "epoch"))],
        ),
    }


def rewiring_by_other_scores():
    scores = (hebbian, stdp, topological, gradient_importance)
    return {score.__name__: rewiring(smallest_magnitude, score) for score in scores}


def csr():
    return {
        "RigL": rewiring(smallest_magnitude, largest_gradient, backend="csr"),
        "SET, momentum": rewiring(smallest_magnitude, at_random, backend="csr", optimizer=MOMENTUM),
    }


def neurongenesis():
    one, two = tasks()
    when = new_task() | (below("val_accuracy", 1.01) & within_budget(params=5000))
    found = {}
    for name, shape in {"dense": {"hidden": [6, 5]}, "filters": {"channels": [4, 4], "hidden": [6]}}.items():
        build = partial(TaskNet, one.shape, one.name, 2, **shape)
        grow = [LRSchedule(OneCycleLR, "step", max_lr=0.02), NeuronGenesis(2, 3, when), Certify(one, two)]
        found[name] = run(build, one, two, callbacks=grow, epochs=[2, 3], batch_size=32)
    return found


def holding_weights():
    methods = {"EWC": EWC(50.0, examples=60), "SI": SI(0.5), "LwF": LwF(1.0), "PackNet": PackNet(0.5)}
    found = {name: run(Heads, *tasks(), callbacks=[method], batch_size=32) for name, method in methods.items()}
    return found | {"EWC, one head": run(mlp, *permuted(load("digits"), 2), callbacks=[EWC(50.0, examples=60)])}


def keeping_examples():
    methods = {"Replay": Replay(30), "GEM": GEM(30, 0.1), "AGEM": AGEM(30), "Joint": Joint(*tasks())}
    return {name: run(Heads, *tasks(), callbacks=[method], batch_size=32) for name, method in methods.items()}


def forking():
    data = load("digits")
    trainer = trainer_of(mlp)
    trainer.fit(data, epochs=1)
    forks = {
        init.__name__: [vars(one) for one in fork(trainer, data, by, 1, init).values()]
        for init, by in ((zero_out, 2), (north, lambda trainer, hidden: hidden.width // 2))
    }
    trainer.fit(data, epochs=1)
    return {"forks": forks, "the run goes on": parts(trainer, data)}


def lottery_tickets():
    data = load("digits")
    trainer = trainer_of(mlp)
    rounds = list(lottery(trainer, data, epochs=1, keep=0.5, rounds=2, rewind=3))
    found = {f"round {n}": {"masks": one.masks, **told(one.history)} for n, one in enumerate(rounds)}
    torch.manual_seed(0)
    control = wire(mlp(), shuffled(rounds[-1].masks))
    return found | {"the last one": parts(trainer, data), "its control": run(lambda: control, data)}


def prepare():
    """One thread, and no warnings of units that are dead at birth: the runs are too short to mind."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def rank_of_two(rank: int, folder: Path):
    """What one of two processes sees; the ranks draw other weights and other units, and those of rank 0 count."""
    prepare()
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    grow = [Widen(2, every(4, "steps") & narrower_than(14), init=split), Prune(1, every(6, "steps"))]
    runs = {
        "growing": (mlp, load("digits"), [*grow, Deepen(every(1, "epoch"))]),
        "rewired": (sparse, load("digits"), [Rewire(smallest_magnitude, at_random, every(2, "steps"))]),
        "convolutions": (convnet, shapes(), [Widen(1, every(2, "steps"), init=orthogonal)]),
    }
    found = {}
    for name, (build, data, callbacks) in runs.items():
        trainer = trainer_of(build, callbacks, seed_of_weights=rank, batch_size=65, clip=1.0)
        trainer.fit(data, epochs=2)
        found |= {f"{name}, {part}": hashed(value) for part, value in parts(trainer, data).items()}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def two_ranks():
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(rank_of_two, (Path(folder),), nprocs=2)
        return {f"rank {rank}": json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(2)}


def in_two_parts(build, *data, callbacks, step, **settings):
    """A run that is saved after a step in the middle of an epoch; what goes on from the file must be the same."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "middle.pt"
        whole = run(build, *data, callbacks=callbacks(Save(path, step)), **settings)
        trainer = Trainer.load(path, callbacks=callbacks(Save(path, -1)), device="cpu")
    trainer.fit(*data, epochs=2)
    resumed = parts(trainer, *data)
    if other := [part for part in whole if hashed(whole[part]) != hashed(resumed[part])]:
        raise RuntimeError(f"a run resumed at step {step} differs from one that was not stopped in: {', '.join(other)}")
    return whole


def resuming():
    one, two = tasks()

    def growing(save):
        schedule = LRSchedule(warmup_decay, warmup=1, decay=0.5, patience=2, floor=0.1)
        return [Widen(2, every(4, "steps"), init=split), schedule, save, Diagnostics(when=every(5, "steps"))]

    def rewired(save):
        return [save, Rewire(smallest_magnitude, at_random, every(3, "steps")), EarlyStopping(patience=9)]

    def learning_tasks(save):
        when = new_task() | below("val_accuracy", 1.01)
        return [LRSchedule(OneCycleLR, "step", max_lr=0.1), NeuronGenesis(hidden=3, when=when), save, Replay(20)]

    net = partial(TaskNet, one.shape, one.name, 2, hidden=[6])
    return {
        "growing": in_two_parts(mlp, load("digits"), callbacks=growing, step=15),
        "rewired": in_two_parts(sparse, load("digits"), callbacks=rewired, step=15),
        "tasks": in_two_parts(net, one, two, callbacks=learning_tasks, step=25, batch_size=32),
    }


def accumulating():
    settings = {"batch_size": 32, "accumulate": 3, "clip": 0.5, "seed": 5}
    schedule = LRSchedule(warmup_decay, warmup=1, decay=0.5, patience=1, floor=0.1)
    data = load("digits").augmented(shift=1, flip=True, cutout=2)
    return {
        "per epoch": run(mlp, data, callbacks=[schedule], epochs=4, optimizer=MOMENTUM, **settings),
        "per step": run(convnet, shapes(), callbacks=[LRSchedule(OneCycleLR, "step", max_lr=0.05)], **settings),
    }


def diagnosing():
    names = (
        *(activation_mean, activation_variance, dead, dormancy, effective_rank, gradient_norm, gradmax_gain),
        *(input_information, mutual_information, natural_gain, orthogonality_gap, relative_gradient, saturation),
        *(stable_rank, update_ratio, weight_effective_rank, weight_stable_rank, taylor),
    )
    look = {"callbacks": [Diagnostics(names, every(5, "steps"))]}
    return {"mlp": run(mlp, load("digits"), **look), "convnet": run(convnet, shapes(), batch_size=32, **look)}


def growing_by_signals():
    triggers = {
        "below": every(5, "steps") & below(effective_rank, 0.9) & rested(6, "steps"),
        "above": every(3, "steps") & above(effective_rank, quantile(0.2, 2)) & narrower_than(12),
        "drop": every(2, "steps") & drop_of(gradient_norm, 0.2, 2),
        "plateau": every(2, "steps") & plateau(effective_rank, 2, "readings"),
        "worthwhile": every(1, "epoch") & worthwhile("val_loss", 0.05),
    }
    by, limit = by_shortfall(effective_rank, 0.9, most=3), Budget(parameters=5000)
    return {
        name: run(mlp, load("digits"), callbacks=[Widen(by, when, loudest(effective_rank))], epochs=3, budget=limit)
        for name, when in triggers.items()
    }


def growing_any_network():
    def build():
        return growable(Residual(), torch.zeros(2, 3, 32, 32))

    grow = {
        "wider": [Widen(1, every(2, "steps") & narrower_than(12), init=split)],
        "deeper": [Deepen(every(1, "epoch")), Prune(1, every(3, "steps"))],
    }
    return {name: run(build, shapes(), callbacks=callbacks, batch_size=64) for name, callbacks in grow.items()}


def watching():
    def callbacks(folder):
        grow = [StepByAge(3.0, 10), Widen(2, every(3, "epochs"))]
        return [*grow, Evaluate("test"), Checkpoint(folder), EarlyStopping("val_accuracy", 1)]

    parity, spirals, found = load("parity", bits=8), load("spirals", n=600), {}
    for data in (parity, spirals):
        with tempfile.TemporaryDirectory() as folder:
            build = partial(MLP, *data.shape, [6], 2)
            found[data.name] = run(build, data, callbacks=callbacks(folder), epochs=8, batch_size=32)
            best = Trainer.load(Path(folder) / "best.pt", callbacks=callbacks(folder), device="cpu")
            found[f"{data.name}, the best"] = parts(best, data)
    return found


CASES = (
    *(widening, widening_with_momentum, deepening, pruning, rewiring_masked, rewiring_by_other_scores, csr),
    *(neurongenesis, holding_weights, keeping_examples, forking, lottery_tickets, two_ranks, resuming, accumulating),
    *(diagnosing, growing_by_signals, growing_any_network, watching),
)


# ------------------------------------------------------------------------------------------------- before and after


def of_checkout(folder: Path) -> dict[str, dict[str, str]]:
    """The fingerprints of the growlib in a checkout, by this file, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--json"]
    found = json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)
    if not Path(found["growlib"]).is_relative_to(folder):
        raise RuntimeError(f"these are the fingerprints of {found['growlib']}, not of {folder}")
    return found["cases"]


def of_commit(commit: str) -> dict[str, dict[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve() / "growlib"
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "--quiet", "--detach", place, commit], check=True)
        try:
            return of_checkout(place)
        finally:
            subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", place], check=True)


def compare(commit: str) -> bool:
    """Prints what differs between a commit and this checkout, and returns whether anything does."""
    before, after = of_commit(commit), of_checkout(ROOT)
    for name in after:
        known = sorted(before[name].keys() | after[name].keys())
        other = [part for part in known if before[name].get(part) != after[name].get(part)]
        print(f"{name:26}{'differs in:' if other else 'as before'}", *other, sep="\n    ")
    return before != after


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--against", metavar="COMMIT", help="compare this checkout with a commit")
    parser.add_argument("--json", action="store_true", help="print the hash of every part")
    arguments = parser.parse_args()
    if arguments.against:
        sys.exit(compare(arguments.against))
    prepare()
    if arguments.json:
        cases = {case.__name__: fingerprint(case) for case in CASES}
        print(json.dumps({"growlib": growlib.__file__, "cases": cases}))
    else:
        for case in CASES:
            print(f"{case.__name__:26}{hashed(fingerprint(case))}", flush=True)
