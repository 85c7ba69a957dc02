# One command each, the same on every machine.
#
#   make demo    sets everything up and runs the whole flow on real clips
#   make test    sets everything up, then lint, types, and every test that is not slow: what CI runs
#   make slow    the slow tests: official-size networks, kills and restarts, a real browser
#   make test-matrix    a short suite on each Python that is installed, with the newest packages
#   make dist    source distribution and wheel, checked, and installed outside the clone
#   make docs    the documentation, into site/; a dead link stops it
#   make notebooks    runs the notebooks again and stores their outputs
#   make bench   the benchmarks, with the machine and the versions beside every number
#
# The torch that is installed is TORCH. On Linux, PyPI's wheel is a CUDA build of several GB; for
# the CPU build:
#   make demo TORCH_PIP_ARGS="--index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3.11
VENV ?= .venv
TORCH ?= torch==2.13.0
TORCH_PIP_ARGS ?=
# chaos, streams, and inspect_report take longer, or need a folder: run them by hand.
BENCHMARKS = networks loader inline_labels training_memory generator dataset overhead memory scale
# One thread: on a machine that does other things too, threads that wait for each other make tests
# take ten times as long.
PYTEST = OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest
# The fast tests run in as many processes as there are cores. The slow ones take all of them.
AT_ONCE = --numprocesses logical --maxprocesses 8 --dist worksteal
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check

.PHONY: setup demo test slow test-matrix dist lint docs notebooks bench clean
.DEFAULT_GOAL := test

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet $(TORCH_PIP_ARGS) "$(TORCH)"
	$(PIP) install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: setup
	$(VENV)/bin/tapdistill demo

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test: lint
	$(PYTEST) $(AT_ONCE) -m "not slow"

slow: setup
	$(PYTEST) -m slow

test-matrix:
	$(PYTHON) tests/matrix.py $(MATRIX_ARGS)

dist: setup
	$(PIP) install --quiet build twine
	$(VENV)/bin/python tests/dist.py --torch "$(TORCH)" $(DIST_ARGS)

docs: setup
	$(VENV)/bin/zensical build --strict

notebooks: setup
	$(VENV)/bin/python notebooks/make_notebooks.py

bench: setup
	for name in $(BENCHMARKS); do $(VENV)/bin/python -m benchmarks.$$name || exit 1; done

clean:
	rm -rf $(VENV) demo site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
