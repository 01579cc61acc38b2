"""Execute notebooks with papermill, each with those of the parameters that it has: `python book/run.py seed=3`.

Papermill itself hands over any name, and a misspelt one changes nothing: here a name that no notebook has is refused.
"""

import argparse
import ast
import sys
from pathlib import Path

from papermill import execute_notebook, inspect_notebook
from papermill.exceptions import PapermillExecutionError

ROOT = Path(__file__).parents[1]


def parsed(texts: list[str]) -> dict:
    """Return the values of texts such as "seed=3"; what is no number is text."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (equals and name.isidentifier()):
            sys.exit(f"{text!r} is no parameter: write NAME=VALUE, such as seed=3")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def plan(paths: list[Path], given: dict) -> dict[Path, dict]:
    """Return the parameters of every notebook; a name that none of them has ends the program."""
    known = {path: inspect_notebook(str(path)) for path in paths}
    names = {name for one in known.values() for name in one}
    if strangers := sorted(set(given) - names):
        sys.exit(f"no notebook has the parameter {', '.join(strangers)}: there are {', '.join(sorted(names))}")
    return {path: {name: value for name, value in given.items() if name in one} for path, one in known.items()}


def main() -> None:
    """Execute one notebook after the other, up to the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parameters", nargs="*", metavar="NAME=VALUE", help="such as profile=quick epochs=3")
    parser.add_argument("--notebooks", nargs="+", type=Path, help="paths; all of the book if there is none")
    parser.add_argument("--into", type=Path, default=ROOT / "_build/notebooks", help="the folder of the executed ones")
    options = parser.parse_args()
    paths = options.notebooks or sorted((ROOT / "notebooks").glob("*.ipynb"))
    planned = plan(paths, parsed(options.parameters))
    options.into.mkdir(parents=True, exist_ok=True)
    for path, parameters in planned.items():
        try:
            execute_notebook(path, options.into / path.name, parameters, cwd=path.parent)
        except PapermillExecutionError as error:
            sys.exit(f"{path.name} failed: {error.ename}: {error.evalue}")


if __name__ == "__main__":
    main()
