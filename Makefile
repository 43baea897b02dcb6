# Two commands: `make repro` runs the whole pipeline on real cells, `make test` runs the tests.
# Each target makes .venv when it is missing or older than the requirements.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# A Python that runs, is supported, and can make virtual environments. `make PYTHON=...` overrides.
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13 python3.10; do \
	if $$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' \
	>/dev/null 2>&1; then echo $$p; break; fi; done)
export PATH := $(CURDIR)/$(BIN):$(PATH)
BENCH ?=
PIN := uv pip compile pyproject.toml --universal --python-version 3.10 --fork-strategy fewest \
	--quiet --no-emit-index-url --no-annotate --no-header
# A file of tests for each core, each computing on one thread: threads of two processes would wait
# for one another.
PYTEST := OMP_NUM_THREADS=1 python -m pytest --numprocesses=auto --dist=loadfile

$(BIN)/.installed: requirements.txt requirements-dev.txt
	@if [ -z "$(PYTHON)" ]; then \
		echo "No Python 3.10 to 3.13 with the modules venv and ensurepip was found." >&2; \
		echo "Install one (Debian, Ubuntu: apt install python3-venv) or name it: make PYTHON=/path/to/python3" >&2; \
		exit 2; fi
	@# A link would be followed, and the folder that it leads to emptied.
	@if [ -L $(VENV) ]; then rm $(VENV); fi
	$(PYTHON) -m venv --clear $(VENV)
	@# PyTorch first, with what it depends on (that differs from system to system); then exactly
	@# the pinned set, without a second opinion (Cellpose's bound on numpy has no Python 3.13).
	$(BIN)/python -m pip install --quiet --constraint requirements.txt "$$(grep '^torch==' requirements.txt)"
	$(BIN)/python -m pip install --quiet --no-deps -r requirements.txt -r requirements-dev.txt
	@# The package itself, as it lies here, for `import cellular` from anywhere.
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: repro test test-fast bench bench-tolerance lint format requirements extras clean help venv

venv: $(BIN)/.installed  ## make .venv

extras: $(BIN)/.installed  ## add what few need: search, files of microscopes, Dask, Parquet, bioimage.io
	python -m pip install --quiet --no-deps -r requirements-extras.txt

repro: $(BIN)/.installed  ## run the whole pipeline, show the scores, and compare them with the committed run
	dvc repro
	@echo
	@python src/compare.py --splits test
	@echo
	@python src/check_reproduction.py

test: $(BIN)/.installed  ## all tests (minutes)
	$(PYTEST)

test-fast: $(BIN)/.installed  ## the tests that take seconds
	$(PYTEST) -m "not slow"

bench: $(BIN)/.installed  ## a line for each benchmark (minutes); one of them: make bench BENCH=<name>
	python -m benchmarks $(BENCH)

bench-tolerance: $(BIN)/.installed  ## how far the scores differ between machines and seeds (an hour)
	python -m benchmarks tolerance

lint: $(BIN)/.installed  ## check style, types, and that packages import from floors below only
	ruff check .
	ruff format --check .
	mypy
	cd src && lint-imports --no-cache --config ../pyproject.toml

format: $(BIN)/.installed  ## mend style
	ruff check --fix .
	ruff format .

requirements: $(BIN)/.installed  ## pin anew what pyproject.toml asks for
	@# CUDA's libraries are left out: PyTorch brings those that fit its own build.
	(echo "# What the pipeline runs on. Made by 'make requirements' from pyproject.toml: one set for"; \
	echo "# Python 3.10 to 3.13. Do not edit. A change here runs every stage anew."; \
	$(PIN) | grep -v -E '^(nvidia-|cuda-|triton)') > requirements.new
	mv requirements.new requirements.txt
	(echo "# Tools for development. Made by 'make requirements' from pyproject.toml. Do not edit."; \
	$(PIN) --group dev --constraint requirements.txt \
		| grep -v -E '^(nvidia-|cuda-|triton)' | grep -v -x -F -f requirements.txt) > requirements.new
	mv requirements.new requirements-dev.txt
	(echo "# Extras that few need. Made by 'make requirements' from pyproject.toml. Do not edit."; \
	$(PIN) --all-extras --constraint requirements.txt \
		| grep -v -E '^(nvidia-|cuda-|triton)' | grep -v -x -F -f requirements.txt) > requirements.new
	mv requirements.new requirements-extras.txt

clean:  ## remove .venv, outputs and DVC's cache (with the weights of experiments not pushed)
	rm -rf $(VENV) .dvc/cache .dvc/tmp data/raw data/prepared data/flows data/predictions models/pretrained models/finetuned models/last segmented
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
	rm -rf .pytest_cache .ruff_cache .hypothesis dvc_plots

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
