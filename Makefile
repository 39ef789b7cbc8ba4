# make setup   make .venv, install everything and compile kernels (a second run with nothing changed does nothing)
# make demo    simulate raw files, process them, train three epochs; prints where everything is
# make test    run the tests, in PROCESSES processes (2)
# make test-services  run those that start servers, ranks or launchers on this machine, in as many processes
# make test-matrix  the tests against the wheel in new environments: each of PYTHONS that is found, lowest and highest versions
# make check   lint, formatting, types
# make configuration  renew docs/configuration.md from the comments in conf/
# make docs    build docs/_build/html, tutorials run and internal links checked; without network (minutes)
# make linkcheck  ask for every external link of the docs; needs the network
# make bench   run the benchmarks in benchmarks/
# make faults  kill, damage and starve the system at every point, with counts (tests/faults; minutes)
# make grid    compare the batches of every combination of workers, threads, cache, start method and ranks

PYTHON ?= python3
PYTEST_ARGS ?=
BIN := .venv/bin
STAMP := .venv/.setup-done
DEMO := outputs/demo

PROCESSES ?= 2

.PHONY: setup demo test test-services test-matrix check configuration docs linkcheck bench grid faults
.DEFAULT_GOAL := setup

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0] + "; try make PYTHON=python3.12 setup" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
# torch alone and first: which build of it is right (CPU, CUDA) depends on the machine and is decided by its pip
# settings; a build that is already there satisfies the plain version and is kept by the second line.
	$(BIN)/python -m pip install --quiet torch==2.13.0
# Groups of dependencies are for pip 25.1 and newer; the one that comes with Python may be older.
	$(BIN)/python -m pip install --quiet 'pip>=25.1'
	$(BIN)/python -m pip install --quiet -c constraints.txt -e . --group dev
	$(BIN)/scvae-data compile
# umap compiles too, when it is first imported.
	$(BIN)/python -W ignore -c 'import umap'
	@touch $@

demo: setup
	@rm -rf $(DEMO)
	$(BIN)/python process.py paths.processed_dir=$(DEMO)/chunked_processed paths.data_dir=$(DEMO)/data hydra.run.dir=$(DEMO)/process
	$(BIN)/python train.py data=chunked paths.processed_dir=$(DEMO)/chunked_processed trainer.max_epochs=3 hydra.run.dir=$(DEMO)/train
	@echo "chunks     $(DEMO)/chunked_processed"

# A module's tests stay together, with what they share; tests/conftest.py says which modules are begun first.
test: setup
	$(BIN)/python -m pytest -m 'not services' -n $(PROCESSES) --dist loadscope --no-loadscope-reorder $(PYTEST_ARGS)

test-services: setup
	$(BIN)/python -m pytest -m services -n $(PROCESSES) --dist loadscope --no-loadscope-reorder $(PYTEST_ARGS)

# An hour or more. Those of PYTHONS that are not there are told; a path will do as well as a name.
PYTHONS ?= python3.11 python3.12 python3.13
SETS ?= lowest highest

test-matrix: setup
	$(BIN)/python -m tests.support.matrix --pythons $(PYTHONS) --sets $(SETS) -- -m 'not services' -n $(PROCESSES) --dist loadscope $(PYTEST_ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

configuration: setup
	$(BIN)/python -m scvae_data.commands.explain > docs/configuration.md

# Anew each time: tutorials follow on each other, and show what the package does now.
docs: setup
	$(BIN)/python -m sphinx --fresh-env --fail-on-warning --keep-going docs docs/_build/html

linkcheck: setup
	$(BIN)/python -m sphinx -b linkcheck -D nb_execution_mode=off docs docs/_build/linkcheck

bench: setup
	@set -e; for script in $(sort $(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script; done

faults: setup
	SCVAE_DATA_FAULTS=1 SCVAE_DATA_KILLS=20 $(BIN)/python -m pytest tests/faults $(PYTEST_ARGS)

grid: setup
	$(BIN)/python -m tests.support.grid hash
	$(BIN)/python -m tests.support.grid source
