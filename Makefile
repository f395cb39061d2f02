# `make quickstart` and `make test` do all their set-up: a virtual environment in .venv with the versions of constraints.txt.
# `make test-vllm` does its own in .venv-vllm: the same, and vLLM's wheel for CPUs.

# The first that starts and can make an environment: a name may be pyenv's of a version that is not installed.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13; do \
	$$name -c 'import ensurepip, venv' 2>/dev/null && echo $$name && break; done)
VENV ?= .venv
VLLM_VENV ?= .venv-vllm
BIN := $(VENV)/bin
VLLM_BIN := $(VLLM_VENV)/bin
VLLM_TESTS := tests/inside_vllm
# All tests of clusters are in one of the two, all of the local Ray in the other: see tests/conftest.py.
TWO_PROCESSES := -n 2 --dist loadfile --no-loadscope-reorder
INSTALLED := $(VENV)/.installed
VLLM_INSTALLED := $(VLLM_VENV)/.installed
PIP_INSTALL := -m pip --disable-pip-version-check install --quiet

# One line each, before anything is downloaded. DeepSpeed compiles its extensions when they are first used.
NO_PYTHON = no Python that can make an environment: install python3.11, 3.12 or 3.13 with its venv module \
	(Debian and Ubuntu: apt install python3.11-venv), or give PYTHON=/path/to/python
NO_COMPILER = no C++ compiler $(CXX): install g++ (Debian and Ubuntu: apt install g++), or give CXX=/path/to/compiler
tools = $(if $(PYTHON),,$(error $(NO_PYTHON)))$(if $(shell command -v $(CXX) 2>/dev/null),,$(error $(NO_COMPILER)))

# torch first and alone, so that nothing else chooses its build; deepspeed compiles nothing at installation.
define environment
$(PYTHON) -m venv $(1)
$(1)/bin/python $(PIP_INSTALL) -c constraints.txt torch setuptools wheel ninja packaging
$(1)/bin/python $(PIP_INSTALL) -c constraints.txt py-cpuinfo hjson msgpack numpy psutil pydantic tqdm einops
DS_BUILD_OPS=0 $(1)/bin/python $(PIP_INSTALL) -c constraints.txt --no-build-isolation deepspeed
$(1)/bin/python $(PIP_INSTALL) -c constraints.txt --no-build-isolation -e '.[dev]'
endef

.PHONY: quickstart smollm2 test pytest test-quick coverage test-vllm check setup clean

quickstart: setup
	$(BIN)/cong run experiments/quickstart.py

# The method on real language models, from nothing: ARGS='--set seeds=0,1,2' for more seeds than one.
smollm2: setup
	$(BIN)/cong mirror
	$(BIN)/cong run experiments/smollm2.py $(ARGS)

# Both at the same time: pyright keeps one core busy for a minute, and tests of clusters wait now and then.
test: setup
	@$(MAKE) --no-print-directory --jobs=2 pytest check

pytest: setup
	$(BIN)/python -m pytest $(TWO_PROCESSES) --durations=25

# The inner loop: no Ray, no cluster, no kills.
test-quick: setup
	$(BIN)/python -m pytest $(TWO_PROCESSES) -m "not slow"

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

$(INSTALLED): pyproject.toml constraints.txt
	$(tools)
	$(call environment,$(VENV))
	touch $@

$(VLLM_INSTALLED): pyproject.toml constraints.txt $(VLLM_TESTS)/requirements.txt
	$(tools)
	$(call environment,$(VLLM_VENV))
	$(VLLM_BIN)/python $(PIP_INSTALL) --no-deps --require-hashes -r $(VLLM_TESTS)/requirements.txt
	touch $@

clean:
	rm -rf $(VENV) $(VLLM_VENV)
