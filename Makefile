# Each target does all of its own set-up: a fresh machine needs Python 3.11 or later with pip and venv, nothing else.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt
FAST := models pipeline plugins public registry server settings
CONTRIB := $(patsubst %/pyproject.toml,%,$(wildcard contrib/*/pyproject.toml))

.PHONY: demo test test-fast lint bench docs fidelity

demo: .venv/installed-demo
	$(BIN)/poolkit demo

test: lint  # two workers with a thread each: small models gain nothing from more threads
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile

test-fast: .venv/installed-contrib  # what loads no model or only a tiny one
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile $(addprefix tests/,$(FAST))

test-python-%: pyproject.toml constraints.txt  # the same tests on another version: make test-python-3.13
	test -x .venv-$*/bin/python || python$* -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	OMP_NUM_THREADS=1 .venv-$*/bin/python -m pytest --numprocesses 2 --dist loadfile $(addprefix tests/,$(FAST))
	.venv-$*/bin/python -m mypy --python-version $* --package poolkit --package poolkit_plugins --package poolkit_tasks

lint: .venv/installed-contrib
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/installed-dev
	$(BIN)/python -m benchmarks.embed

docs: .venv/installed-dev  # rewrites the tables that are generated from the code
	$(BIN)/python docs/generate.py

fidelity: .venv/installed-dev  # measures every row of docs/fidelity.md and writes the page
	PYTHONPATH=tests $(BIN)/python docs/fidelity_table.py

.venv/installed-contrib: .venv/installed-dev $(CONTRIB:=/pyproject.toml)
	$(INSTALL) --no-build-isolation --no-deps $(CONTRIB:%=--editable %)
	touch $@

.venv/installed-%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) --editable '.[$*]'
	touch $@
