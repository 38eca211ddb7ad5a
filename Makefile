# Both targets work from a clean clone and may be run again at any time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint setup slurm clean

demo: setup
	$(BIN)/perikarya demo --out demo

test: setup lint
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/ruff format --check src tests benchmarks tools
	$(BIN)/mypy
	$(BIN)/lint-imports

# On a Slurm that may be maltreated: one that SLURM_CONF names, or one that the script in PERIKARYA_SLURM_UP starts here.
slurm: setup
	$(BIN)/python -m pytest -m "slurm and not slow"

# Installed again only when the project's requirements or the pins change.
setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all,dev]"
	touch $@

clean:
	rm -rf $(VENV) demo build dist
