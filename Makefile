# `make run` and `make test` need Python 3.11 or newer, make, and nothing else.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet

export PYTHONWARNINGS ?= ignore
export TF_CPP_MIN_LOG_LEVEL ?= 3
export UV_HTTP_TIMEOUT ?= 120

.DEFAULT_GOAL := help
.PHONY: help run install by-pip check test bench lock clean

help: ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: install ## install, start everything, load the history, replay the last weeks live
	@$(BIN)/coldstream run

install: $(STAMP) ## the virtual environment, from the hash-locked requirements

$(STAMP): requirements.lock installer.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 to 3.13 found; install one, or say make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes -r installer.lock && $(BIN)/uv pip install --python $(BIN)/python --quiet --require-hashes -r requirements.lock || $(MAKE) --no-print-directory by-pip
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $(STAMP)

by-pip: # slower; for an index, a certificate or a proxy that only pip's own settings name
	@echo "uv could not install; pip goes on"
	$(PIP) --require-hashes -r requirements.lock

check: install ## format, lint, types, imports, names
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m testing.house

test: check ## check, then every test, two side by side; of those with processes of their own two files
	@$(BIN)/pytest --ignore=tests/system -n 2 --dist worksteal
	@$(BIN)/pytest tests/system -n 2 --dist loadscope --no-loadscope-reorder

bench: install ## the four benchmarks
	@for one in start freshness lookups ingest; do $(BIN)/coldstream bench $$one || exit 1; done

lock: ## resolve the dependencies anew (needs uv)
	echo uv | uv pip compile - --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url -o installer.lock
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url --group dev -o requirements.lock

clean: ## remove the environment and the state of `make run`
	rm -rf $(VENV) .coldstream
