# Every target sets up what it needs: the virtual environment is made once and again when its inputs change.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
OUTPUT ?= runs/quickstart

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test check lint types layers unit slow e2e cluster cluster-binaries format benchmark-ring bench-attention bench-operator bench-placement audit-kernels clean

help:  ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## Make the virtual environment (.venv) with pinned versions; the other targets do it themselves

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or later is needed, but $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up $(VENV): about 2 GB of packages, a few minutes, once."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[operator,worker,dev]'
	@touch $@

quickstart: $(READY)  ## Train a small model on the source of Python's standard library: the main job, about five minutes
	@if [ -d $(OUTPUT)/checkpoints ] && [ ! -e $(OUTPUT)/report.json ]; then how=--resume; else how=--overwrite; fi; \
	set -x; $(BIN)/ringctl run manifests/samples/quickstart.yaml --output $(OUTPUT) $$how

test: check slow  ## All tests

check: lint types layers unit  ## What to run before every commit: lint, types, layers, unit tests

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

layers: $(READY)
	$(BIN)/lint-imports --no-cache

unit: $(READY)
	$(BIN)/pytest tests/unit -q -n 2

slow: $(READY)
	$(BIN)/pytest tests/attention -q -n 2
	$(BIN)/pytest tests/kernels tests/distributed -q
	$(BIN)/pytest tests/cluster -q

e2e: $(READY)  ## Tests on real nodes (root on Linux): kubelets, containerd, our own images; the first run builds for half an hour
	$(BIN)/pytest tests/e2e -q

cluster: $(READY)  ## Play with the operator on a Kubernetes control plane with simulated nodes; Ctrl-C leaves nothing behind
	@PYTHONPATH=tests $(BIN)/python -m clusterkit.playground

cluster-binaries: $(READY)  ## Build the programs of that control plane from their Go modules, once (about 25 minutes)
	@PYTHONPATH=tests $(BIN)/python -m clusterkit.binaries

format: $(READY)  ## Format the code and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark-ring: $(READY)  ## Time a four-process ring on the CPU against one kernel over the whole sequence
	$(BIN)/python -m benchmarks.ring

bench-attention: $(READY)  ## Compare one attention kernel with torch's over a whole sequence: on a GPU, or small on the CPU
	$(BIN)/python -m benchmarks.attention

bench-operator: $(READY)  ## Time the operator on a control plane with simulated nodes, beside a bare client
	$(BIN)/python -m benchmarks.operator

bench-placement: $(READY)  ## Compare the placement of rings with what others do, on simulated clusters
	$(BIN)/python -m benchmarks.placement

audit-kernels: $(READY)  ## Compile every Triton kernel for four GPU generations and read what it costs; no GPU needed
	$(BIN)/python -W ignore -m benchmarks.kernels

clean:  ## Remove the virtual environment, caches and runs
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache runs
