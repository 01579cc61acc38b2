"""What tests/test_parallel.py starts under torchrun: every rank writes what it saw into a file of its own."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from networks import convnet
from torch.nn.functional import cross_entropy

from growlib import (
    MLP,
    Callback,
    Checkpoint,
    Deepen,
    Freeze,
    Lookahead,
    LRSchedule,
    Prune,
    Rewire,
    SpeedNet,
    Trainer,
    Whiten,
    Widen,
    at_random,
    connections,
    every,
    load,
    narrower_than,
    norm_biases_apart,
    orthogonal,
    prune,
    smallest_magnitude,
    sparsify,
    split,
    triangle,
    warmup_decay,
    widen,
)
from growlib.data import Split
from growlib.layers import hidden_of
from growlib.parallel import agreed, equalize, fingerprint, portion, rank, together, total, wrap


class Watch(Callback):
    """Notes a hash of all parameters, buffers and the optimizer's state after every step with a change, and epoch."""

    def __init__(self):
        self.seen, self.changes = [], 0

    def after_step(self, trainer):
        if len(trainer.history.changes) > self.changes or trainer.moment == "epoch":
            self.changes = len(trainer.history.changes)
            self.seen.append(fingerprint(trainer.model, trainer.optimizer))

    after_epoch = after_step


def only_on_rank_0(trainer, hidden):
    """A trigger that the other ranks would deny: they must not be asked."""
    return f"rank {rank()} wants it" if rank() == 0 and trainer.step in (5, 11) and trainer.moment == "step" else None


def callbacks(folder):
    return [
        Widen(by=2, when=every(4, "steps") & narrower_than(20), init=split),
        Widen(by=3, when=only_on_rank_0, init=orthogonal),
        Prune(by=1, when=every(6, "steps")),
        Deepen(when=every(2, "epochs")),
        LRSchedule(warmup_decay, warmup=1, decay=0.5, patience=2, floor=0.1),
        Watch(),
        Checkpoint(folder),
    ]


def few(size=201):
    """A training set whose last batch of 64 has 9 examples, and with a size of 193 a single one."""
    digits = load("digits")
    train = Split(digits.train.images[:size], digits.train.labels[:size])
    val = Split(digits.val.images[:50], digits.val.labels[:50])
    return type(digits)(**{**vars(digits), "train": train, "val": val})


def model_and_optimizer(seed):
    torch.manual_seed(seed)
    model = MLP(64, [8, 6], 10)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-2)


def told(trainer):
    watch = next(callback for callback in trainer.callbacks if isinstance(callback, Watch))
    return {
        "seen": watch.seen,
        "losses": trainer.history.losses,
        "changes": trainer.history.changes,
        "records": trainer.history.records,
        "final": fingerprint(trainer.model, trainer.optimizer),
    }


def a_growing_run(folder):
    model, optimizer = model_and_optimizer(seed=rank())  # unequal at first: rank 0's weights count
    trainer = Trainer(model, optimizer, callbacks(folder), batch_size=64, clip=1.0, device="cpu")
    trainer.fit(few(), epochs=3)
    return told(trainer)


def the_same_run_resumed(folder):
    model, optimizer = model_and_optimizer(seed=0)
    trainer = Trainer(model, optimizer, callbacks(folder), batch_size=64, clip=1.0, device="cpu")
    trainer.fit(few(), epochs=2)
    dist.barrier()  # the file is whole
    torch.manual_seed(99 + rank())
    trainer = Trainer.load(folder / "last.pt", callbacks=callbacks(folder), device="cpu")
    trainer.fit(few(), epochs=3)
    return told(trainer)


def a_run_without_growth(folder):
    """A last batch of one example, and batches in two parts."""
    results = {}
    for name, settings in {"plain": {"batch_size": 64}, "accumulated": {"batch_size": 32, "accumulate": 2}}.items():
        model, optimizer = model_and_optimizer(seed=0)
        trainer = Trainer(model, optimizer, [Watch()], device="cpu", **settings)
        trainer.fit(few(193).augmented(), epochs=2)
        results[name] = told(trainer)
    return results


def a_convnet(folder):
    """Batch normalisation: the statistics are those of rank 0."""
    torch.manual_seed(rank())
    images = torch.randint(0, 256, (96, 2, 8, 8), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    labels = torch.arange(96) % 4
    part = Split(images, labels)
    data = type(few())("noise", list("abcd"), part, part, part, torch.full((2,), 0.5), torch.full((2,), 0.3), {})
    model = convnet()
    trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), device="cpu", batch_size=32)
    trainer.callbacks = [Widen(by=1, when=every(2, "steps"), init=split), Watch()]
    trainer.fit(data, epochs=2)
    return told(trainer)


