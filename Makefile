# `make` alone lists the targets. PYTHON chooses the interpreter of a new environment, VENV its folder.
PYTHON ?= python3
VENV ?= .venv
OUT ?= out
WORKERS ?= 2
ROW ?= spo-base

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo test lint types contracts tests format slow gpu processors kill bench results row study scenes card docs wheel clean install dev

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.installed ## a reward that destroys images, and pairs that improve two models: train all and write the report (about 4 minutes on two cores)
	$(BIN)/seedpo demo --out $(OUT)/demo

test: lint types contracts tests ## everything that has to be green: lint, types, import contracts, tests

lint: $(VENV)/.dev ## ruff: rules and format
	@echo "== lint =="
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## mypy --strict on src
	@echo "== types =="
	$(BIN)/mypy

contracts: $(VENV)/.dev ## who may import whom
	@echo "== import contracts =="
	$(BIN)/lint-imports

tests: $(VENV)/.dev ## the default test suite alone
	@echo "== tests =="
	$(PYTEST) -n $(WORKERS)

format: $(VENV)/.dev ## put the code into ruff's format and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Kernels round differently on other processors. A test that compares numbers has to be green on all of them.
processors: $(VENV)/.dev ## the default suite under three instruction sets: plain SSE, AVX2, and whatever this processor has
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 $(PYTEST) -n $(WORKERS)
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 $(PYTEST) -n $(WORKERS)
	env -u ATEN_CPU_CAPABILITY ONEDNN_MAX_CPU_ISA=DEFAULT $(PYTEST) -n $(WORKERS)

slow: $(VENV)/.dev ## the tests that take long
	$(PYTEST) -m "slow and not gpu" --timeout 3600

gpu: $(VENV)/.dev ## the tests that need a CUDA device
	$(PYTEST) -m gpu --timeout 3600

kill: $(VENV)/.dev ## kill runs at 20 random moments; resumed, they must be as if never killed (a few minutes)
	OMP_NUM_THREADS=1 PYTHONPATH=src:. $(BIN)/python -m tests.training.kill_runs --out $(OUT)/kill

bench: $(VENV)/.installed ## the training work of the reference implementations against ours, about 15 minutes
	$(BIN)/python -m benchmarks --out $(OUT)/benchmarks.json

results: $(VENV)/.installed ## tables of docs/results-appendix.md: three methods over 3 seeds, about 15 minutes
	$(BIN)/seedpo demo --seeds 3 --only diffusion-dpo --only spo --only d3po --out $(OUT)/results

row: $(VENV)/.installed ## train one row of docs/results-appendix.md anew (ROW, 3 runs, about 2 minutes) and compare every figure
	$(BIN)/python -m benchmarks.reproduce --row $(ROW) --out $(OUT)/row

study: $(VENV)/.dev ## a blinded study of the embedded model in your browser (seedpo study demo)
	$(BIN)/seedpo study demo --out $(OUT)/study

scenes: $(VENV)/.installed ## train the embedded models and scorers anew (two hours), into out/scenes, and measure them
	$(BIN)/python -m tools.scenes build --out $(OUT)/scenes
	$(BIN)/python -m tools.scenes card --assets $(OUT)/scenes

card: $(VENV)/.installed ## measure the shipped models and scorer: the figures of the model cards
	$(BIN)/python -m tools.scenes card

docs: $(VENV)/.dev ## the documents as a site with an API reference, into site/; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

wheel: $(VENV)/.installed ## build the wheel, into dist/
	$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .

clean: ## remove what was built and measured; the environment stays
	rm -rf build dist site $(OUT) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

install: $(VENV)/.installed ## the environment with what the package needs to run

dev: $(VENV)/.dev ## the environment with the developers' tools as well

# torch first and alone, so that whichever build of the pinned version pip finds is the one that stays. The package is
# built with the pinned setuptools of the environment, which also spares downloading another for each build.
$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "== setting up $(VENV): about 3 minutes, once =="
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -qq --constraint constraints.txt setuptools torch
	$(PIP) install -qq --constraint constraints.txt --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(PIP) install -qq --constraint constraints.txt --no-build-isolation --editable ".[dev,data,study]"
	@touch $@
