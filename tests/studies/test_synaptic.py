"""The published network: its size, its masks, and that a task's units alone compute and learn the same."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from torchvision import transforms

from growlib import costs, load
from growlib.studies import Rerun, synaptic
from growlib.studies.synaptic import SynapticNet, answers, judged, prepared, train

SIZES = [(4, 6, 10), (3, 5, 7), (5, 4, 9)]  # channels, hidden units and classes of three tasks


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = SynapticNet(*SIZES[0])
    for sizes in SIZES[1:]:
        net.grow(*sizes)
    net = net.double()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net.eval()


def images(count=6):
    return torch.randn(count, 3, 32, 32, dtype=torch.float64)


def small_data(name="fashion_mini", count=200):
    data = load(name)
    for split in ("train", "val", "test"):
        part = getattr(data, split)
        object.__setattr__(data, split, type(part)(part.images[:count], part.labels[:count]))
    return data


def test_the_published_size_and_what_of_it_can_act():
    net = SynapticNet()
    for sizes in [(64, 512, 10), (64, 512, 10), (128, 1024, 100)]:
        net.grow(*sizes)
    assert costs.parameters(net) == 16_217_410
    live = [costs.parameters(net.alone(task)) for task in range(4)]
    assert live == [642_506] * 3 + [2_647_012] and sum(live) == 4_574_530


@pytest.mark.parametrize("task", range(3))
def test_a_tasks_units_alone_compute_the_same(net, task):
    batch = images()
    whole, small = net(batch, task), net.alone(task)(batch, 0)
    assert (small.abs().amax(0) > 0).all()
    torch.testing.assert_close(net.padded(small, task), whole)
    assert ((whole != 0).any(0) == (net.output.owners == task)).all()  # absent classes are zeros
    other = net.alone((task + 1) % 3)
    assert net.padded(other(batch, 0), (task + 1) % 3).shape == whole.shape
    assert not torch.allclose(net.padded(other(batch, 0), (task + 1) % 3), whole)


def test_nothing_is_read_from_other_tasks_and_nothing_of_them_learns(net):
    cross_entropy(net(images(), 1), torch.tensor([10, 11, 12, 13, 14, 15])).backward()
    assert net.convs[1].weight.grad[4:7, 4:7].any() and net.hidden.weight.grad[6:11, 64:112].any()
    assert not net.convs[1].weight.grad[4:7, :4].any()  # no forward transfer: new units do not learn to read old ones
    assert not net.hidden.weight.grad[6:11, :64].any()
    for layer in net.layers:
        layer.weight.grad += 1
    net.mask_gradients(1)
    for layer in net.layers:
        assert (layer.weight.grad.flatten(1).any(1) == (layer.owners == 1)).all()


@pytest.mark.parametrize("task", range(2))
def test_a_tasks_units_alone_learn_the_same(monkeypatch, task):
    monkeypatch.setattr(synaptic, "DROPPED", 0.0)
    monkeypatch.setattr(synaptic, "prepared", lambda pixels: prepared(pixels).double())
    data, ends = small_data(), {}
    for alone in (True, False):
        torch.manual_seed(1)
        net = SynapticNet(6, 8, 10)
        net.grow(4, 7, 10)
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        start = {name: value.double() for name, value in net.state_dict().items()}
        train(net.double(), data, task, epochs=2, seed=3, alone=alone)
        ends[alone] = net.state_dict()
    moved = [name for name in start if not torch.equal(start[name], ends[True][name])]
    assert sorted(moved) == sorted(name for name in start if "owners" not in name)
    for name, value in ends[False].items():
        torch.testing.assert_close(ends[True][name], value, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("decay, kept", [(0.0, True), (0.01, False)])
def test_masked_gradients_keep_old_logits_only_without_weight_decay(net, decay, kept):
    batch = images()
    before = net(batch, 0)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=decay)
    for _ in range(3):
        cross_entropy(net(batch, 2), torch.full((6,), 20)).backward()
        net.mask_gradients(2)
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(net(batch, 0), before) == kept


def test_growing_copies_what_was_there_and_adds_one_task(net):
    batch, old = images(), {name: value.clone() for name, value in net.state_dict().items()}
    before = net(batch, 1)
    net.grow(2, 3, 4)
    assert net.tasks == 4 and net(batch, 3)[:, -4:].abs().min() > 0
    for name, value in net.state_dict().items():
        assert torch.equal(value[tuple(map(slice, old[name].shape))], old[name])
    after = net(batch, 1)
    torch.testing.assert_close(after[:, : before.shape[1]], before)
    assert not after[:, before.shape[1] :].any()


@pytest.mark.parametrize("name", ["digits", "fashion_mini"])
def test_images_are_prepared_as_torchvision_would(name):
    raw = load(name).test.images[:3]
    steps = [transforms.Resize((32, 32)), transforms.Normalize((0.5,), (0.5,))]
    expected = torch.stack([transforms.Compose(steps)(image / 255).expand(3, -1, -1) for image in raw])
    torch.testing.assert_close(prepared(raw), expected)


def test_evaluation_against_a_loop_over_the_whole_network(net):
    net, data = net.float(), small_data(count=60)
    with torch.no_grad():
        net.output.bias[net.output.owners == 1] -= net(prepared(data.test.images), 1)[:, 10:17].max(1).values.median()
    found = judged(net, data, 1, "test", answers(net, data, 1, "test"))
    right = absent = 0
    for image, label in zip(data.test.images, data.test.labels, strict=True):
        guess = int(net(prepared(image[None]), 1).argmax())
        right, absent = right + (guess == 10 + int(label)), absent + (not 10 <= guess < 17)
    assert found == {"accuracy": right / 60, "absent": absent / 60}
    assert 0 < absent < 60


def test_a_rerun_measures_every_data_set_after_every_visit():
    run = Rerun(small_data(), small_data("digits"), channels=(4, 4), hidden=(8, 8), device="cpu")
    with pytest.raises(ValueError, match="task 2 comes after task 1"):
        run.visit(2, 1)
    for task, epochs in ((0, 1), (1, 1), (0, 1)):
        run.visit(task, epochs)
    assert [record["task"] for record in run.history] == ["fashion_mini", "digits", "fashion_mini"]
    assert "test_accuracy_digits" not in run.history[0] and "test_accuracy_digits" in run.history[2]
    assert run.history[0]["growth_drift"] == run.history[2]["growth_drift"] == 0 <= run.metrics["growth_drift"] < 1e-5
    for (task, split), kept in run.answers.items():
        torch.testing.assert_close(answers(run.net, run.data[task], task, split), kept, rtol=0, atol=0)
    assert run.metrics["live_parameters"] < run.metrics["parameters"] == costs.parameters(run.net)
    again = Rerun(small_data(), small_data("digits"), channels=(4, 4), hidden=(8, 8), device="cpu")
    assert again.visit(0, 1) == run.history[0]


def test_the_drift_of_a_growth_is_the_largest_change_of_an_old_logit(monkeypatch):
    grow = SynapticNet.grow

    def leaky(net, *sizes):
        grow(net, *sizes)
        with torch.no_grad():
            net.output.bias[3] += 0.5

    monkeypatch.setattr(SynapticNet, "grow", leaky)
    run = Rerun(small_data(), small_data("digits"), channels=(4, 4), hidden=(8, 8), device="cpu")
    for task in (0, 1):
        run.visit(task, 1)
    assert run.metrics["growth_drift"] == pytest.approx(0.5, abs=1e-4)
