"""The form of a chapter: CONTRIBUTING.md describes it, book/skeleton.ipynb shows it."""

import ast
import re
from pathlib import Path

import address
import nbformat
import pytest
import yaml
from nbstripout import strip_output
from papermill import inspect_notebook

ROOT = Path(__file__).parents[1]
REPOSITORY = address.source()
SKELETON = nbformat.read(ROOT / "book/skeleton.ipynb", as_version=4)
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CHAPTERS = [pytest.param(path, nbformat.read(path, as_version=4), id=path.stem) for path in PATHS]
EVERY = [*CHAPTERS, pytest.param(ROOT / "notebooks/NN_name.ipynb", SKELETON, id="skeleton")]
EXTENSIVE = [chapter for chapter in CHAPTERS if chapter.id != "00_start_here"]


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose_of(notebook):
    """The text a reader reads: without solutions, comments and references."""
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    text = re.sub(r"<details>.*?</details>|<!--.*?-->", "", text, flags=re.DOTALL)
    return text.rpartition("\n## References")[0]


def test_there_are_chapters():
    assert CHAPTERS


@pytest.mark.parametrize("path, notebook", EVERY)
def test_no_outputs_are_committed(path, notebook):
    stripped = strip_output(nbformat.from_dict(notebook.copy()), keep_output=False, keep_count=False, keep_id=True)
    assert notebook == stripped, f"nbstripout --keep-id notebooks/{path.name}"


@pytest.mark.parametrize("path, notebook", EVERY)
def test_title_badges_and_box_come_first(path, notebook):
    first = notebook.cells[0].source
    number = path.name[:2]
    if number.isdigit() and number != "00":
        assert re.match(rf"# {int(number)} · \S", first), "the title starts with the chapter's number, as in '# 2 · '"
    raw = f"https://raw.githubusercontent.com/{REPOSITORY}/main/notebooks/{path.name}"
    assert f"(https://colab.research.google.com/github/{REPOSITORY}/blob/main/notebooks/{path.name})" in first
    assert f"(https://kaggle.com/kernels/welcome?src={raw})" in first
    for words in ("> **You will**", "> **You need**", "> **Time**"):
        assert words in first


@pytest.mark.parametrize("path, notebook", EVERY)
def test_there_is_one_title(path, notebook):
    markdown = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    text = re.sub(r"```.*?```", "", "\n".join(markdown), flags=re.DOTALL)
    assert len(re.findall(r"^# ", text, flags=re.MULTILINE)) == 1


@pytest.mark.parametrize("path, notebook", EVERY)
def test_the_second_cell_installs(path, notebook):
    source = re.sub(r"growlib\[analysis,[a-z,]+\]", "growlib[analysis]", notebook.cells[1].source)  # further extras
    assert source == SKELETON.cells[1].source
    assert "hide-cell" in notebook.cells[1].metadata.tags


