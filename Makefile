# One virtual environment, .venv, made by itself the first time a target needs it.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test test-all test-cuda lint lab notebooks docs wheel clean

help:
	@echo "make demo       run the whole path on a built-in clip and model; results in demo/"
	@echo "make test       run the tests, in two processes"
	@echo "make test-all   run what make test leaves for a release: the benchmark, the notebooks, the wheel, full disks, what is killed on its way"
	@echo "make test-cuda  run on a GPU what must give there what it gives on the CPU"
	@echo "make lint       check style and types"
	@echo "make lab        open the notebooks in JupyterLab"
	@echo "make notebooks  run them and keep their outputs"
	@echo "make docs       build the site of guides, notebooks and public names in docs/_build/"
	@echo "make wheel      build the wheel and the source archive in dist/"
	@echo "make clean      remove demo/, caches and build leftovers; .venv/ and runs/ stay"

demo: .venv/.installed
	@$(BIN)/tedlens demo --out demo

# Two processes of one thread do twice as much as one of two; what a file's tests share is made once (see conftest.py).
test: .venv/.installed
	@$(BIN)/pytest -n 2 --dist loadscope --no-loadscope-reorder

test-all: .venv/.installed
	@$(BIN)/pytest -n 2 --dist loadscope --no-loadscope-reorder -m release

test-cuda: .venv/.installed
	@$(BIN)/pytest -m cuda

lint: .venv/.installed
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

lab: .venv/.installed
	@$(BIN)/jupyter lab notebooks

notebooks: .venv/.installed
	@$(BIN)/python notebooks/run.py

docs: .venv/.docs
	@$(BIN)/typer tedlens.cli utils docs --name tedlens --title Commands --output docs/commands.md >/dev/null
	@$(BIN)/sphinx-build -q -W --keep-going -c docs . docs/_build/html
	@echo "Open docs/_build/html/docs/index.html"

# The wheel is built from the source archive, so that both are known to be whole.
wheel: .venv/.installed
	@rm -rf dist
	@$(BIN)/python -m build --outdir dist

clean:
	@rm -rf demo build dist docs/_build docs/api docs/commands.md .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name .venv -prune -o -name runs -prune -o -name __pycache__ -exec rm -rf {} +

# The stamp is written last: an install that broke off is done again, a finished one is not.
.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "tedlens needs Python 3.11 or newer: install one and name it, as in: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up .venv (once, a few minutes) ..."
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[notebook,distributed,dev]"
	@touch $@
	@echo "Done."

.venv/.docs: .venv/.installed
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	@touch $@
