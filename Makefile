# make demo | test | check | test-all | airflow | default-model | lock. Needs Python 3.11 or 3.12 and make, nothing else.
PYTHON ?= python3
UV_VERSION := 0.13.8
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OTHER := .venv-other
ALONE := .venv-alone
AIRFLOW := .venv-airflow
AIRFLOW_READY := $(AIRFLOW)/.ready
AIRFLOW_VERSION := 3.3.2
RUN ?= run.toml

# Where it is set, every program would compile PyTorch, MLflow and Airflow at each start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check test-all airflow default-model lock clean

demo: $(READY)
	@mkdir -p demo
	@$(BIN)/facade demo --out demo > demo/summary.json

test: $(READY)
	$(BIN)/pytest -n 2 --dist loadfile

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What needs another environment: the other Python, with the wheel that pip would install instead of this checkout; the
# detector on a machine that has nothing but what it needs; and the DAGs, which call this one's `facade`.
test-all: $(READY) $(AIRFLOW_READY)
	PYTHON=$(PYTHON) UV=$(abspath $(BIN)/uv) sh tests/other_python.sh $(OTHER)
	PYTHON=$(PYTHON) UV=$(abspath $(BIN)/uv) sh tests/detector_alone.sh $(ALONE)
	FACADE=$(abspath $(BIN)/facade) UV=$(abspath $(BIN)/uv) sh tests/dags.sh $(AIRFLOW)

# Airflow with our DAGs, on loopback alone; RUN is the file of `facade run` that they take by default.
airflow: $(READY) $(AIRFLOW_READY)
	AIRFLOW_HOME=$(abspath .airflow) FACADE=$(abspath $(BIN)/facade) RUN=$(abspath $(RUN)) \
	    sh dags/standalone.sh $(abspath $(AIRFLOW)/bin)

# Rebuild the bundled default model: an hour on two cores, with the photos and the weights that data/models/*.toml name.
MODEL := data/models/default
BUILD := demo/default
MADE := $(BUILD)/work/train/latest/bundle
default-model: $(READY) data/models/notes.md
	$(BIN)/facade draw --out $(BUILD)/drawn --images 400 --seed 9
	$(BIN)/facade run data/models/default.toml
	$(BIN)/facade run data/models/unseen.toml --to extract
	rm -rf $(BUILD)/unseen/detect $(BUILD)/unseen/evaluate
	$(BIN)/facade detect $(BUILD)/unseen --split test --model $(MADE)
	$(BIN)/facade evaluate --work $(BUILD)/unseen
	$(BIN)/facade model card $(MADE) --work $(BUILD)/work --work $(BUILD)/unseen --notes data/models/notes.md
	rm -rf $(MODEL).new && cp -R $(MADE) $(MODEL).new && rm -rf $(MODEL) && mv $(MODEL).new $(MODEL)

# Names and exact versions only, for both Pythons; run it after changing pyproject.toml.
lock: $(READY)
	$(BIN)/uv pip compile -q pyproject.toml --extra dev --universal --python-version 3.11 --no-annotate --no-header \
	    --no-emit-index-url --upgrade -o requirements.lock
	echo "apache-airflow==$(AIRFLOW_VERSION)" | $(BIN)/uv pip compile -q - --universal --python-version 3.11 \
	    --no-annotate --no-header --no-emit-index-url --upgrade -o dags/requirements.lock

clean:
	rm -rf $(VENV) $(OTHER) $(ALONE) $(AIRFLOW) .airflow demo

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))" \
	    || { echo "facade-ssd needs Python 3.11 or 3.12; say which with: make PYTHON=python3.12"; exit 1; }
	@echo "installing into $(VENV) (once; about a minute)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv pip install -q --python $(BIN)/python -r requirements.lock
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	@touch $@

$(AIRFLOW_READY): dags/requirements.lock | $(READY)
	@echo "installing Airflow into $(AIRFLOW) (once; about a minute)"
	@rm -rf $(AIRFLOW)
	@$(PYTHON) -m venv $(AIRFLOW)
	@$(BIN)/uv pip install -q --python $(AIRFLOW)/bin/python -r dags/requirements.lock
	@touch $@
