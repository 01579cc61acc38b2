"""The networks against the same arithmetic written out."""

import pytest
import torch
from torch.nn.functional import relu

from growlib.models import KNOWN, MLP, ConvNet


def test_an_mlp_is_matrix_products_with_relu_between():
    model, inputs = MLP(6, [5, 4], 3), torch.randn(2, 1, 2, 3)
    first = relu(inputs.flatten(1) @ model.hidden1.weight.T + model.hidden1.bias)
    second = relu(first @ model.hidden2.weight.T + model.hidden2.bias)
    expected = second @ model.output.weight.T + model.output.bias
    torch.testing.assert_close(model(inputs), expected)
    assert [(hidden.name, hidden.width) for hidden in model.hidden] == [("hidden1", 5), ("hidden2", 4)]


def test_a_linear_model_has_no_hidden_layer():
    model = MLP(6, [], 3)
    assert model.hidden == [] and model(torch.randn(2, 6)).shape == (2, 3)


def test_a_convnet_halves_the_image_in_every_block():
    model = ConvNet((3, 12, 8), [4, 6], [7], 5)
    assert model(torch.randn(2, 3, 12, 8)).shape == (2, 5)
    assert model.hidden1.in_features == 6 * 3 * 2
    names = {hidden.name: (hidden.width, len(hidden.norms)) for hidden in model.hidden}
    assert names == {"conv1": (4, 1), "conv2": (6, 1), "hidden1": (7, 0)}
    assert model.hidden[1].spread(model.hidden1) == 6


@pytest.mark.parametrize("model", [MLP(6, [5, 4], 3), ConvNet((3, 8, 8), [4], [5], 2)], ids=["MLP", "ConvNet"])
def test_the_configuration_builds_the_same_architecture(model):
    twin = KNOWN[type(model).__name__](**model.config())
    twin.load_state_dict(model.state_dict())
    inputs = torch.randn(3, *model.input_shape)
    assert torch.equal(twin(inputs), model(inputs))


def test_wrong_shapes_and_sizes_are_errors_with_the_values():
    with pytest.raises(ValueError, match="takes 6 values an example, and got 12"):
        MLP(6, [5], 3)(torch.randn(2, 3, 4))
    with pytest.raises(ValueError, match=r"takes images \(3, 8, 8\), and got \(1, 8, 8\)"):
        ConvNet((3, 8, 8), [4], [5], 2)(torch.randn(2, 1, 8, 8))
    with pytest.raises(ValueError, match="whole, positive sizes"):
        MLP(6, [0], 3)
    with pytest.raises(ValueError, match="3 poolings leave nothing of an image of 4x4"):
        ConvNet((1, 4, 4), [2, 2, 2], [], 2)
