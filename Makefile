# `make help` lists the targets. Every target makes the environment first, from nothing if need be.
.DEFAULT_GOAL := help
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin

.PHONY: help demo test check types rules up down bench faults format clean

help: ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: .venv/.ready ## Bring everything up, send real traffic, show the story (ARGS=--exit stops it afterwards)
	@$(BIN)/quaestor demo $(ARGS)

# Bytecode is kept whatever the shell says: two processes and hundreds of commands load the same modules.
test: export PYTHONDONTWRITEBYTECODE =
test: .venv/.ready check ## Run every check and every test
	@$(BIN)/python -m pytest -n 3 $(ARGS)

check: .venv/.ready ## Lint, types, layers and generated files, without running tests
	@$(MAKE) --no-print-directory --jobs=2 types rules

types: .venv/.ready
	@$(BIN)/mypy

rules: .venv/.ready
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/python -m schemas.generate --check
	@$(BIN)/python -m schemas.history --check
	@$(BIN)/python -m streams.document --check

up: .venv/.ready ## Start the whole product on this machine
	@$(BIN)/quaestor up $(ARGS)

down: .venv/.ready ## Stop it; nothing is lost
	@$(BIN)/quaestor down $(ARGS)

bench: .venv/.ready ## Run the benchmarks (results in docs/reference/performance.md)
	@$(BIN)/python -m benchmarks $(ARGS)

faults: .venv/.ready ## Kill, freeze, cut and poison everything, and let verify judge (docs/reference/faults.md)
	@$(BIN)/python -m tests.faults $(ARGS)

format: .venv/.ready ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean: ## Remove the environment and caches; data in .quaestor/ stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The environment: uv when present, venv and pip when not; versions and hashes are those of requirements.lock. pip would
# compile one file after the other; a few of the packages' files are templates that never compile.
.venv/.ready: pyproject.toml requirements.lock
	@echo "making the environment in .venv (about a minute the first time)"
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --allow-existing --python $(PYTHON) .venv && \
	  uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes --no-deps -r requirements.lock && \
	  uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable . ; \
	else \
	  $(PYTHON) -m venv .venv && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes --no-deps -r requirements.lock && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . && \
	  { $(BIN)/python -m compileall -qq -j 0 .venv/lib || true; } ; \
	fi
	@touch .venv/.ready
