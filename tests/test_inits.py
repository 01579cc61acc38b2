"""How new units start: what each init promises."""

import pytest
import torch
from networks import convnet, inputs_for, mlp, relative, train

from growlib.growth import check_growth, widen
from growlib.inits import kaiming, orthogonal, split
from growlib.models import MLP


@pytest.mark.parametrize("build", [mlp, convnet])
def test_kaiming_changes_the_function_and_says_so(build):
    torch.manual_seed(0)
    model = build().eval()
    inputs = inputs_for(model)
    before = model(inputs)
    change = widen(model, model.hidden[0], 4, init=kaiming)
    assert not kaiming.preserves
    assert relative(model(inputs), before) > 1e-3
    assert check_growth(model, change, inputs)["moved"] == pytest.approx(relative(model(inputs), before))


def test_split_divides_unevenly_and_copies_the_norm():
    torch.manual_seed(0)
    model = convnet().eval()
    change = widen(model, "conv1", 4, init=split)
    found = check_growth(model, change, inputs_for(model))
    assert found["twins"] == []  # read unevenly
    sources = [(model.conv1.weight[:4] == row).flatten(1).all(1).nonzero().item() for row in model.conv1.weight[4:]]
    assert sorted(sources) == [0, 1, 2, 3]
    for name in ("weight", "bias", "running_mean", "running_var"):
        tensor = getattr(model.norm1, name)
        assert torch.equal(tensor[4:], tensor[sources])


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam], ids=["SGD", "Adam"])
@pytest.mark.parametrize("even", [False, True], ids=["uneven", "even"])
def test_twins_of_an_uneven_split_part_and_those_of_an_even_one_never_do(optimizer, even):
    torch.manual_seed(0)
    model = MLP(12, [3], 4).double()
    widen(model, "hidden1", 3, init=split)
    if even:  # the negative control
        with torch.no_grad():
            for new in range(3, 6):
                old = (model.hidden1.weight[:3] == model.hidden1.weight[new]).all(1).nonzero().item()
                total = model.output.weight[:, old] + model.output.weight[:, new]
                model.output.weight[:, old] = model.output.weight[:, new] = total / 2
    train(model, optimizer(model.parameters(), lr=1e-2), 200)
    distances = torch.cdist(model.hidden1.weight, model.hidden1.weight) + torch.eye(6)
    parted = distances.min().item() > 1e-3
    assert parted is not even


def test_orthogonal_units_are_orthogonal_while_there_is_room():
    torch.manual_seed(0)
    model = MLP(12, [7], 4)
    widen(model, "hidden1", 5, init=orthogonal)
    new = model.hidden1.weight[7:]
    assert (model.hidden1.weight[:7] @ new.T).abs().max() < 1e-5
    gram = new @ new.T
    assert (gram - gram.diag().diag()).abs().max() < 1e-5
    widen(model, "hidden1", 30, init=orthogonal)  # no room left: still works
    assert model.hidden1.weight.shape == (42, 12)
