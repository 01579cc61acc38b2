"""Fill the pages' `<!-- generated: WHAT -->` lines when the book is built, so that they cannot fall behind the code."""

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
from papermill import inspect_notebook

from growlib import __path__ as package

ROOT = Path(__file__).parents[2]


def title_of(path: Path) -> str:
    """Return the heading of a notebook."""
    first = nbformat.read(path, as_version=4).cells[0].source
    return re.match(r"# (.+)", first)[1]


def parameters() -> Iterator[str]:
    """Yield a table of parameters for every notebook of the book."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        yield f"### {title_of(path)}\n"
        yield f"`notebooks/{path.name}`\n"
        yield "| parameter | type | default | meaning |\n| --- | --- | --- | --- |"
        for name, parameter in inspect_notebook(path).items():
            meaning = parameter["help"].replace("|", "\\|")
            yield f"| `{name}` | {parameter['inferred_type_name']} | `{parameter['default']}` | {meaning} |"
        yield ""


def modules() -> Iterator[str]:
    """Yield the documentation of every public module of growlib."""
    folder = Path(package[0])
    for path in sorted([*folder.glob("[a-z]*.py"), *folder.glob("[a-z]*/__init__.py")]):
        name = path.parent.name if path.name == "__init__.py" else path.stem
        options = ["members", *["imported-members"] * (path.name == "__init__.py")]
        yield f"## growlib.{name}\n"
        yield f"```{{eval-rst}}\n.. automodule:: growlib.{name}"
        yield from (f"   :{option}:" for option in options)
        yield "```\n"


GENERATED = {"parameters": parameters, "modules": modules}


def fill(app, name: str, source: list[str]) -> None:
    """Replace the generated lines of one page."""
    if name.startswith("book/"):
        source[0] = re.sub(
            r"^<!-- generated: (\w+) -->$",
            lambda match: "\n".join(GENERATED[match[1]]()),
            source[0],
            flags=re.MULTILINE,
        )


def plain(app, what, name, thing, options, lines: list[str]) -> None:
    """Let a docstring be plain text: stars and trailing underscores are no markup, indented blocks are kept."""
    for number, line in enumerate(lines):
        parts = line.split("`")
        parts[::2] = [re.sub(r"(?<=\w)_(?!\w)|\*", r"\\\g<0>", part) for part in parts[::2]]
        lines[number] = "`".join(parts)
        indented = " " * (len(line) - len(line.lstrip()) + 4)
        blank, block = [*lines[number + 1 : number + 3], "", ""][:2]
        if line.endswith(":") and not blank and block.startswith(indented):
            lines[number] += ":"


def setup(app) -> dict:
    """Register with Sphinx."""
    # Before napoleon reads the sections.
    app.connect("autodoc-process-docstring", plain, priority=100)
    app.connect("source-read", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
