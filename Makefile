# Every command of the project. `make help` lists them; each sets up .venv first where it needs it.
# A machine needs Python 3.11 or newer, make, git and python3-venv; no GPU.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
# Passed on to pip: an index or a folder of wheels, for instance one with CPU builds of torch.
PIP_ARGS ?=
PORT ?= 8501
OUT ?= out/demo
# Workers of the tests: one a core, at most four (each loads torch).
WORKERS ?= auto
PYTEST_ARGS ?=
SLOW_MARKS ?= slow or browser or real
# The torch that `make lock` pins; the rest is the newest that pyproject.toml allows.
TORCH ?= 2.13.0

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
PIP := -m pip --disable-pip-version-check --quiet --quiet
EXAMPLE = $(firstword $(wildcard medseg/examples/*ct.nii.gz) $(wildcard medseg/examples/*.nii.gz))
# Each test worker computes on one core: two that each take both cores are slower than one.
PYTEST = OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses $(WORKERS) --maxprocesses 4

.PHONY: help setup run demo test test-slow poison fuzz lint fix lock viewer browser clean distclean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## Make .venv with the locked versions (every other command does this itself)

$(READY): requirements.lock requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'medseg needs Python 3.11 or newer: install one, or name it: make $(MAKECMDGOALS) PYTHON=python3.12' >&2; exit 1; }
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { \
	  echo 'No .venv could be made. On Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }
	@echo 'Setting up $(VENV) with the locked versions (once, two to five minutes) ...'
	@$(PY) $(PIP) install $(PIP_ARGS) -r requirements.lock -r requirements-dev.lock || { \
	  echo 'The locked packages could not be installed. Behind a mirror, give pip its options: make $(MAKECMDGOALS) PIP_ARGS=...' >&2; exit 1; }
	@$(PY) $(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@
	@echo 'Ready.'

run: $(READY) ## Start the page on this computer (PORT=8501)
	@$(PY) -m streamlit run app/server.py --server.address 127.0.0.1 --server.port $(PORT) --server.headless true \
	  --server.maxUploadSize 2048 --browser.gatherUsageStats false

demo: $(READY) ## Segment the example CT and print the organ table (OUT=out/demo)
	@$(VENV)/bin/medseg segment $(EXAMPLE) --out "$(OUT)" --force

test: lint ## Checks and the fast tests, with the coverage floor (at most ten minutes)
	$(PYTEST) -m 'not slow and not browser' --cov=medseg --cov=vlretrieval --cov-report=term --cov-report=json:.coverage.json \
	  --cov-fail-under=90 $(PYTEST_ARGS)
	@$(PY) -c 'import json; t = json.load(open(".coverage.json"))["totals"]; \
	  share = t["covered_branches"] / t["num_branches"]; print(f"Branches that were taken: {share:.1%}")'

test-slow: $(READY) browser ## The slow tests, the browser's and those on real CTs
	$(PYTEST) -m '$(SLOW_MARKS)' --durations=10 $(PYTEST_ARGS)

poison: $(READY) ## The table of docs/RELIABILITY.md: bad inputs, ours and the peers' readers (makes their environments; minutes)
	$(PY) -m benchmarks.peers.table

fuzz: $(READY) ## 14,000 mutated scans against independent readers (some minutes)
	PYTHONPATH=. $(PY) benchmarks/fuzz.py --examples 14000 --seed 404 --out benchmarks/results/fuzz.json

lint: $(READY) ## Style, types and the import contracts
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

fix: $(READY) ## Mend what ruff can mend
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

viewer: $(READY) ## Rebuild the viewer's bundle and the font from npm packages (needs Node 20; both are committed)
	@command -v npm >/dev/null || { echo 'Rebuilding the viewer needs Node 20 and npm: apt-get install npm' >&2; exit 1; }
	cd app/viewer && npm ci --no-audit --no-fund && npm run build
	$(PY) scripts/build_font.py

# Chromium comes from the system. It is installed here where we may, and named where we may not.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || { \
	  sudo=; [ "$$(id -u)" = 0 ] || sudo='sudo -n'; \
	  echo 'Installing Chromium for the browser tests ...'; \
	  { $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; } >/dev/null || { \
	    echo 'The browser tests need Chromium: apt-get install chromium (as root). Without it: make test-slow SLOW_MARKS="slow and not browser"' >&2; \
	    exit 1; }; }

lock: ## Write the two lock files anew from a clean environment (minutes)
	@echo 'Resolving in a clean environment ...'
	@folder="$$(mktemp -d)"; trap 'rm -rf "$$folder"' EXIT; \
	$(PYTHON) -m venv "$$folder/venv"; \
	python="$$folder/venv/bin/python"; \
	versions() { "$$python" -m pip freeze --all --exclude-editable --exclude pip \
	  | sed -E 's/\+[a-z0-9.]+$$//' | grep -viE '^(nvidia|cuda|triton)' | LC_ALL=C sort; }; \
	"$$python" $(PIP) install $(PIP_ARGS) 'torch==$(TORCH)' 'setuptools>=77' --editable '.[app,cpu]'; \
	versions > "$$folder/run"; \
	"$$python" $(PIP) install $(PIP_ARGS) 'torch==$(TORCH)' --editable '.[app,cpu,dev]'; \
	versions > "$$folder/all"; \
	missing="$$(LC_ALL=C comm -23 "$$folder/run" "$$folder/all")"; \
	[ -z "$$missing" ] || { echo "The tools for development change what runs: $$missing" >&2; exit 1; }; \
	cp "$$folder/run" requirements.lock; \
	LC_ALL=C comm -13 "$$folder/run" "$$folder/all" > requirements-dev.lock
	@wc -l requirements.lock requirements-dev.lock

clean: ## Remove caches and the demo's results
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* coverage.xml build dist out/demo
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## Remove .venv too
	rm -rf $(VENV) ./*.egg-info
