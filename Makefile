# Each target does all of its own set-up: a fresh machine needs Python 3.11 or later with pip and venv, nothing else.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt
FAST := models pipeline plugins public registry server settings
KERNELS := contrib/poolkit-cpu-kernels
KERNEL_SOURCES := $(wildcard $(addprefix $(KERNELS)/,CMakeLists.txt pyproject.toml native/*.cpp native/*.h))
CONTRIB := $(filter-out $(KERNELS),$(patsubst %/pyproject.toml,%,$(wildcard contrib/*/pyproject.toml)))

.PHONY: demo test test-fast lint bench profile docs fidelity sanitize

demo: .venv/installed-demo .venv/installed-kernels
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

bench: .venv/installed-dev  # poolkit and its peers in one run: BENCH=--quick for a quarter of it
	$(BIN)/python -m benchmarks.compare $(BENCH)

profile: .venv/installed-dev  # measures where the time of a request goes and writes docs/performance.md
	$(BIN)/python -m benchmarks.profile

docs: .venv/installed-dev  # rewrites the tables that are generated from the code
	$(BIN)/python docs/generate.py

fidelity: .venv/installed-dev  # measures every row of docs/fidelity.md and writes the page
	PYTHONPATH=tests $(BIN)/python docs/fidelity_table.py

sanitize: .venv/installed-kernels  # the kernels' calls under the address and undefined-behaviour sanitizers
	$(BIN)/cmake -S $(KERNELS) -B $(KERNELS)/build/sanitize -G Ninja -D CMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
		-D SANITIZE=address,undefined -D 'LIBRARIES=avx2;emulated'
	$(BIN)/cmake --build $(KERNELS)/build/sanitize
	$(BIN)/ctest --test-dir $(KERNELS)/build/sanitize --output-on-failure

.venv/installed-contrib: .venv/installed-dev .venv/installed-kernels $(CONTRIB:=/pyproject.toml)
	$(INSTALL) --no-build-isolation --no-deps $(CONTRIB:%=--editable %)
	touch $@

# Without a C++ compiler this installs no library, and poolkit runs on torch; the last command says which one is used.
.venv/installed-kernels: $(KERNEL_SOURCES) constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) cmake ninja numpy scikit-build-core
	$(INSTALL) --no-build-isolation --no-deps --editable $(KERNELS) \
		--config-settings build-dir=build/libraries --config-settings cmake.define.EMULATE_TILES=ON
	$(BIN)/python -m poolkit_cpu_kernels
	touch $@

.venv/installed-%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) --editable '.[$*]'
	touch $@