def a_fast_run(folder):
    """The recipe of CIFAR-10: every rank whitens, freezes, averages and measures statistics alike."""
    torch.manual_seed(rank())
    model = SpeedNet((1, 8, 8), [3, 4], 10)
    optimizer = torch.optim.SGD(norm_biases_apart(model, lr=0.1, factor=8), momentum=0.85, nesterov=True)
    stem = [Whiten(examples=100), Freeze("stem.bias", after=1), LRSchedule(triangle, per="step")]
    parts = [*stem, Widen(by=1, when=every(2, "steps"), init=split), Lookahead(every=3), Watch()]
    data = few().augmented(shift=1, border="reflect", flip="alternating")
    trainer = Trainer(model, optimizer, parts, batch_size=64, device="cpu")
    trainer.fit(data, epochs=3)
    return told(trainer)


def a_rewired_run(folder, backend="masked"):
    """A sparse network whose connections move: at random on rank 0, which counts."""

    class WatchAll(Watch):
        def after_step(self, trainer):
            self.seen.append(fingerprint(trainer.model, trainer.optimizer))

    torch.manual_seed(rank())
    model = sparsify(MLP(64, [8, 6], 10), 0.3, backend=backend)
    trainer = Trainer(model, torch.optim.AdamW(model.parameters(), lr=1e-2), batch_size=64, device="cpu")
    trainer.callbacks = [Rewire(smallest_magnitude, at_random, every(2, "steps")), WatchAll()]
    before = connections(model)
    trainer.fit(few(), epochs=2)
    return {"seen": trainer.callbacks[1].seen, "before": before, "after": connections(model)}


def a_failure_on_rank_0(folder):
    def fail(trainer, hidden):
        raise ValueError("no such unit")

    model, optimizer = model_and_optimizer(seed=0)
    try:
        Trainer(model, optimizer, [Widen(by=1, when=fail)], device="cpu").fit(few(), epochs=1)
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"


def other_architectures(folder):
    torch.manual_seed(0)
    try:
        equalize(MLP(64, [8 + rank()], 10))
        return None
    except ValueError as error:
        return str(error)


def a_plain_loop(folder, renewed=True, shared=True):
    """Without a Trainer; and what happens without the new wrapper, or without rank 0's values."""
    model, optimizer = model_and_optimizer(seed=0)
    equalize(model)
    data, seen, wrapper = few(), [], None
    torch.manual_seed(10 + rank())  # new units are drawn differently
    for step in range(6):
        if step in (2, 4):
            if shared:
                with together(model, optimizer):
                    widen(model, "hidden1", 2, init=orthogonal, optimizer=optimizer)
            else:
                widen(model, "hidden1", 2, init=orthogonal, optimizer=optimizer)
            seen.append(fingerprint(model, optimizer))
        if step == 3:
            with together(model, optimizer):
                prune(model, "hidden2", [0], optimizer=optimizer)
            seen.append(fingerprint(model, optimizer))
        wrapper = wrap(model, wrapper) if renewed or wrapper is None else wrapper
        index, share = portion(torch.arange(64), 64)
        inputs, labels = data.batch("train", index)
        optimizer.zero_grad()
        try:
            (cross_entropy(wrapper(inputs), labels) * share * dist.get_world_size()).backward()
        except RuntimeError as error:  # the old wrapper waits for gradients that never come
            return {"seen": seen, "error": str(error), "step": step}
        optimizer.step()
        seen.append(fingerprint(model, optimizer))
    return {"seen": seen, "widths": [hidden.width for hidden in hidden_of(model)]}


def a_function_of_each(folder):
    return {
        "agreed": [agreed(value) for value in (None, {"rank": rank()}, [rank()] * 1000)],
        "total": total(torch.tensor([1.0, rank()])).tolist(),
        "portions": [portion(torch.arange(5), 10)[0].tolist(), portion(torch.arange(1), 10)[1]],
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    dist.init_process_group("gloo")
    answers = {}
    for scenario in (
        a_function_of_each,
        a_growing_run,
        the_same_run_resumed,
        a_run_without_growth,
        a_convnet,
        a_fast_run,
        a_rewired_run,
        a_failure_on_rank_0,
        other_architectures,
    ):
        answers[scenario.__name__] = scenario(folder / scenario.__name__)
    answers["a_rewired_csr_run"] = a_rewired_run(folder, "csr")
    answers["a_plain_loop"] = a_plain_loop(folder)
    answers["the_old_wrapper"] = a_plain_loop(folder, renewed=False)
    answers["no_broadcast"] = a_plain_loop(folder, shared=False)
    (folder / f"rank{rank()}.json").write_text(json.dumps(answers))
    dist.destroy_process_group()
