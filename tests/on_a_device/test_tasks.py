"""Tasks in sequence on a device: what remembers does so there, and what is retained is retained exactly."""

import pytest
import torch
from devices import DEVICE, SaveAt, all_there, few, to_cpu, trained
from torch import nn

from growlib import (
    AGEM,
    EWC,
    GEM,
    SI,
    Accuracies,
    Certify,
    Joint,
    LwF,
    NeuronGenesis,
    PackNet,
    Replay,
    TaskNet,
    Trainer,
    above,
    accuracy_matrix,
    new_task,
    parameter_life,
    retention_certificate,
    retention_snapshot,
    split_by_class,
    task_costs,
)
from growlib import load as load_data
from growlib.continual.routing import route

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def tasks():
    return [few(task, 64) for task in split_by_class(load_data("digits"), 5)[:2]]


class Heads(nn.Module):
    """A hidden layer for all tasks, and a head for each."""

    def __init__(self, tasks):
        super().__init__()
        self.hidden1 = nn.Linear(64, 12)
        self.heads = nn.ModuleDict({task: nn.Linear(12, 2) for task in tasks})

    @property
    def tasks(self):
        return list(self.heads)

    def forward(self, inputs, task):
        return self.heads[task](self.hidden1(inputs.flatten(1)).relu())


METHODS = {
    "ewc": lambda tasks: EWC(100.0, examples=16),
    "si": lambda tasks: SI(1.0),
    "replay": lambda tasks: Replay(20),
    "gem": lambda tasks: GEM(20),
    "agem": lambda tasks: AGEM(20),
    "lwf": lambda tasks: LwF(1.0),
    "packnet": lambda tasks: PackNet(keep=0.5),
    "joint": lambda tasks: Joint(*tasks),
}


def heads(tasks):
    torch.manual_seed(0)
    return Heads([task.name for task in tasks])


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_two_tasks_and_goes_on_from_a_checkpoint(name, tasks, tmp_path):
    def callbacks(step):
        return METHODS[name](tasks), SaveAt(tmp_path / "mid.pt", step)

    turned = [task.augmented(shift=1) for task in tasks]
    whole = trained(*callbacks(6), model=heads(tasks), data=turned)
    parted = Trainer.load(tmp_path / "mid.pt", heads(tasks), callbacks(-1), device=DEVICE)
    parted.fit(*turned, epochs=2)
    assert parted.history.losses == whole.history.losses
    assert all_there(whole.model, whole.optimizer) and all_there(parted.model, parted.optimizer)


def test_old_tasks_answer_as_they_did(tasks):
    torch.manual_seed(0)
    model = TaskNet(tasks[0].shape, tasks[0].name, 2, channels=[3], hidden=[6])
    certify = Certify(*tasks, images=32)
    growing = NeuronGenesis(channels=2, hidden=4, when=new_task() | above("val_loss", 0.0))
    trainer = trained(growing, certify, Accuracies(*tasks), model=model, data=tasks, epochs=[2, 2])
    assert certify.certificates and all(found["logits_changed"] == 0 for found in certify.certificates)
    assert {change["kind"] for change in trainer.history.changes} == {"task", "widen"}
    assert all_there(model, trainer.optimizer) and accuracy_matrix(trainer.history).shape == (2, 2)
    assert all(count >= 0 for count in parameter_life(model).values()) and len(task_costs(model))


def test_a_grown_network_of_tasks_is_loaded_on_the_device_and_on_the_cpu(tasks, tmp_path):
    torch.manual_seed(0)
    model = TaskNet(tasks[0].shape, tasks[0].name, 2, hidden=[6])
    trainer = trained(NeuronGenesis(hidden=4), model=model, data=tasks)
    trainer.save(tmp_path / "tasks.pt")
    before = retention_snapshot(model, *tasks, images=32)
    again = Trainer.load(tmp_path / "tasks.pt", callbacks=[NeuronGenesis(hidden=4)], device=DEVICE)
    after = retention_snapshot(again.model, *tasks, images=32)
    assert retention_certificate(before, after)["logits_changed"] == 0
    there = Trainer.load(tmp_path / "tasks.pt", callbacks=[NeuronGenesis(hidden=4)], device="cpu")
    inputs = torch.rand(4, *tasks[0].shape)
    assert route(model, inputs).device.type == DEVICE
    torch.testing.assert_close(there.model.all_logits(inputs), to_cpu(model.all_logits(inputs.to(DEVICE))))
