"""The pretended device itself: its numbers are right, and what is an error on a GPU is an error on it."""

import copy
import io

import pytest
import torch
from devices import DEVICE, PRETENDED, agree
from torch import nn
from torch.nn.functional import cross_entropy

if not PRETENDED:
    pytest.skip("these ask the pretended device, and there is a GPU", allow_module_level=True)

HERE, THERE = torch.arange(6.0).view(2, 3), torch.arange(6.0).view(2, 3).to(DEVICE)

MIXES = {
    "sum": lambda: THERE + HERE,
    "in place": lambda: THERE.clone().add_(HERE),
    "product": lambda: THERE @ HERE.T,
    "joined": lambda: torch.cat([THERE, HERE]),
    "stacked numbers": lambda: torch.stack([THERE[0, 0], HERE[0, 0]]),
    "selected": lambda: THERE.index_select(0, torch.tensor([0])),
    "index from the device": lambda: HERE[torch.tensor([0], device=DEVICE)],
    "values of the CPU": lambda: THERE.clone().index_put_((torch.tensor([0]),), HERE[0]),
    "mask": lambda: THERE.masked_fill(HERE > 2, 0.0),
    "layer": lambda: nn.Linear(3, 2)(THERE),
    "loss": lambda: cross_entropy(THERE, torch.tensor([0, 1])),
    "lists": lambda: torch._foreach_add([THERE], [HERE]),
    "result": lambda: torch.add(THERE, THERE, out=HERE.clone()),
    "generator": lambda: torch.rand(2, device=DEVICE, generator=torch.Generator()),
}


@pytest.mark.parametrize("name", MIXES)
def test_what_is_on_the_cpu_meets_nothing_on_the_device(name):
    with pytest.raises(RuntimeError, match="device"):
        MIXES[name]()


def test_numbers_and_indices_may_come_from_the_cpu():
    torch.testing.assert_close((THERE * torch.tensor(2.0)).cpu(), HERE * 2)
    torch.testing.assert_close(THERE[torch.tensor([1])].cpu(), HERE[[1]])
    torch.testing.assert_close(THERE.masked_fill(THERE > 2, torch.tensor(0.0)).cpu(), HERE.clamp(max=2) * (HERE <= 2))


def test_numpy_sees_nothing_of_the_device():
    with pytest.raises(TypeError, match="convert"):
        THERE.numpy()


def test_an_operation_without_a_kernel_raises():
    library = torch.library.Library("growlib_tests", "DEF")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: x * 2, "CPU")
    torch.testing.assert_close(torch.ops.growlib_tests.twice(HERE), HERE * 2)
    with pytest.raises(NotImplementedError, match="twice"):
        torch.ops.growlib_tests.twice(THERE)


def test_sparse_layouts_have_no_kernel():
    with pytest.raises((NotImplementedError, RuntimeError)):
        THERE.to_sparse_csr() @ THERE.T


def test_views_share_their_memory():
    whole = torch.zeros(2, 3, 4, device=DEVICE)
    whole.transpose(1, 2)[1, :2].view(-1, 3, 1)[0] = 1.0
    assert whole.sum() == 3 and whole[1, :, 0].sum() == 3
    assert whole.transpose(1, 2).stride() == (12, 1, 4) and not whole.transpose(1, 2).is_contiguous()
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        whole.transpose(1, 2).view(-1)


def test_a_copy_has_memory_of_its_own_and_a_file_has_the_values():
    there = copy.deepcopy({"buffer": THERE})["buffer"]
    there.zero_()
    assert THERE.sum() == HERE.sum() and there.device.type == DEVICE
    file = io.BytesIO()
    torch.save(THERE.T, file)
    file.seek(0)
    assert torch.equal(torch.load(file, map_location="cpu", weights_only=True), HERE.T)


def test_the_device_draws_from_a_generator_of_its_own():
    torch.manual_seed(3)
    first, state = torch.rand(4, device=DEVICE), torch.get_rng_state()
    torch.rand(4, device=DEVICE), nn.functional.dropout(first)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(4, device=DEVICE), first)


def test_parameters_stay_the_same_objects_when_a_model_moves():
    layer = nn.Linear(3, 2)
    before = list(layer.parameters())
    assert all(a is b for a, b in zip(before, layer.to(DEVICE).parameters(), strict=True))
    assert layer.weight.device.type == DEVICE


def test_training_gives_the_numbers_of_the_cpu():
    def losses(device):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4))
        optimizer = torch.optim.Adam(model.to(device).parameters())
        images, labels, found = torch.randn(8, 1, 5, 5).to(device), torch.arange(8).to(device) % 4, []
        for _ in range(3):
            optimizer.zero_grad()
            loss = cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            found.append(loss)
        return found

    agree(losses, rtol=0, atol=1e-6)


def test_autocast_computes_in_bfloat16():
    with torch.autocast(DEVICE, torch.bfloat16):
        outputs = nn.Linear(3, 2).to(DEVICE)(THERE)
        assert outputs.dtype == torch.bfloat16
        assert outputs.log_softmax(1).dtype == torch.float32
