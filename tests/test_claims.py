import importlib.util
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from growlib import results

ROOT = Path(__file__).parents[1]


def book_tool(name: str):
    """Imports one of the scripts in book/, which is not a package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "book" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


claims = book_tool("claims")
INSPECTED = [claims.inspect(text, place) for place, text in claims.texts()]


# The book


@pytest.mark.parametrize("claim", [claim for found, _ in INSPECTED for claim in found], ids=str)
def test_a_claim_of_the_book_holds(claim):
    fault = claims.fault(claim)
    assert fault is None, fault


def test_no_number_of_the_book_is_left_without_a_voucher():
    bare = [number for _, numbers in INSPECTED for number in numbers]
    assert not bare, "vouch for these with a claim:, arithmetic: or source: comment:\n" + "\n".join(bare)


# The machinery, on records of its own: growing 0.97, 0.98, 0.99; fixed-64 0.95, 0.97, 0.96


@pytest.fixture(autouse=True)
def recorded(request, tmp_path, monkeypatch):
    if "claim" in request.fixturenames:
        return monkeypatch.delenv("GROWLIB_RESULTS", raising=False)
    monkeypatch.setenv("GROWLIB_RESULTS", str(tmp_path))
    given = {
        "profile": "full",
        "parameters": {"epochs": 5},
        "wall_time_s": 4.0,
        "device": "cpu",
        "data": {"mnist": "ab12" * 16},
    }
    for run, accuracies in {"growing": [0.97, 0.98, 0.99], "fixed-64": [0.95, 0.97, 0.96]}.items():
        for seed, accuracy in enumerate(accuracies):
            history = [{"val_accuracy": 0.9}, {"val_accuracy": accuracy}]
            results.record("02_x", run, seed=seed, metrics={"test_accuracy": accuracy}, history=history, **given)
    results.record("02_x", "other-seeds", seed=7, metrics={"test_accuracy": 0.5}, history=[], **given)
    results.record("benchmarks", "epoch", seed=0, metrics={"speedup": 17.25}, history=[], **given)


def faults(text):
    """Everything that is wrong with a text."""
    found, bare = claims.inspect(text, "page.md")
    return [fault for fault in map(claims.fault, found) if fault] + bare


HALF = 4.302653 * 0.01 / math.sqrt(3)  # t(0.975, 2) = 4.302653; both arms have s = 0.01


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("mean(02_x/growing.test_accuracy)", 0.98),
        ("min(02_x/fixed-64.test_accuracy)", 0.95),
        ("max(02_x/fixed-64.test_accuracy)", 0.97),
        ("count(02_x/fixed-64.test_accuracy)", 3),
        ("interval(02_x/growing.test_accuracy)", HALF),
        ("mean(02_x/growing.test_accuracy - 02_x/fixed-64.test_accuracy)", 0.02),
        ("min(02_x/growing.test_accuracy - 02_x/fixed-64.test_accuracy)", 0.01),  # paired: 0.02, 0.01, 0.03
        ("100 * (mean(02_x/growing.test_accuracy) - mean(02_x/fixed-64.test_accuracy))", 2),
        ("abs(mean(02_x/fixed-64.history[0].val_accuracy) - 1)", 0.1),
        ("mean(02_x/growing.history[-1].val_accuracy)", 0.98),
        ("mean(02_x/growing.wall_time_s)/max(02_x/growing.parameters.epochs)", 0.8),
        ("benchmarks/epoch.speedup", 17.25),
        ("1/benchmarks/epoch.speedup", 1 / 17.25),
        ("mean(02_x/growing.test_accuracy) > mean(02_x/fixed-64.test_accuracy)", True),
        ("mean(02_x/growing.test_accuracy) <= mean(02_x/fixed-64.test_accuracy)", False),
    ],
)
def test_a_formula_comes_to_what_it_says(formula, value):
    assert claims.evaluate(formula) == pytest.approx(value)


@given(st.recursive(st.integers(1, 99).map(str), lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner)))
def test_arithmetic_is_that_of_python(tree):
    def written(node):
        return node if isinstance(node, str) else f"({written(node[0])}{node[1]}{written(node[2])})"

    try:
        expected = eval(written(tree))
    except ZeroDivisionError:
        return
    assert claims.evaluate(written(tree), records=False) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("formula", "error", "message"),
    [
        ("mean(02_x/shrinking.test_accuracy)", LookupError, "'shrinking'.*fixed-64, growing"),
        ("mean(09_unknown/growing.test_accuracy)", LookupError, "09_unknown.*02_x"),
        ("mean(02_x/growing.test_acuracy)", LookupError, "test_acuracy"),
        ("02_x/growing.test_accuracy", ValueError, "3 values, one a seed"),
        ("02_x/growing.test_accuracy > 0.9", ValueError, "3 values, one a seed"),
        ("mean(02_x/growing.test_accuracy - 02_x/other-seeds.test_accuracy)", ValueError, r"\[0, 1, 2\] and \[7\]"),
        ("mean(0.97)", ValueError, r"mean\(0.97\)"),
        ("mean(", ValueError, "cannot read"),
        ("", ValueError, "cannot read"),
        ("__import__('os')", ValueError, "cannot use"),
        ("(1).real", ValueError, "cannot use"),
        ("'a' * 9", ValueError, "cannot use"),
        ("True", ValueError, "cannot use"),
        ("1 < 2 < 3", ValueError, "cannot use"),
    ],
)
def test_a_formula_that_cannot_be_trusted_is_an_error(formula, error, message):
    with pytest.raises(error, match=message):
        claims.evaluate(formula)


GROWING, FIXED = "02_x/growing.test_accuracy", "02_x/fixed-64.test_accuracy"
RIGHT = [
    f"It reaches 98.0 % <!-- claim: mean({GROWING}) -->.",
    f"It reaches **98 %** <!-- claim: mean({GROWING}) --> of 100 %.",
    f"It reaches 98.00 ± 2.48 % <!-- claim: mean({GROWING}) ± interval({GROWING}) -->",
    f"It gains 2.0 points <!-- claim: 100 * mean({GROWING} - {FIXED}) -->",
    f"It loses −2.0 percent <!-- claim: mean({FIXED} - {GROWING}) -->",
    f"A loss of 0.02 <!-- claim: 1 - mean({GROWING}) --> after 5 <!-- claim: max(02_x/growing.wall_time_s) + 1 -->",
    f"| growing | 98.0 % <!-- claim: mean({GROWING}) --> |\n| fixed | 96.0 % <!-- claim: mean({FIXED}) --> |",
    f"It stays ahead <!-- claim: mean({GROWING}) > mean({FIXED}) -->.",
    "It is 17 times faster <!-- claim: benchmarks/epoch.speedup -->",
    "It has 669,706 <!-- arithmetic: 784*512+512 + 512*512+512 + 512*10+10 --> parameters",
    "The original has 94.20-94.26 % and 94.26 % <!-- source: its table 1 -->.",
    "A 95 % interval, 0 %, 100 %, MNIST-10, 0.001, `97.7 %`, $97.7 \\%$, [a](b%20c.html?x=97.7%)",
    "```\n97.7 %\n```\n<div style='width: 97.5%'>text</div>",
    "<!-- bib: chen2016 97.7 % -->",
]


@pytest.mark.parametrize("text", RIGHT)
def test_a_right_number_passes(text):
    assert faults(text) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"It reaches 98.1 % <!-- claim: mean({GROWING}) -->", "typed 98.1 %, recomputed 98.000"),
        (f"It reaches 98.0 <!-- claim: mean({GROWING}) -->", "typed 98.0, recomputed 0.980"),
        (f"It reaches 97.99 % <!-- claim: mean({GROWING}) -->", "typed 97.99 %, recomputed 98.0000"),
        (
            f"It reaches 98.0 ± 2.4 % <!-- claim: mean({GROWING}) ± interval({GROWING}) -->",
            "typed 98.0 ± 2.4 %, recomputed 2.484",
        ),
        (f"It reaches 98.0 ± 2.5 % <!-- claim: mean({GROWING}) -->", "comes to 1 numbers"),
        (f"It reaches 98.0 % <!-- claim: mean({GROWING}) ± interval({GROWING}) -->", "comes to 2 numbers"),
        (f"It loses 2.0 % <!-- claim: mean({FIXED} - {GROWING}) -->", "typed 2.0 %, recomputed -2.0"),
        (f"It falls behind <!-- claim: mean({GROWING}) < mean({FIXED}) -->", "does not hold"),
        ("It falls apart <!-- arithmetic: 2 + 2 -->", "comes to 1 numbers, typed are []"),
        (
            "One seed: 50.0 ± 0.0 % <!-- claim: mean(02_x/other-seeds.test_accuracy) ± "
            "interval(02_x/other-seeds.test_accuracy) -->",
            "recomputed nan",
        ),
        ("It has 669,707 <!-- arithmetic: 784*512+512 + 512*512+512 + 512*10+10 --> parameters", "669706"),
        ("The original has 94.26 % <!-- source: -->.", "name the source"),
    ],
)
def test_a_wrong_number_fails_with_both_values(text, message):
    [fault] = faults(text)
    assert message in fault and fault.startswith("page.md: ")


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        ("claim: mean(02_x/unknown.test_accuracy)", "no recorded run 'unknown'"),
        ("arithmetic: mean(02_x/growing.test_accuracy)", "cannot read"),
        ("arithmetic: 98 / 0", "division by zero"),
    ],
)
def test_an_unknown_record_fails_and_arithmetic_knows_no_records(comment, message):
    [fault] = faults(f"98.0 % <!-- {comment} -->")
    assert message in fault and comment in fault


@pytest.mark.parametrize(
    "number", ["97.71 %", "97.7%", "95 %", "97.7 per cent", "97 percent", "97.71 ± 0.08", "0.977", "97.71 ± 0.08 %"]
)
def test_a_number_that_nothing_vouches_for_is_flagged(number):
    for text in (
        f"It reaches {number}.",
        f"> It reaches **{number}** at last",
        f"| a | {number} |\n| - | - |",
        f"It reaches {number}, not 98.0 % <!-- claim: mean({GROWING}) -->",
        f"98.0 % <!-- claim: mean({GROWING}) -->, not {number}",
        f"It reaches {number}.\n\nThe other has 94.26 % <!-- source: its table -->",
        f"It reaches {number} and stays ahead <!-- claim: mean({GROWING}) > mean({FIXED}) -->",
        f"It reaches {number} <!-- clam: mean({GROWING}) -->",
    ):
        [fault] = faults(text)
        assert number.split(" ± ")[0] in fault, text


def test_claims_are_found_in_pages_and_in_the_markdown_of_notebooks(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "book" / "page.md").write_text("---\ntitle: 97.7 %\n---\n98.1 %")
    cells = [{"cell_type": "code", "source": ["97.7 %"]}, {"cell_type": "markdown", "source": ["97.8\n", " %"]}]
    (tmp_path / "notebooks" / "01.ipynb").write_text(json.dumps({"cells": cells}))
    texts = dict(claims.texts(tmp_path))
    assert list(texts) == ["book/page.md", "notebooks/01.ipynb, cell 1"]
    assert [len(claims.inspect(text, "")[1]) for text in texts.values()] == [1, 1]
