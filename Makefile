# `make quickstart` and `make test` do all their set-up: a virtual environment in .venv with the versions of constraints.txt.

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: quickstart test check setup clean

quickstart: setup
	$(BIN)/cong run experiments/quickstart.py

test: check
	$(BIN)/python -m pytest --cov --cov-report=term

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

setup: $(INSTALLED)

# torch first and alone, so that nothing else chooses its build; deepspeed compiles nothing at installation.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch setuptools wheel ninja packaging
	$(PIP) py-cpuinfo hjson msgpack numpy psutil pydantic tqdm einops
	DS_BUILD_OPS=0 $(PIP) --no-build-isolation deepspeed
	$(PIP) --no-build-isolation -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV)
