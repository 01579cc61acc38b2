import pytest
import torch

from growlib import check_parameters
from growlib.results._parameters import TAKES

GOOD = {
    "profile": ["quick", "standard", "full"],
    "device": ["auto", "cpu"],
    "seed": [0, 7],
    "epochs": [1, 50],
    "growth": [1, 8],
    "rate": [1e-3, 1],
    "strength": [0, 1e3],
    "density": [0.01, 1.0],
}
BAD = {
    "profile": ["fast", None, 1],
    "device": ["gpu", "", "cuda:", None, 0],
    "seed": [-1, 1.5, "0", True, None],
    "epochs": [0, -3, 2.0, "five", True],
    "growth": [0, -8, 1.5, "8"],
    "rate": [0, -1e-3, "1e-05", float("nan"), float("inf"), True],
    "strength": [-1, float("inf"), "1"],
    "density": [0, 1.01, -0.1, "0.1"],
}


@pytest.mark.parametrize("name", GOOD)
def test_a_parameter_is_taken_or_refused_with_its_name_and_what_it_takes(name):
    for value in GOOD[name]:
        check_parameters(**{name: value})
    for value in BAD[name]:
        with pytest.raises(ValueError) as caught:
            check_parameters(seed=0, **{name: value}) if name != "seed" else check_parameters(seed=value)
        assert str(caught.value).startswith(f"the parameter {name} takes {TAKES[name][0]}, and got {value!r}")


def test_a_chapter_says_what_it_takes_besides():
    check_parameters(epochs=(0, 0), size=("large", "small", "large"))
    check_parameters(epochs=(3, 0))
    with pytest.raises(ValueError, match="epochs takes a whole number from 1 on or 0, and got -1"):
        check_parameters(epochs=(-1, 0))
    with pytest.raises(ValueError, match="epochs takes .* and got False"):
        check_parameters(epochs=(False, 0))  # equal to 0, and not a number of epochs
    with pytest.raises(ValueError, match="size takes small, large, and got 'larg': did you mean 'large'?"):
        check_parameters(size=("larg", "small", "large"))


def test_a_name_that_nobody_knows_needs_a_list():
    with pytest.raises(TypeError, match="what does 'sise' take?.*epochs"):
        check_parameters(sise="small")


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="the parameter device is 'cuda', and torch finds no such device"):
        check_parameters(device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_parameters(device="cuda")
