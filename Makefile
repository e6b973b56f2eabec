# make demo: a comparison on synthetic scanners.   make test: the whole test suite.
# Both set up .venv on the first call; it is brought up to date when pyproject.toml changes.
# The package index is pip's own setting; a torch that is already in .venv is kept.

PYTHON   ?= python3
VENV     ?= .venv
DEMO_OUT ?= demo
PYTEST_ARGS ?=
TEST_JOBS ?= 2

BIN := $(VENV)/bin

.PHONY: help demo test lint clean
.DELETE_ON_ERROR:

help:
	@echo "make demo   train on three synthetic scanners, compare on a fourth (DEMO_OUT=$(DEMO_OUT))"
	@echo "make test   the whole test suite, in TEST_JOBS=$(TEST_JOBS) processes (PYTEST_ARGS=...)"
	@echo "make lint   ruff, mypy, import-linter"
	@echo "make clean  remove $(VENV) and caches; results stay"

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, but $(PYTHON) is older or missing: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.made
	$(BIN)/python -m pip install --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.made
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.installed

# An earlier demo is made again; anything else in its folder is left alone, and stops the demo.
DEMO_FILES := data cache supervised dual_level comparison.png dice.png table.csv index.html report.html

demo: $(VENV)/.installed
	@if [ -e "$(DEMO_OUT)/data/phantom.json" ]; then \
	  echo "$(DEMO_OUT): an earlier demo, made again"; \
	  for name in $(DEMO_FILES); do rm -rf -- "$(DEMO_OUT)/$$name"; done; \
	fi
	@if [ -e "$(DEMO_OUT)" ] && ! rmdir -- "$(DEMO_OUT)" 2>/dev/null; then \
	  echo "$(DEMO_OUT): holds something that is not of a demo; choose another folder: make demo DEMO_OUT=FOLDER" >&2; exit 2; \
	fi
	$(BIN)/semidg demo --out "$(DEMO_OUT)"

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadfile $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
