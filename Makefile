# splitsem: every target sets up what it needs; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
C_FILES := $(wildcard device/splitsem_device/*.c device/splitsem_device/*/*.c)
EXTRAS ?= dev
ARGS ?=
UI_PORT ?= 5000
export MLFLOW_DISABLE_TELEMETRY := true
export FLWR_TELEMETRY_ENABLED := 0

.DEFAULT_GOAL := help
.PHONY: help setup docs demo joint sweep profile ui doctor loopback certs device-wheels proto test test-thorough test-slow bench federated federated-deploy lint format data clean

#@ Start
help: ## this list
	@sed -nE -e 's/^#@ (.*)/\n\1/p' -e 's/^([a-z-]+):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 20
	@printf '\nSettings: make sweep ARGS="codec=quant4". Another Python: make PYTHON=python3.12\n'

setup: $(READY) ## make .venv with the pinned versions of constraints.txt
$(READY): pyproject.toml constraints.txt device/pyproject.toml device/build_backend.py $(C_FILES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@echo "Making $(VENV) with the packages of $(EXTRAS), in the versions of constraints.txt: minutes, several GB"
	@$(PYTHON) -m venv $(VENV)
	@rm -f $(VENV)/.failed
	@{ $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt \
	  --editable device --editable '.[$(EXTRAS)]' || touch $(VENV)/.failed; } \
	  | sed -unE -e 's#^(Collecting|Processing) ([^ ]*/)?([^ ;]+).*#  \3#p; /^(Build|Install|ERROR)/{s/(.{76}).*/\1…/;p}' \
	    -e '/^The conflict/,/^$$/p'
	@! test -e $(VENV)/.failed
	@touch $@

demo: setup ## the main job: train once, sweep all split points, report
	$(BIN)/python run.py task=disaster codec=quant8 -m

#@ Run and measure
joint: setup ## cut and branches chosen together, small, a minute or two
	$(BIN)/python run.py workflow=joint task=domains task@task.base=digits task.domain=0,3 trainer.max_epochs=15 \
	  trainer.batch_size=16 transport=ethernet $(ARGS) -m

sweep: setup ## any sweep: ARGS='codec=quant2,quant4,quant8'
	$(BIN)/python run.py $(ARGS) -m

profile: setup ## measure this machine on a model: ARGS='task=disaster'
	$(BIN)/python run.py workflow=profile $(ARGS)

#@ See
ui: setup ## the MLflow pages of all runs so far, on 127.0.0.1, port 5000 or UI_PORT=
	@mkdir -p outputs/mlflow
	$(BIN)/mlflow ui --host 127.0.0.1 --port $(UI_PORT) --workers 1 --backend-store-uri sqlite:///outputs/mlflow/mlflow.db

doctor: setup ## what is here: torch, GPU, data, services
	$(BIN)/python -m splitsem.workflows.doctor

#@ Two machines, many machines
federated: setup ## federated training, 8 clients: ARGS='codec=quant4'
	$(BIN)/python run.py workflow=federated codec=quant8 $(ARGS)

federated-deploy: setup ## a real Flower deployment on this machine
	PATH="$(abspath $(BIN)):$$PATH" scripts/federated-deploy $(ARGS)

loopback: setup ## server and device on this machine, over gRPC
	PATH="$(abspath $(BIN)):$$PATH" scripts/loopback $(ARGS)

CERTS ?= certs
SERVER_NAMES ?= DNS:localhost,IP:127.0.0.1
certs: ## certificates to try TLS with: SERVER_NAMES=DNS:my.host
	mkdir -p $(CERTS) && chmod 700 $(CERTS)
	cd $(CERTS) && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
	  -keyout ca.key -out ca.pem -subj '/CN=splitsem test CA' -addext keyUsage=critical,keyCertSign 2>/dev/null
	cd $(CERTS) && for end in server device; do \
	  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $$end.key -out $$end.csr \
	    -subj "/CN=splitsem $$end" 2>/dev/null && \
	  printf 'subjectAltName=$(SERVER_NAMES)\n' > $$end.ext && \
	  openssl x509 -req -in $$end.csr -CA ca.pem -CAkey ca.key -days 30 -extfile $$end.ext -out $$end.pem \
	    2>/dev/null && rm $$end.csr $$end.ext || exit 1; done
	@echo "device: transport.security.ca=$(CERTS)/ca.pem    server: transport.security.{cert,key}=$(CERTS)/server.{pem,key}"
	@echo "mutual: on the device also {cert,key}=$(CERTS)/device.{pem,key}, on the server also ca=$(CERTS)/ca.pem"

device-wheels: setup ## what a small board installs, for three processors, in dist/
	for target in x86_64 aarch64 armv7l; do \
	  $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist \
	    --config-settings target=$$target ./device || exit 1; done

#@ Work on splitsem
proto: setup ## generate the code of tail.proto
	$(BIN)/python -m grpc_tools.protoc -Idevice --python_out=device --pyi_out=device splitsem_device/grpc/tail.proto

test: setup ## the tests, in parallel
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m 'not slow and not thorough' $(ARGS)

test-thorough: setup ## whole runs on further paths, which CI tests too
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m 'thorough and not slow' $(ARGS)

test-slow: setup ## the tests that take longer
	$(BIN)/python -m pytest -m slow $(ARGS)

BENCH ?= $(basename $(notdir $(wildcard benchmarks/*.py)))
bench: setup ## docs/measured.md; over an hour; some: BENCH="chain regret"
	-$(BIN)/python -m splitsem.data get efficientnet-lite0 mobilenetv2-embedder more-photographs photographs pp-ocrv4 silero-vad
	failed=; for name in $(BENCH); do script=benchmarks/$$name.py; \
	  SPLITSEM_RECORD=benchmarks/measured.json $(BIN)/python $$script || failed="$$failed $$script"; done; \
	$(BIN)/python scripts/measured_page.py; test -z "$$failed" || { echo "ended with an error:$$failed"; exit 1; }

docs: setup ## the documentation as a site: outputs/site/index.html
	NO_MKDOCS_2_WARNING=1 PYTHONPATH="$(CURDIR):$(CURDIR)/device" $(BIN)/python -m mkdocs build --quiet --strict
	@echo "outputs/site/index.html"

lint: setup ## ruff, mypy and the layers of the packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## let ruff rewrite what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

DATA ?= photographs efficientnet-lite0 yolov3-tiny pedestrians fashion-mnist
data: setup ## real networks and pictures for the demos: DATA=all
	$(BIN)/python -m splitsem.data get $(DATA)

clean: ## remove runs, sweeps, cached weights; .venv stays
	rm -rf outputs/* multirun/* .cache .import_linter_cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find splitsem device tests -name __pycache__ -type d -prune -exec rm -rf {} +
