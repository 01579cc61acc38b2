"""A training step of sparse MLPs at batch 128: CSR against dense and masked, and the bytes that training holds.

It is the CPU time of one thread, and the fastest of many steps, taken in turn: so what else the machine does hardly
counts.
"""

import time

import torch
from torch.nn.functional import cross_entropy

from growlib import MLP, costs, results, sparsify

OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 1e-3, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, 1e-3),
}
HELD = ("parameters", "gradients", "optimizer", "buffers")  # activations are the same for all


def build(kind: str, widths: list[int], density: float) -> MLP:
    torch.manual_seed(0)
    model = MLP(widths[0], widths[1:-1], widths[-1])
    return model if kind == "dense" else sparsify(model, density, backend=kind)


def stepper(model, optimizer, batch_size: int):
    images, labels = torch.randn(batch_size, *model.input_shape), torch.randint(10, (batch_size,))

    def milliseconds() -> float:
        start = time.process_time()
        cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        return 1000 * (time.process_time() - start)

    return milliseconds


def compared(widths: list[int], density: float, name: str, batch_size: int, rounds: int) -> dict:
    """The fastest step of every kind, the ratios, and the bytes."""
    models = {kind: build(kind, widths, density) for kind in ("dense", "masked", "csr")}
    optimizers = {kind: OPTIMIZERS[name](model.parameters()) for kind, model in models.items()}
    steps = {kind: stepper(model, optimizers[kind], batch_size) for kind, model in models.items()}
    times = {kind: [] for kind in steps}
    for _ in range(rounds):
        for kind, step in steps.items():
            times[kind].append(step())
    fastest = {kind: min(found[2:]) for kind, found in times.items()}  # the first two warm up
    bills = {kind: costs.memory(model, optimizers[kind], batch_size) for kind, model in models.items()}
    held = {kind: sum(bill.get(part, 0) for part in HELD) for kind, bill in bills.items()}
    return {
        "optimizer": name,
        "density": density,
        **{f"{kind}_milliseconds": value for kind, value in fastest.items()},
        "speedup": fastest["dense"] / fastest["csr"],
        "speedup_over_masked": fastest["masked"] / fastest["csr"],
        "speedup_of_masked": fastest["dense"] / fastest["masked"],
        **{f"{kind}_bytes": value for kind, value in held.items()},
        "memory_ratio": held["dense"] / held["csr"],
    }


def measure(seed: int, widths: list[int], densities: list[float], batch_size: int, rounds: int) -> tuple[dict, list]:
    """Every density with every optimizer."""
    torch.set_num_threads(1)
    rows = [compared(widths, d, name, batch_size, rounds) for name in OPTIMIZERS for d in densities]
    metrics = {
        f"{what}_{row['optimizer']}_{round(100 * row['density'])}": row[what]
        for row in rows
        for what in ("speedup", "speedup_over_masked", "memory_ratio")
    }
    return {"threads": torch.get_num_threads(), **metrics}, rows


if __name__ == "__main__":
    shared = {"densities": [0.2, 0.1, 0.05, 0.02, 0.01], "batch_size": 128}
    arms = {
        "sparse-300-100": {"widths": [784, 300, 100, 10], "rounds": 60, **shared},
        "sparse-1024-1024": {"widths": [784, 1024, 1024, 10], "rounds": 30, **shared},
        "sparse-2000-2000": {"widths": [3072, 2000, 2000, 10], "rounds": 15, **shared},
    }
    for found in results.grid(measure, arms, [0], chapter="benchmarks", profile="full", device="cpu"):
        print(found["run"])
        for row in found["history"]:
            print({name: round(value, 2) if isinstance(value, float) else value for name, value in row.items()})
