"""TaskNet: units that belong to tasks, and what may change them."""

import pytest
import torch
from networks import relative, shaken
from torch.nn.functional import batch_norm, conv2d, cross_entropy, linear, max_pool2d, relu

from growlib import TaskNet, check_growth, costs, prune, widen


def conv_net(**settings):
    torch.manual_seed(0)
    model = TaskNet((2, 8, 8), "a", 4, [4, 5], [6], **settings)
    model.grow("b", 3, 4, classes=3)
    return shaken(model).eval()


def dense_net(**settings):
    model = TaskNet((12,), "a", 4, hidden=[6, 5], **settings)
    model.grow("b", hidden=3, classes=3)
    return model.eval()


def images(size=6):
    return torch.randn(size, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def norm(model, name, task, units):
    block = getattr(model, name).block(task)
    return batch_norm(units, block.running_mean, block.running_var, block.weight, block.bias)


def test_the_first_task_is_a_plain_network():
    model, units = conv_net(), images()
    for number in (1, 2):
        units = max_pool2d(conv2d(units, getattr(model, f"conv{number}").block(0).weight, padding=1), 2)
        units = relu(norm(model, f"norm{number}", 0, units))
    block, head = model.hidden1.block(0), model.output.block(0)
    units = relu(linear(units.amax((2, 3)), block.weight, block.bias))
    assert torch.allclose(model(images(), "a"), linear(units, head.weight, head.bias), atol=1e-6)


@pytest.mark.parametrize("transfer", [True, False])
def test_a_later_task_reads_the_earlier_ones_if_it_may(transfer):
    model = dense_net(transfer=transfer)
    inputs = torch.randn(5, 12)
    before = model(inputs, "a"), model(inputs, "b")
    with torch.no_grad():
        model.hidden1.block(0).weight[0] += 1
    assert torch.equal(model(inputs, "b"), before[1]) is not transfer
    with torch.no_grad():
        model.hidden1.block(0).weight[0] -= 1
        model.hidden1.block(1).weight += 1
    assert torch.allclose(model(inputs, "a"), before[0]) and not torch.equal(model(inputs, "b"), before[1])


def test_only_the_tasks_that_are_named_are_read():
    model = TaskNet((12,), "a", 4, hidden=[3], transfer=["b"])
    model.grow("b", hidden=2, classes=4)
    model.grow("c", hidden=2, classes=4)
    assert model.needed(2) == [1, 2] and model.needed(1) == [1]
    model.grow("d", hidden=2, classes=4, transfer=["c"])
    assert model.needed(3) == [1, 2, 3]  # what d reads reads b


def test_tasks_have_names_and_numbers():
    model = dense_net()
    inputs = torch.randn(3, 12)
    assert torch.equal(model(inputs), model(inputs, "b")) and torch.equal(model(inputs, 1), model(inputs, "b"))
    assert model(inputs, "a").shape == (3, 4) and model(inputs, "b").shape == (3, 3)
    everything = model.all_logits(inputs)
    assert everything.shape == (3, 2, 4) and bool((everything[:, 1, 3] == -torch.inf).all())
    assert torch.equal(everything[:, 0], model(inputs, "a")) and torch.equal(everything[:, 1, :3], model(inputs, "b"))


def test_every_tensor_has_one_owner():
    model = conv_net()
    owned = [name for task in model.tasks for name in {**model.task_parameters(task), **model.task_buffers(task)}]
    assert sorted(owned) == sorted(model.state_dict())
    assert model.owner("conv1.blocks.1.weight") == "b" and model.owner("strange") is None


@pytest.mark.parametrize("build", [conv_net, dense_net])
def test_the_open_task_grows_and_answers_as_before(build):
    model = build().double()
    model.close("a")
    inputs = torch.randn(6, *model.input_shape, dtype=torch.float64)
    before = model(inputs, "a"), model(inputs, "b")
    change = model.grow("b", 2, 3)
    assert torch.equal(model(inputs, "a"), before[0]) and relative(model(inputs, "b"), before[1]) < 1e-10
    assert (change.kind, change.layer, change.after - change.before) == ("grow", "b", sum(model.plan(2, 3).values()))
    for hidden in model.hidden:  # each by itself, as Widen does it
        found = check_growth(model, widen(model, hidden, 2), inputs)
        assert found["moved"] < 1e-10 and not found["twins"]
    prune(model, "hidden1", [0])
    assert torch.equal(model(inputs, "a"), before[0])


def test_the_widths_that_can_change_are_those_of_the_open_task():
    model = conv_net()
    assert {hidden.name: hidden.width for hidden in model.hidden} == {"conv1": 3, "conv2": 3, "hidden1": 4}
    model.close("a"), model.close("b")
    assert model.hidden == []


def test_a_shared_network_is_one_whose_tasks_have_heads_only():
    model = TaskNet((2, 8, 8), "a", 4, [4, 5], [6])
    model.grow("b", classes=3)
    cross_entropy(model(images(), "b"), torch.zeros(6, dtype=torch.int64)).backward()
    assert model.conv1.block(0).weight.grad.any()
    model.eval()
    before = model(images(), "a"), model(images(), "b")
    assert {hidden.name: len(hidden.consumers) for hidden in model.hidden}["hidden1"] == 2
    widen(model, "hidden1", 3)
    for task, outputs in zip("ab", before, strict=True):
        assert relative(model(images(), task), outputs) < 1e-5


def test_the_gradient_mask_leaves_the_open_task_only():
    model = dense_net()
    cross_entropy(model(torch.randn(5, 12), "b"), torch.zeros(5, dtype=torch.int64)).backward()
    assert model.hidden1.block(0).weight.grad.any()  # b reads a, and a is not closed
    model.apply_task_gradient_mask("b")
    for name, parameter in model.named_parameters():
        if model.owner(name) == "a" and parameter.grad is not None:
            assert not parameter.grad.any()
    assert model.hidden1.block(1).weight.grad.any()


def test_a_new_task_joins_the_optimizer_and_a_closed_one_leaves_it():
    model = TaskNet((12,), "a", 4, hidden=[6])
    bare = [p for p in model.parameters() if p.ndim == 1]
    adam = torch.optim.Adam([{"params": [p for p in model.parameters() if p.ndim > 1]}, {"params": bare, "lr": 0.5}])
    cross_entropy(model(torch.randn(5, 12)), torch.zeros(5, dtype=torch.int64)).backward()
    adam.step()
    model.grow("b", hidden=3, classes=3, optimizer=adam)
    model.close("a", adam)
    held = [[model_name(model, p) for p in group["params"]] for group in adam.param_groups]
    assert held == [
        ["hidden1.blocks.1.weight", "output.blocks.1.weight"],
        ["hidden1.blocks.1.bias", "output.blocks.1.bias"],
    ]
    assert not adam.state
    model.close("b", adam)
    model.grow("c", hidden=3, classes=3, optimizer=adam)  # nothing was left to stand beside
    assert len(adam.param_groups[0]["params"]) == 4


def model_name(model, tensor):
    return next(name for name, parameter in model.named_parameters() if parameter is tensor)


def test_the_network_is_rebuilt_from_its_description():
    model = conv_net(pools=[2])
    model.close("a")
    model.grow("b", [1, 2], 1)
    model.grow("c", classes=2)
    again = TaskNet(**model.config())
    again.load_state_dict(model.state_dict())
    again.eval(), model.eval()
    for task in "abc":
        assert torch.equal(again(images(), task), model(images(), task))
    assert again.closed == {"a"} and again.config() == model.config()


def test_a_task_costs_what_it_runs():
    model = dense_net(transfer=False)
    assert costs.flops(model, "a") == 2 * (12 * 6 + 6 * 5 + 5 * 4)
    assert costs.flops(model, "b") == 2 * (12 * 3 + 3 * 3 + 3 * 3)
    reading = dense_net()
    assert costs.flops(reading, "b") == 2 * (12 * 6 + 6 * 5 + 12 * 3 + (6 + 3) * 3 + (5 + 3) * 3)


@pytest.mark.parametrize(
    "deed, message",
    [
        (lambda model: model(images(), "z"), "unknown task 'z': the model has learned 'a' \\(0\\), 'b' \\(1\\)"),
        (lambda model: model(images(), 2), "unknown task 2"),
        (lambda model: model(images()[:, :, :6], "a"), "examples of shape \\(2, 8, 8\\), and got \\(2, 6, 8\\)"),
        (lambda model: model.grow("a", 2, 2), "only the newest task"),
        (lambda model: (model.close("a"), model.grow("a", 2, 2)), "task 'a' is closed"),
        (lambda model: model.close("b"), "'b' reads units of 'a': close these first"),
        (lambda model: model.grow("c", 2, 2), "needs its number of classes"),
        (lambda model: model.grow("c", 2, 0, classes=2), "units in every layer, or in none"),
        (lambda model: model.grow("c", [2], 2, classes=2), "one for each of the 2 layers"),
        (lambda model: model.grow("c", -1, 2, classes=2), "give a whole number"),
        (lambda model: TaskNet((2, 8, 8), "a", 4, [4], pools=[2]), "must be numbers of the 1 convolutions"),
        (lambda model: TaskNet((2, 2, 2), "a", 4, [4, 4]), "leave nothing"),
    ],
)
def test_what_cannot_be_is_refused_with_the_values(deed, message):
    with pytest.raises(ValueError, match=message):
        deed(conv_net())


def test_several_tasks_answer_at_once_as_one_by_one():
    model, inputs = conv_net(), images()
    names = list(model.tasks)
    for logits, name in zip(model(inputs, names), names, strict=True):
        assert torch.equal(logits, model(inputs, name))
    assert len(model(inputs, names[:1])) == 1 and model(inputs, []) == []
