"""What growlib shows to whoever imports it, and what importing it costs."""

import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
import yaml

import growlib

ROOT = Path(__file__).parents[1]
MENUS = {"callbacks", "continual", "costs", "data", "inits", "models", "parallel", "plots", "results"}
MENUS |= {"scores", "signals", "when"}
WALKED = list(pkgutil.walk_packages(growlib.__path__, "growlib."))
MODULES = [module.name for module in WALKED]
PACKAGES = ["growlib", *[module.name for module in WALKED if module.ispkg]]
# What costs time to import and only some need.
HEAVY = {"torchvision", "seaborn", "pandas", "matplotlib", "scipy", "sklearn", "torch._dynamo", "IPython"}


def loaded(code: str) -> set[str]:
    """Returns which heavy packages a fresh Python has loaded after some code."""
    tell = f"\nimport json, sys\nprint(json.dumps([name for name in {sorted(HEAVY)} if name in sys.modules]))"
    answer = subprocess.run([sys.executable, "-c", code + tell], capture_output=True, text=True, check=True)
    return set(json.loads(answer.stdout))


def test_every_public_name_is_there_once():
    assert len(growlib.__all__) == len(set(growlib.__all__))
    assert not [name for name in growlib.__all__ if not hasattr(growlib, name)]


def test_dir_shows_the_menus_and_no_other_module():
    shown = {name for name in dir(growlib) if inspect.ismodule(getattr(growlib, name))}
    assert shown == MENUS
    assert set(growlib.__all__) <= set(dir(growlib))


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_has_the_name_of_a_function_beside_it(package):
    beside = [name.removeprefix(f"{package}.") for name in MODULES if name.rpartition(".")[0] == package]
    things = {name: getattr(importlib.import_module(package), name, None) for name in beside}
    assert not [name for name, thing in things.items() if thing is not None and not inspect.ismodule(thing)]


def imports_of(notebook: Path) -> set[str]:
    """Returns the modules of growlib that a chapter imports from."""
    cells = nbformat.read(notebook, as_version=4).cells
    text = "\n".join(cell.source for cell in cells)
    return set(re.findall(r"^\s*(?:from|import) (growlib[\w.]*)", text, re.M))


@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_chapter_imports_from_growlib_or_a_menu(notebook):
    assert imports_of(notebook) <= {"growlib", *[f"growlib.{menu}" for menu in MENUS]}


def test_importing_growlib_loads_nothing_that_only_some_need():
    assert loaded("import growlib") == set()
    assert loaded("import growlib, pandas") == {"pandas"}  # the negative control


def test_what_is_not_there_is_an_error():
    with pytest.raises(AttributeError, match="no attribute 'plot'"):
        _ = growlib.plot


def test_importing_the_plots_loads_matplotlib_alone():
    assert loaded("import growlib.plots") == {"matplotlib"}


def test_reading_results_needs_no_more_than_a_table_does():
    code = "from growlib import results; results.table('01_a_fixed_network')"
    assert loaded(code) <= {"pandas", "scipy"}


def test_the_import_contract_names_the_folders():
    (contract,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    named = {name for layer in contract["layers"] for name in layer.split(" | ")}
    there = {name.removeprefix("growlib.") for name in MODULES if name.count(".") == 1}
    assert named == there and contract["exhaustive"]


def test_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == growlib.__version__ == version("growlib")


def test_the_downloads_of_the_published_book_are_cached_by_the_file_that_makes_them():
    text = (ROOT / ".github/workflows/publish.yml").read_text()
    (name,) = re.findall(r"hashFiles\('([^']+)'\)", text)
    assert "torchvision" in (ROOT / name).read_text()
