"""Publish the book under another name: rewrite the repository's address wherever it stands.

`Source` in pyproject.toml is the one place that says it; a test holds that all others agree.
"""

import argparse
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = ("*.md", "*.toml", "*.cff", "_config.yml", "book/*.md", "book/*.ipynb", "notebooks/*.ipynb")


def source(root: Path = ROOT) -> str:
    """Return the repository as OWNER/NAME."""
    urls = tomllib.loads((root / "pyproject.toml").read_text())["project"]["urls"]
    return urls["Source"].removeprefix("https://github.com/")


def pages(repository: str) -> str:
    """Return the address of the hosted book."""
    owner, name = repository.split("/")
    return f"https://{owner.lower()}.github.io/{name}"


def move(to: str, root: Path = ROOT) -> list[Path]:
    """Rewrite the address in every file that holds it, and return these files."""
    if not re.fullmatch(r"[\w-]+/[\w.-]+", to, re.ASCII):
        raise SystemExit(f"a repository is OWNER/NAME, not {to!r}")
    old, moved = source(root), []
    for path in sorted(path for pattern in FILES for path in root.glob(pattern)):
        text = path.read_text()
        new = text.replace(pages(old), pages(to))
        new = re.sub(rf"(?<=/){re.escape(old)}(?![\w-])", to, new)
        if new != text:
            path.write_text(new)
            moved.append(path)
    return moved


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", metavar="OWNER/NAME")
    for path in move(parser.parse_args().repository):
        print(path.relative_to(ROOT))
