# Everything a newcomer needs: `make demo`, `make test`. DATA=/path/to/IDRiD makes the demo run on it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?=
DEMO := outputs/$(if $(DATA),demo_idrid,demo)
RESULTS ?=

.DEFAULT_GOAL := help
.PHONY: help install demo test check faults

help:  ## show the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

install: $(VENV)/.installed  ## make .venv with the tested versions
	@echo "ready: type '. $(BIN)/activate' once in each shell, then 'fundus --help'; or '$(BIN)/fundus --help' without it"

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'expected Python 3.11 or newer, got ' + sys.version.split()[0] + '; say make PYTHON=...')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	@touch $@

demo: $(VENV)/.installed  ## a report on six photographs; then both stages on a synthetic data set, or on IDRiD with DATA=/path/to/IDRiD
	@mkdir -p $(DEMO)
	$(BIN)/fundus predict docs/examples --output_dir $(DEMO)/examples
ifeq ($(DATA),)
	$(BIN)/fundus prepare --dataset phantom --seed 7 --root $(DEMO)/phantom --out $(DEMO)/manifest.json
else
	$(BIN)/fundus prepare --dataset idrid --root "$(DATA)" --out $(DEMO)/manifest.json --allow_missing
endif
	$(BIN)/fundus pipeline --manifest $(DEMO)/manifest.json --output_dir $(DEMO) --experiment demo --architectures tf_efficientnet_lite0,tf_efficientnet_lite2 $(if $(RESULTS),--results $(RESULTS))

SEED ?= $(shell date +%s)
SEED := $(SEED)
PYTEST := $(BIN)/python -m pytest --randomly-seed=$(SEED)

test: $(VENV)/.installed  ## the tests, in another order each time, two processes at a time; on real photographs where IDRID_ROOT is set
	@echo "make test SEED=$(SEED) repeats this order"
	{ $(PYTEST) tests/contracts && $(PYTEST) tests/unit/*/ && $(PYTEST) tests/unit/test_*.py bundle && $(PYTEST) tests/fuzz && \
	$(PYTEST) tests/faults; } > .tests.log 2>&1 & others=$$!; \
	$(PYTEST) tests/integration; ended=$$?; \
	wait $$others || ended=1; cat .tests.log; rm .tests.log; exit $$ended

check: $(VENV)/.installed  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

faults: $(VENV)/.installed  ## the whole fault kit: kills, full disks, lost data and servers; half an hour to an hour
	$(BIN)/python -m pytest tests/faults --faults 20 --account faults.json
