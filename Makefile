# Everything a developer runs. `make` alone lists the targets.

PYTHON ?= python3
BASE ?= origin/main
BIN := .venv/bin
BROWSER := $(firstword $(foreach name,chromium chromium-browser google-chrome,$(shell command -v $(name))))

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test soak check format build same-loss clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Variables: PYTHON (interpreter that makes .venv, default python3), BASE (for same-loss)"

# The test is for a whole venv: where Debian lacks python3-venv, a .venv without pip is left behind.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "vqtrain needs Python 3.11 to 3.13; name one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv

# Stamps, so that an install is repeated only when pyproject.toml changes.
.venv/installed: pyproject.toml | $(BIN)/pip
	@echo "Installing vqtrain into .venv; the first time takes some minutes"
	$(BIN)/python -m pip install -q -e .
	@touch $@

.venv/installed-dev: pyproject.toml | $(BIN)/pip
	@echo "Installing vqtrain and its tools into .venv; the first time takes some minutes"
	$(BIN)/python -m pip install -q -e ".[dev]"
	@touch .venv/installed $@

setup: .venv/installed-dev ## Make .venv with vqtrain and the development tools

demo: .venv/installed ## Train the demo tokenizer on bundled photographs, on the CPU
	$(BIN)/vqtrain train experiment=demo

# One thread each, in two processes, of which the idle one takes over tests that wait in the other.
test: setup ## Run every test that needs no GPU
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/pytest -n 2 --dist worksteal --durations=10 -rfEs -m "not gpu and not soak$(if $(BROWSER),, and not browser)"
	@$(if $(BROWSER),:,echo "Left out: the tests in a browser, as there is no Chromium here; apt-get install chromium")

soak: setup ## Run the long storms (kills, memory)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/pytest -m soak

check: setup ## Check format, lint, types, floors and spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

format: setup ## Format the code and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

build: setup ## Build the wheel into dist/
	$(BIN)/python -m build --wheel

same-loss: setup ## Show that 20 training steps log the same as at BASE, byte for byte
	scripts/same_loss.sh "$(BASE)"

clean: ## Remove caches and built wheels; .venv and runs stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info
	find configs scripts tests vqtrain -type d -name __pycache__ -prune -exec rm -rf {} +
