# Every target sets itself up: `make` alone lists them.
SHELL := bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.crossview
TOOLS := build/tools
PID := build/setup.pid
PACKAGES := datasets downstream methods platform storage tune_spaces
ARGS ?=

# Checked on every call: anything that changes what is installed makes the set-up run again. `uv run` and hand-made
# installs touch site-packages (its __pycache__ is made beforehand, so that a mere import does not); a moved checkout
# leaves wrong paths in the scripts.
STALE := $(shell [ "$$(cat $(STAMP) 2>/dev/null)" = "$(CURDIR)" ] && $(BIN)/python -ISc "" 2>/dev/null || echo force)

.PHONY: help setup quickstart test longtest lint format types bench lock clean force

help: ## List the targets.
	@echo "Crossview: make TARGET [ARGS=...]"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## Get uv, create .venv and install exactly what requirements.lock names (every target does this first).
	@echo "setup: $(VENV) holds what requirements.lock names; run $(BIN)/crossview --help"

$(STAMP): requirements.lock pyproject.toml $(wildcard $(VENV)/lib/python3*/site-packages) $(STALE)
	@set -euo pipefail; \
	mkdir -p build; \
	if [ -e $(PID) ]; then \
	  other=$$(cat $(PID)); \
	  if kill -0 "$$other" 2>/dev/null; then \
	    echo "setup: waiting for the set-up of process $$other (remove $(PID) if that is none)"; \
	    while kill -0 "$$other" 2>/dev/null && [ -e $(PID) ]; do sleep 1; done; \
	    if [ -e $@ ]; then exit 0; fi; \
	  fi; \
	  echo "setup: the last set-up was interrupted; making $(VENV) anew"; rm -rf $(VENV); \
	fi; \
	rm -f $@; \
	python=$(PYTHON); \
	for candidate in python3 python3.13 python3.12 python3.11; do \
	  [ -z "$$python" ] || break; \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; fi; \
	done; \
	if ! $${python:-false} -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  echo "setup: no Python 3.11 or newer: python3 is '$$(python3 --version 2>&1 || true)', PYTHON is '$(PYTHON)'." >&2; \
	  echo "       Install Python 3.11 or newer, or name one: make setup PYTHON=/path/to/python3.12" >&2; exit 1; \
	fi; \
	python=$$($$python -c 'import sys; print(getattr(sys, "_base_executable", "") or sys.executable)'); \
	echo $$$$ >$(PID); \
	if uv --version >/dev/null 2>&1; then uv=uv; else \
	  uv=$(CURDIR)/$(TOOLS)/bin/uv; \
	  if ! $$uv --version >/dev/null 2>&1; then \
	    echo "setup: getting uv into $(TOOLS)"; \
	    mkdir -p $(TOOLS); \
	    awk '/^uv==/ { keep = 1; print; next } /^[^ ]/ { keep = 0 } keep && !/#/' requirements.lock >$(TOOLS)/uv.lock; \
	    PIP_ROOT_USER_ACTION=ignore $$python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --upgrade \
	      --target $(TOOLS) -r $(TOOLS)/uv.lock || { echo "setup: pip could not install uv; install uv or pip yourself" >&2; exit 1; }; \
	  fi; \
	fi; \
	if ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  rm -rf $(VENV); \
	  echo "setup: creating $(VENV) with $$python; it takes about 6 GB, most of it torch, and minutes the first time"; \
	  $$uv venv --quiet --no-project --python "$$python" $(VENV); \
	fi; \
	echo "setup: bringing $(VENV) to requirements.lock"; \
	export VIRTUAL_ENV=$(CURDIR)/$(VENV); \
	$$uv pip install --quiet --require-hashes --requirements requirements.lock; \
	$$uv pip install --quiet --no-deps --no-build-isolation --editable .; \
	for packages in $(VENV)/lib/python3*/site-packages; do \
	  if [ -d "$$packages" ]; then mkdir -p "$$packages/__pycache__"; fi; \
	done; \
	rm -rf $(VENV)/types; mkdir -p $(VENV)/types/crossview; \
	ln -s $(patsubst %,../../../%,$(wildcard crossview/*.py) $(PACKAGES)) $(VENV)/types/crossview/; \
	echo "$(CURDIR)" >$@; rm -f $(PID)

quickstart: $(STAMP) ## Run the main job on a small synthetic set: render, train BYOV, embed, evaluate, draw.
	@$(BIN)/crossview reproduce byov:quickstart --out runs/quickstart $(ARGS)

test: $(STAMP) ## Run all but the long tests in two processes; ARGS="-k plan -x" goes to pytest, ARGS="-n 0 --pdb" runs them in one.
	@$(BIN)/python -m pytest -n 2 -m "not long" $(ARGS)
	@echo "test: passed (pytest $(ARGS))"

longtest: $(STAMP) ## Run the long tests: clusters of several nodes, a real `ray up`, whole searches; ARGS as for test.
	@$(BIN)/python -m pytest -n 2 -m long $(ARGS)
	@echo "longtest: passed (pytest $(ARGS))"

lint: $(STAMP) ## Check style and formatting with ruff; changes nothing.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@echo "lint: clean"

format: $(STAMP) ## Fix what ruff can fix, in place.
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@echo "format: done; see git diff"

types: $(STAMP) ## Check types with mypy.
	@set -o pipefail; $(BIN)/mypy $(ARGS) | sed 's#^$(VENV)/types/crossview/##'
	@echo "types: clean"

bench: $(STAMP) ## Run every script in benchmarks/, one after another; what they print lands in build/bench/.
	@set -euo pipefail; mkdir -p build/bench; failed=; \
	for script in $$(grep -l __main__ benchmarks/*.py); do \
	  name=$$(basename "$$script" .py); echo "== $$script"; \
	  $(BIN)/python "$$script" $(ARGS) 2>&1 | tee "build/bench/$$name.txt" || failed="$$failed $$script"; \
	done; \
	if [ -n "$$failed" ]; then echo "bench: failed:$$failed" >&2; exit 1; fi; \
	echo "bench: all done; output in build/bench/"

lock: $(STAMP) ## Resolve pyproject.toml anew into requirements.lock; ARGS="--upgrade" takes newer versions.
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --group dev pyproject.toml \
	  --output-file requirements.lock $(ARGS)
	@echo "lock: wrote requirements.lock; the next make installs it"

clean: ## Remove build outputs, caches and runs/quickstart; keeps .venv, data/ and every other run.
	@mkdir -p build; find build -mindepth 1 -maxdepth 1 ! -path $(PID) -exec rm -rf {} +
	@rm -rf dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis runs/quickstart
	@find . -path ./$(VENV) -prune -o -path ./data -prune -o -path ./runs -prune -o -path ./.git -prune \
	  -o -type d -name __pycache__ -prune -exec rm -rf {} +
	@echo "clean: build outputs, caches, runs/quickstart are gone; .venv, data/ and other runs are kept"
