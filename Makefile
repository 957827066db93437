# Every routine of the project; `make help` lists them. CI calls the same targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
PYTHON := $(VENV)/bin/python
PYTEST := $(PYTHON) -m pytest
# OpenMP threads that spin beside another busy process make training several times slower.
export OMP_WAIT_POLICY := PASSIVE
# Container images set it; here every process of every test would compile the whole training stack anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install lint format setup test test-unit test-architectures test-interruptions test-contract test-cluster test-disruptions crd new-task constraints demo down status test-gpu bench bench-gpu build

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-15s %s\n", $$1, $$2}'

$(VENV)/installed: pyproject.toml constraints.txt scripts/install.sh
	scripts/install.sh $(VENV)
	@touch $@

install: $(VENV)/installed ## make the virtual environment with every extra and tool

lint: install ## formatting, lint, types and import contracts
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache

format: install ## format the code
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

setup: install ## install and build what the devcluster needs (as root, with apt)
	$(PYTHON) -m finetune_devcluster setup

test: lint setup test-unit test-contract test-cluster ## everything but what needs a GPU, and the whole sweeps over architectures and interruptions

# Two workers: most of these tests wait for a process or have one thread. A file stays on one of them, which builds its
# models, servers and releases once.
test-unit: install ## what needs no root and no cluster
	$(PYTEST) -n 2 --dist loadfile -m "not contract and not cluster and not gpu and not architectures and not interruptions and not disruptions"

# Each worker builds the models of the types it tries.
test-architectures: install ## every architecture with every method, half an hour
	$(PYTEST) -n 2 --dist loadgroup -m architectures

test-interruptions: install ## runs of every method, interrupted at every place; a quarter of an hour
	$(PYTEST) -n 2 --dist load -m interruptions

# Two workers here too: most of these tests wait for the API server.
test-contract: install ## against a real API server, without root
	$(PYTEST) -n 2 --dist loadfile -m contract

# One node for all, so one after the other.
test-cluster: install ## whole jobs on a real node; needs root
	$(PYTEST) -m cluster

# What was tried before with the same images is not tried again.
test-disruptions: install ## two hundred runs that are disturbed on a real node; hours; needs root
	$(PYTEST) -m disruptions

crd: install ## render the CRD and the pages that are made from code, tables and figures
	$(PYTHON) scripts/render.py

new-task: install ## write the skeleton of a task: make new-task NAME=TokenClassification
	$(PYTHON) scripts/new_task.py $(NAME)

constraints: ## resolve constraints.txt anew
	scripts/constraints.sh

demo: install ## bring up a cluster, install the operator and fine-tune the examples
	$(PYTHON) -m finetune_demo up

down: install ## remove everything that `make demo` started
	$(PYTHON) -m finetune_demo down

status: install ## say what runs
	$(PYTHON) -m finetune_devcluster status

test-gpu: install ## what needs a GPU
	$(PYTEST) -m gpu

bench: install ## measure and write benchmarks/results
	$(VENV)/bin/uv pip install -q --python $(PYTHON) -c constraints.txt --group bench
	for script in $(filter-out benchmarks/bench_gpu.py,$(wildcard benchmarks/bench_*.py)); do $(PYTHON) $$script || exit 1; done

bench-gpu: install ## the benchmark of training on a GPU
	$(VENV)/bin/uv pip install -q --python $(PYTHON) -c constraints.txt --group bench
	$(PYTHON) benchmarks/bench_gpu.py

build: install ## build both images into the devcluster's registry
	$(PYTHON) -m finetune_demo build
