"""What nbmake ran and passed is what the book shows: with --book, a notebook is executed once for both."""

import pytest
from nbmake.nb_run import NotebookRun
from nbmake.pytest_items import NotebookFailedException, NotebookItem


def pytest_addoption(parser):
    parser.addoption("--book", action="store_true", help="keep the outputs of notebooks that pass for `make book`")


def pytest_collection_modifyitems(config, items):
    for place, item in enumerate(items):
        if config.option.book and isinstance(item, NotebookItem):
            items[place] = KeptNotebook.from_parent(item.parent, filename=item.filename)


class KeptNotebook(NotebookItem):
    """A notebook whose outputs the book takes over, once it has passed."""

    def runtest(self):
        import cache

        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("MPLBACKEND", raising=False)  # the pages show the pictures that the tests do without
            result = NotebookRun(self.path, self.config.option.nbmake_timeout).execute()
        if result.error is not None:
            raise NotebookFailedException(result)
        cache.keep(result.nb, self.path.name, cache.current_key())
