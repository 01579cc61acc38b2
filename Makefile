# Every target does its whole set-up itself, in .venv. `make` alone lists them.
PROFILE ?= quick
WORKERS ?= 2
# Seconds that one cell of a notebook may take.
TIMEOUT ?= 900
# Without bytecode on disk, every notebook would compile PyTorch's sources anew: seconds each.
unexport PYTHONDONTWRITEBYTECODE
SETUP := .venv/.ready
BIN := .venv/bin
OPTIONS := PROFILE WORKERS TIMEOUT NOTEBOOKS PYTHON BROWSER

.PHONY: help book test quick lab notebooks paper address clean
.DELETE_ON_ERROR:

help:
	@echo "make book                        execute the notebooks and build _build/html/index.html"
	@echo "make book PROFILE=standard       the same on the real data sets (quick | standard | full)"
	@echo "make test                        run the tests and every notebook, whose outputs the book then shows"
	@echo "make quick                       the tests without the slow ones and without the notebooks"
	@echo "make lab                         open the notebooks in JupyterLab"
	@echo "make notebooks PROFILE=standard  execute the notebooks with papermill into _build/notebooks"
	@echo "make notebooks seed=3 NOTEBOOKS=notebooks/02_growing_wider.ipynb   one of them, with a parameter"
	@echo "make paper                       the book, and its paper as _build/paper.pdf (needs Chromium or Chrome)"
	@echo "make address REPO=owner/name     let everything point to another repository"
	@echo "make clean                       remove what was built (.venv and the data sets stay)"
	@echo "PYTHON=python3.12 make ...       choose the Python that .venv is made from"

book: $(SETUP)
	GROWLIB_PROFILE=$(PROFILE) OMP_NUM_THREADS=1 $(BIN)/python book/cache.py --workers $(WORKERS) --timeout $(TIMEOUT)
	GROWLIB_PROFILE=$(PROFILE) $(BIN)/jupyter-book build . --all -W --keep-going
	@echo "The book: $(CURDIR)/_build/html/index.html"

# GROWLIB_DATA is dropped so that the tests see the data sets that every clone has.
PYTEST := env -u GROWLIB_DATA GROWLIB_PROFILE=quick OMP_NUM_THREADS=1 MPLBACKEND=agg \
	  $(BIN)/pytest -n $(WORKERS) --maxschedchunk=1

test: $(SETUP)
	$(PYTEST) --nbmake --nbmake-timeout=$(TIMEOUT) --book notebooks tests

quick: $(SETUP)
	$(PYTEST) -m "not slow" tests

lab: $(SETUP)
	$(BIN)/jupyter lab notebooks

# Whatever else stands on the command line is a parameter of notebooks. (A space in a value parts it into words.)
PARAMETERS = $(foreach word,$(filter-out $(addsuffix =%,$(OPTIONS)),$(MAKEOVERRIDES)),$(if $(findstring =,$(word)),$(word)))
notebooks: $(SETUP)
	$(BIN)/python book/run.py profile=$(PROFILE) $(PARAMETERS) \
	  --into _build/notebooks/$(PROFILE) $(if $(NOTEBOOKS),--notebooks $(NOTEBOOKS))

paper: book
	@for browser in $(or $(BROWSER),chromium chromium-browser google-chrome); do \
	  if command -v $$browser >/dev/null; then found=$$browser; break; fi; \
	done; \
	if [ -z "$$found" ]; then echo "No Chromium or Chrome: name yours with BROWSER=, or print the page" >&2; exit 1; fi; \
	$$found --headless --no-sandbox --disable-gpu --no-pdf-header-footer --virtual-time-budget=8000 \
	  --print-to-pdf=$(CURDIR)/_build/paper.pdf file://$(CURDIR)/_build/html/book/paper.html 2>/dev/null
	@echo "The paper: $(CURDIR)/_build/paper.pdf"

address: $(SETUP)
	$(BIN)/python book/address.py $(REPO)

clean:
	rm -rf _build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests book benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# A .venv that already fits is brought up to date; any other, or a new PYTHON=, makes a fresh one.
$(SETUP): requirements.lock pyproject.toml
	@fits='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'; \
	if [ -n "$(PYTHON)" ] || ! $(BIN)/python -c "$$fits" 2>/dev/null; then \
	  for candidate in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python); do \
	    if $$candidate -c "$$fits" 2>/dev/null; then found=$$candidate; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "This book needs Python 3.11, 3.12 or 3.13; $(or $(PYTHON),python3) is: $$($(or $(PYTHON),python3) --version 2>&1)" >&2; \
	    echo "Install one of them, then name it: make PYTHON=/path/to/python3.12 ..." >&2; \
	    exit 1; \
	  fi; \
	  echo "Making .venv with $$($$found --version)"; \
	  $$found -m venv --clear .venv || exit 1; \
	fi
	@echo "Installing the packages of requirements.lock into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@
