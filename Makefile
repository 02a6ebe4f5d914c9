# Every target makes its own environment in .venv, through constraints.txt.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
THREADS ?= 2
export OMP_NUM_THREADS := $(THREADS)
export TOKENIZERS_PARALLELISM := false
# Waiting threads sleep: where other work takes a core, spinning ones stop all progress.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: help quickstart test test-fast test-slow lint types wheel clean

help:  ## List the targets.
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/'

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

quickstart: $(VENV)/.installed  ## Run the whole chain on the toy world (minutes, two CPU cores).
	HF_HUB_OFFLINE=1 $(BIN)/delrec quickstart --output_dir runs/quickstart

test: test-fast test-slow  ## Run every test that needs no GPU.

test-fast: $(VENV)/.installed  ## Run the fast tests.
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(THREADS) -m "not slow and not gpu"

test-slow: $(VENV)/.installed  ## Run the tests that take minutes.
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m "slow and not gpu"

lint: $(VENV)/.installed  ## Check style and format.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed  ## Check types.
	$(BIN)/mypy

wheel: $(VENV)/.installed  ## Build the wheel into dist/.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt build
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m build --wheel

clean:  ## Remove the environment and everything built.
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
