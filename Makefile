# `make quickstart` and `make test` do all their set-up: a virtual environment in .venv with the versions of constraints.txt.
# `make test-vllm` does its own in .venv-vllm: the same, and vLLM's wheel for CPUs.

# The first that there is; `make PYTHON=...` chooses another.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13; do command -v $$name && break; done)
VENV ?= .venv
VLLM_VENV ?= .venv-vllm
BIN := $(VENV)/bin
VLLM_BIN := $(VLLM_VENV)/bin
VLLM_TESTS := tests/inside_vllm
INSTALLED := $(VENV)/.installed
VLLM_INSTALLED := $(VLLM_VENV)/.installed
PIP_INSTALL := -m pip --disable-pip-version-check install --quiet

# torch first and alone, so that nothing else chooses its build; deepspeed compiles nothing at installation.
define environment
$(PYTHON) -m venv $(1)
$(1)/bin/python $(PIP_INSTALL) -c constraints.txt torch setuptools wheel ninja packaging
$(1)/bin/python $(PIP_INSTALL) -c constraints.txt py-cpuinfo hjson msgpack numpy psutil pydantic tqdm einops
DS_BUILD_OPS=0 $(1)/bin/python $(PIP_INSTALL) -c constraints.txt --no-build-isolation deepspeed
$(1)/bin/python $(PIP_INSTALL) -c constraints.txt --no-build-isolation -e '.[dev]'
endef

.PHONY: quickstart test test-quick coverage test-vllm check setup tools clean

quickstart: setup
	$(BIN)/cong run experiments/quickstart.py

test: check
	$(BIN)/python -m pytest --durations=25

# The inner loop: no Ray, no cluster, no kills.
test-quick: setup
	$(BIN)/python -m pytest -m "not slow"

# Apart, for counting lines makes the tests a good deal slower.
coverage: setup
	$(BIN)/python -m pytest --cov --cov-report=term

# With the variable the tests run or fail, and are never skipped.
test-vllm: $(VLLM_INSTALLED)
	CONG_TEST_VLLM=1 OMP_NUM_THREADS=1 $(VLLM_BIN)/python -m pytest $(VLLM_TESTS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

setup: $(INSTALLED)

# What no package can bring, said in one line before anything is downloaded.
tools:
	@test -n "$(PYTHON)" || { echo "error: no python3.11, 3.12 or 3.13: install one (Debian: apt-get install python3.11 python3.11-venv)" >&2; exit 2; }
	@command -v g++ >/dev/null || { echo "error: no g++: install a C++ compiler (Debian: apt-get install g++ python3-dev)" >&2; exit 2; }

$(INSTALLED): pyproject.toml constraints.txt | tools
	$(call environment,$(VENV))
	touch $@

$(VLLM_INSTALLED): pyproject.toml constraints.txt $(VLLM_TESTS)/requirements.txt
	$(call environment,$(VLLM_VENV))
	$(VLLM_BIN)/python $(PIP_INSTALL) --no-deps --require-hashes -r $(VLLM_TESTS)/requirements.txt
	touch $@

clean:
	rm -rf $(VENV) $(VLLM_VENV)
