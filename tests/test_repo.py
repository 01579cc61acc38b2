"""What holds the project together: packaging, lock, environment, imports, pictures."""

import ast
import os
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from importlinter.cli import lint_imports
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def required():
    extras = [packages for extra, packages in PROJECT["optional-dependencies"].items() if not extra.endswith("peers")]
    return [Requirement(text) for text in [*PROJECT["dependencies"], *[text for extra in extras for text in extra]]]


@pytest.mark.parametrize("requirement", required(), ids=str)
def test_the_lock_satisfies_pyproject(requirement):
    pins = [pin for pin in locked() if canonicalize_name(pin.name) == canonicalize_name(requirement.name)]
    assert pins, f"{requirement.name} is not locked: run the uv command of CONTRIBUTING.md"
    for pin in pins:
        (version,) = [part.version for part in pin.specifier]
        assert version in requirement.specifier


def test_requirements_keep_what_colab_has():
    for requirement in map(Requirement, PROJECT["dependencies"]):
        assert all(part.operator == ">=" for part in requirement.specifier), f"{requirement} is more than a lower bound"
    constraints = (ROOT / ".github/colab-constraints.txt").read_text().splitlines()
    colab = {pin.name: pin for pin in map(Requirement, [line for line in constraints if not line.startswith("#")])}
    for requirement in required():
        if requirement.name in colab:
            (version,) = [part.version for part in colab[requirement.name].specifier]
            assert version in requirement.specifier


def test_the_conda_environment_installs_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert f"python {PROJECT['requires-python']}" in environment
    (pip,) = [entry["pip"] for entry in environment if isinstance(entry, dict)]
    assert pip == ["-r requirements.lock", "-e ."]


def test_imports_point_downwards(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert lint_imports(no_cache=True) == 0


def test_an_import_that_points_upwards_is_found(tmp_path, monkeypatch):
    (tmp_path / "tower").mkdir()
    (tmp_path / "tower/__init__.py").touch()
    (tmp_path / "tower/top.py").touch()
    (tmp_path / "tower/bottom.py").write_text("from tower import top\n")
    (tmp_path / ".importlinter").write_text(
        "[importlinter]\nroot_package = tower\n"
        "[importlinter:contract:1]\nname = down\ntype = layers\ncontainers = tower\nlayers =\n  top\n  bottom\n"
    )
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"]
    answer = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True)
    assert answer.returncode == 1


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff_has_nothing_to_say(command):
    folders = ["src", "tests", "book", "benchmarks", "data", "notebooks"]
    ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", *folders]
    answer = subprocess.run(ruff, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_local_links_lead_somewhere(name):
    text = (ROOT / name).read_text()
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)|src=\"(?!https?://)([^\"]+)\"", text)
    assert targets
    for target in ("".join(groups) for groups in targets):
        assert (ROOT / target).exists(), target


def test_the_pictures_are_those_that_the_code_draws():
    pictures = runpy.run_path(str(ROOT / "book/art.py"))["pictures"]()
    assert {"cover.svg", "logo.svg", "favicon.svg"} == set(pictures)
    for name, text in pictures.items():
        assert (ROOT / "book/_static" / name).read_text() == text, "run python book/art.py"


def test_pages_ask_no_other_host_for_anything():
    for path in [*ROOT.glob("book/**/*.css"), *ROOT.glob("book/*.md"), *ROOT.glob("book/_static/*.js")]:
        loads = re.findall(
            r"(?:src=[\"']|url\([\"']?|@import [\"']|import\(?[\"'])(?:https?:)?//[^\"')]+", path.read_text()
        )
        assert not loads, f"{path.name} loads {loads}"


def test_make_names_the_python_it_needs(tmp_path):
    """A wrong PYTHON ends with a sentence, not with a traceback of pip."""
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    old = tmp_path / "python2"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 2.7.18\n[ "$1" = --version ]\n')
    old.chmod(0o755)
    answer = subprocess.run(["make", "test", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode != 0
    assert "needs Python 3.11, 3.12 or 3.13" in answer.stderr
    assert "Python 2.7.18" in answer.stderr
    assert not (tmp_path / ".venv").exists()


def run_notebooks(*arguments):
    command = [sys.executable, ROOT / "book/run.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_parameter_that_no_notebook_has_is_refused_before_one_is_run(tmp_path):
    answer = run_notebooks("profile=quick", "epoch=3", "--into", tmp_path / "done")
    assert answer.returncode != 0 and not (tmp_path / "done").exists()
    assert answer.stderr.startswith("no notebook has the parameter epoch: there are ")
    assert ", epochs, " in answer.stderr
    answer = run_notebooks("epochs", "--into", tmp_path / "done")
    assert answer.returncode != 0 and "write NAME=VALUE" in answer.stderr


def test_a_notebook_gets_the_parameters_that_it_has(tmp_path):
    for name, parameters, code in (("one", "n: int = 1", "print(n)"), ("two", "m: int = 1", "print(m / (m - 5))")):
        cells = [
            nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell(code),
        ]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / f"{name}.ipynb")
    paths = sorted(tmp_path.glob("*.ipynb"))
    answer = run_notebooks("n=7", "m=1e-05", "--into", tmp_path / "done", "--notebooks", *paths)
    assert answer.returncode == 0, answer.stderr
    one = nbformat.read(tmp_path / "done/one.ipynb", as_version=4)
    assert one.cells[-1].outputs[0].text == "7\n" and "m = " not in one.cells[1].source
    answer = run_notebooks("m=5", "--into", tmp_path / "done", "--notebooks", *paths)
    assert answer.returncode != 0 and answer.stderr.endswith("two.ipynb failed: ZeroDivisionError: division by zero\n")


def test_make_hands_parameters_to_the_notebooks(tmp_path):
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/.ready").touch()
    (tmp_path / ".venv/bin/python").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / ".venv/bin/python").chmod(0o755)
    command = ["make", "notebooks", "PROFILE=full", "seed=3", "NOTEBOOKS=a.ipynb b.ipynb"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "book/run.py profile=full seed=3 --into _build/notebooks/full --notebooks a.ipynb b.ipynb" in answer.stdout
    plain = subprocess.run(["make", "notebooks"], cwd=tmp_path, capture_output=True, text=True)
    assert "book/run.py profile=quick --into _build/notebooks/quick\n" in plain.stdout


def test_public_functions_and_classes_have_a_docstring():
    bare = []
    for path in (ROOT / "src/growlib").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            kinds = (ast.FunctionDef, ast.ClassDef)
            if isinstance(node, kinds) and not node.name.startswith("_") and not ast.get_docstring(node):
                bare.append(f"{path.name}: {node.name}")
    assert not bare


def test_the_glossary_explains_every_word_once():
    terms = re.findall(r"^(\S.*)\n  \S", (ROOT / "book/glossary.md").read_text(), re.M)
    assert len(terms) > 50 and not [term for term in terms if terms.count(term) > 1]
