# splitsem: every target sets up what it needs; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=
export MLFLOW_DISABLE_TELEMETRY := true
export FLWR_TELEMETRY_ENABLED := 0

.DEFAULT_GOAL := help
.PHONY: help setup demo sweep profile ui doctor test test-slow bench lint format data clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: $(READY) ## make .venv with the pinned versions of constraints.txt
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup ## the main job: train once, sweep all split points, report
	$(BIN)/python run.py task=disaster codec=quant8 -m

sweep: setup ## any sweep: make sweep ARGS='task=digits codec=quant2,quant4,quant8'
	$(BIN)/python run.py $(ARGS) -m

profile: setup ## measure this machine on a model: make profile ARGS='model=torchvision model.name=resnet18 ...'
	$(BIN)/python run.py workflow=profile $(ARGS)

ui: setup ## the MLflow pages of all runs so far, on http://127.0.0.1:5000
	@mkdir -p outputs/mlflow
	$(BIN)/mlflow ui --host 127.0.0.1 --port 5000 --workers 1 --backend-store-uri sqlite:///outputs/mlflow/mlflow.db

doctor: setup ## what is here: torch, GPU, data, services
	$(BIN)/python -m splitsem.workflows.doctor

test: setup ## the tests, in parallel
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m 'not slow' $(ARGS)

test-slow: setup ## the tests that take longer
	$(BIN)/python -m pytest -m slow $(ARGS)

bench: setup ## the numbers in README and docs, measured here
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

lint: setup ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## let ruff rewrite what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

data: ## install Debian's Fashion-MNIST (asks for root)
	@test -e /usr/share/datasets/fashion-mnist || { \
	  as_root=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$as_root apt-get update -qq && $$as_root apt-get install -y -qq dataset-fashion-mnist; }

clean: ## remove runs, sweeps, cached weights and tool caches; .venv stays
	rm -rf outputs/* multirun/* .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find splitsem tests -name __pycache__ -type d -prune -exec rm -rf {} +