@pytest.mark.parametrize("path, notebook", EVERY)
def test_one_cell_holds_all_parameters_and_the_next_checks_the_profile(path, notebook):
    tagged = [index for index, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    assert tagged == [2]
    common = SKELETON.cells[2].source.splitlines()[:5]
    assert notebook.cells[2].source.splitlines()[:5] == common
    for statement in ast.parse(notebook.cells[2].source).body[1:]:
        assert isinstance(statement, ast.AnnAssign), f"{ast.unparse(statement)!r} has no type hint"
    derived = "".join(cell.source for cell in code_of(notebook)[2:4])
    assert re.search(r"by_profile\(\s*profile", derived), "the cell after the parameters does not check the profile"


def refusal(notebook, **given):
    """What the cell after the parameters says about values that papermill would inject between the two."""
    names = {}
    exec(notebook.cells[2].source, names)
    names.update(given)
    try:
        exec(notebook.cells[3].source, names)
    except ValueError as error:
        return str(error)


def defaults_of(notebook):
    statements = ast.parse(notebook.cells[2].source).body[1:]
    return {one.target.id: getattr(one.value, "value", None) for one in statements}


@pytest.mark.parametrize("path, notebook", EVERY)
def test_the_cell_after_the_parameters_checks_all_of_them(path, notebook, monkeypatch):
    monkeypatch.delenv("GROWLIB_PROFILE", raising=False)
    assert notebook.cells[3].source.startswith("from growlib import check_parameters\n")
    assert notebook.cells[3].metadata.tags == ["hide-cell"]
    assert refusal(notebook) is None  # the negative control: what a chapter comes with it takes
    for name, default in defaults_of(notebook).items():
        for bad in ("five", -8, None, True):
            message = refusal(notebook, **{name: bad})
            assert message, f"{name}={bad!r} is taken"
            assert message.startswith(f"the parameter {name} takes ") and repr(bad) in message
        if isinstance(default, int):
            assert "a whole number from" in refusal(notebook, **{name: 1.5})
            assert bool(refusal(notebook, **{name: 0})) == (default != 0), f"{name}=0 leaves it to the profile, or not"
    assert "the parameter device takes auto, cpu, cuda or cuda:N, and got 'gpu'" in refusal(notebook, device="gpu")
    assert "quick, standard, full" in refusal(notebook, profile="fast")


@pytest.mark.parametrize("path, notebook", CHAPTERS)
def test_papermill_explains_every_parameter(path, notebook):
    parameters = inspect_notebook(path)
    names = [statement.target.id for statement in ast.parse(notebook.cells[2].source).body[1:]]
    assert list(parameters) == names
    for name, parameter in parameters.items():
        assert parameter["help"], f"{name} has no comment that says what it is"


@pytest.mark.parametrize("path, notebook", EVERY)
def test_cells_are_short_and_no_line_is_cut_by_the_page(path, notebook):
    for cell in code_of(notebook):
        lines = cell.source.splitlines()
        assert len(lines) <= 12, f"{len(lines)} lines in the cell that starts with {lines[0]!r}"
        for line in lines:
            assert len(line) <= 79, f"{len(line)} characters: {line}"


@pytest.mark.parametrize("path, notebook", EXTENSIVE)
def test_a_chapter_is_neither_a_note_nor_a_book(path, notebook):
    words = len(prose_of(notebook).split())
    visible = [cell for cell in code_of(notebook) if not {"hide-cell", "hide-input"} & {*cell.metadata.get("tags", [])}]
    lines = sum(bool(line.strip()) for cell in visible for line in cell.source.splitlines())
    assert 1500 <= words <= 2500
    assert 60 <= lines <= 150


@pytest.mark.parametrize("path, notebook", EVERY)
def test_figures_have_a_caption_a_name_and_alt_text(path, notebook):
    for cell in code_of(notebook):
        if "mystnb" in cell.metadata:
            figure, image = cell.metadata.mystnb.get("figure", {}), cell.metadata.mystnb.get("image", {})
            assert figure.get("caption") and image.get("alt"), cell.source
            assert figure.get("name", "").startswith(f"fig-{path.name[:2]}-"), cell.source


def test_figure_names_are_unique():
    names = [
        cell.metadata.mystnb.figure.name
        for chapter in CHAPTERS
        for cell in code_of(chapter.values[1])
        if "figure" in cell.metadata.get("mystnb", {})
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path, notebook", CHAPTERS)
def test_exercises_have_folded_solutions(path, notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    exercises = re.findall(r"^\*\*(\d)\. ", text.partition("## Exercises")[2], flags=re.MULTILINE)
    assert 3 <= len(exercises) <= 5 or path.stem == "00_start_here"
    assert text.count("<details>") == text.count("</details>") >= len(exercises)
    assert text.count("<details>\n<summary>") == text.count("<details>"), "the summary follows on its own line"


@pytest.mark.parametrize("path, notebook", EVERY)
def test_the_end_is_what_to_remember_and_references(path, notebook):
    assert notebook.cells[-1].cell_type == "markdown"
    assert "## What to remember\n" in "\n".join(cell.source for cell in notebook.cells[-3:])
    references = notebook.cells[-1].source.partition("## References\n")[2]
    keys = re.findall(r"<!-- bib: (\S+) -->", references)
    entries = re.findall(r"@\w+\{(\w+),", (ROOT / "book/references.bib").read_text())
    assert keys, "no reference names its entry of book/references.bib"
    assert set(keys) <= set(entries)


def test_every_chapter_is_in_the_table_of_contents_once():
    parts = yaml.safe_load((ROOT / "_toc.yml").read_text())["parts"]
    files = [chapter["file"] for part in parts for chapter in part["chapters"]]
    assert [file for file in files if file.startswith("notebooks/")] == [f"notebooks/{path.stem}" for path in PATHS]
    for file in files:
        assert list(ROOT.glob(f"{file}.*")), f"{file} is listed but does not exist"


def test_bib_entries_have_different_keys():
    entries = re.findall(r"@\w+\{(\w+),", (ROOT / "book/references.bib").read_text())
    assert len(entries) == len(set(entries))
