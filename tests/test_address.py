"""The address of the repository: said in one place, the same everywhere, changed by one command."""

import shutil
import subprocess
from pathlib import Path

import address
import pytest
import yaml

ROOT = Path(__file__).parents[1]
REPOSITORY = address.source()
URL, PAGES = f"https://github.com/{REPOSITORY}", address.pages(REPOSITORY)


@pytest.fixture
def project(tmp_path):
    """A copy of every text of the project that could hold the address."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        if not name.startswith("data/results/") and (ROOT / name).suffix != ".npz" and (ROOT / name).exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def texts(root):
    return {path.relative_to(root): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_all_places_agree_with_pyproject():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert config["repository"]["url"] == citation["repository-code"] == URL
    assert config["html"]["baseurl"] == f"{PAGES}/" and citation["url"] == PAGES
    for name in ("README.md", "CONTRIBUTING.md", "book/how_to_use.md", "book/results.md", "book/skeleton.ipynb"):
        text = (ROOT / name).read_text()
        assert URL in text or PAGES in text, name
    for path in (ROOT / "notebooks").glob("*.ipynb"):  # their badges: test_notebooks.py
        assert f"git+{URL}" in path.read_text()


def test_one_command_moves_every_mention_and_moves_it_back(project):
    before = texts(project)
    moved = address.move("Someone-else/my.book", project)
    after = texts(project)
    assert len(moved) > 25 and address.source(project) == "Someone-else/my.book"
    assert not [name for name, text in after.items() if REPOSITORY in text or PAGES in text]
    assert "https://someone-else.github.io/my.book/" in after[Path("_config.yml")]
    address.move(REPOSITORY, project)
    assert texts(project) == before


def test_a_name_without_an_owner_is_refused_and_changes_nothing(project):
    before = texts(project)
    with pytest.raises(SystemExit, match="OWNER/NAME, not 'my-book'"):
        address.move("my-book", project)
    assert texts(project) == before
