"""Loading a state of other widths: hidden ones are taken on, Parameters stay, and torch refuses the rest."""

import pytest
import torch
from networks import convnet, inputs_for, mlp, resnet, train
from torch import nn

from growlib import MLP, Hidden, TaskNet, deepen, growable, hidden_of, widen


class Plain(nn.Module):
    """A network whose widths `growable` finds."""

    def __init__(self, inputs=12, outputs=4):
        super().__init__()
        self.input_shape = (inputs,)
        self.one, self.norm, self.two = nn.Linear(inputs, 5), nn.LayerNorm(5), nn.Linear(5, outputs)

    def forward(self, inputs):
        return self.two(self.norm(self.one(inputs)).relu())


def plain(*sizes):
    model = Plain(*sizes)
    return growable(model, torch.randn(2, *model.input_shape))


@pytest.mark.parametrize("build", [mlp, convnet, resnet, plain])
def test_an_optimizer_that_was_made_before_trains_all_that_was_loaded(build):
    torch.manual_seed(0)
    grown, fresh = build(), build()
    for hidden in hidden_of(grown):
        widen(grown, hidden, 3)
    optimizer = torch.optim.Adam(fresh.parameters(), lr=1e-2)
    held = list(fresh.parameters())
    fresh.load_state_dict(grown.state_dict())
    assert all(one is other for one, other in zip(held, fresh.parameters(), strict=True))
    assert torch.equal(fresh.eval()(inputs := inputs_for(grown)), grown.eval()(inputs))
    train(fresh.train(), optimizer, 2)
    for (name, new), old in zip(fresh.named_parameters(), grown.parameters(), strict=True):
        assert not torch.equal(new, old), name


@pytest.mark.parametrize(
    "fresh, other",
    [
        (lambda: MLP(12, [7], 3), lambda: MLP(12, [9], 10)),
        (lambda: MLP(12, [7], 3), lambda: MLP(13, [9], 3)),
        (lambda: plain(12, 3), lambda: plain(12, 10)),
        (lambda: TaskNet((12,), "a", 3, hidden=[5]), lambda: TaskNet((12,), "a", 4, hidden=[5])),
    ],
)
def test_outputs_and_inputs_are_never_resized(fresh, other):
    model, state = fresh(), other().state_dict()
    shapes = [parameter.shape for parameter in model.parameters()]
    with pytest.raises(RuntimeError, match="size mismatch"):
        model.load_state_dict(state)
    assert [parameter.shape for parameter in model.parameters()] == shapes
    train_one = model(torch.randn(2, *model.input_shape))
    assert train_one.shape[1] == 3


def test_an_optimizer_with_state_of_the_old_widths_says_what_to_do():
    torch.manual_seed(0)
    grown, model = mlp(), mlp()
    widen(grown, "hidden1", 3)
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer, 1)
    model.load_state_dict(grown.state_dict())
    with pytest.raises(RuntimeError, match=r"\(7, 12\) then, \(10, 12\) now. Build the optimizer anew"):
        train(model, optimizer, 1)
    train(model, torch.optim.Adam(model.parameters()), 1)
    other = torch.optim.SGD(model.parameters(), lr=0.1)  # the negative control: one without state steps
    train(model, other, 1)


def test_a_model_inside_of_another_takes_on_widths_too():
    grown, holder = nn.ModuleDict({"net": mlp()}), nn.ModuleDict({"net": mlp()})
    widen(grown["net"], "hidden2", 2)
    holder.load_state_dict(grown.state_dict())
    assert [hidden.width for hidden in holder["net"].hidden] == [7, 7]


def test_eps_depends_on_the_width_and_not_on_the_way_there():
    grown, fresh = plain(), plain()
    for by in (3, 1, 7):
        widen(grown, "one", by)
    fresh.load_state_dict(grown.state_dict())
    assert fresh.norm.eps == grown.norm.eps == 1e-5 * (5 / 16)


def test_layers_by_themselves_are_not_resized():
    hidden = Hidden("a", (nn.Linear(2, 3),), (), (nn.Linear(3, 2),))
    with pytest.raises(RuntimeError, match="size mismatch"):
        hidden.producers[0].load_state_dict(nn.Linear(2, 4).state_dict())


def test_a_model_with_a_new_layer_loads_one_that_has_it_too():
    torch.manual_seed(0)
    grown, fresh = mlp(), mlp()
    for model in (grown, fresh):
        deepen(model, "hidden1")
    widen(grown, "hidden3", 4)
    fresh.load_state_dict(grown.state_dict())
    assert [hidden.width for hidden in fresh.hidden] == [7, 11, 5]
