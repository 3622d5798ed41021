# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
OUTPUT ?= demo-output
GOLDEN ?= tests/golden

.PHONY: help setup demo test test-slow lint format clean

help:
	@echo "make demo    set up, render manifests/demo.jsonl on the bundled models, say where to look"
	@echo "make test    set up, run the tests (under 12 minutes on 2 cores)"
	@echo "make test-slow   the slow ones too"
	@echo "make lint    ruff and the layers"
	@echo "make clean   remove the environment and the demo's output"

setup: .venv/.ready

# Installed once, and again when the dependencies change. Editable: code changes need no new install.
.venv/.ready: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	$(BIN)/flowcache render --job jobs/demo.yaml --output $(OUTPUT)
	$(BIN)/flowcache sheet $(OUTPUT) --to $(OUTPUT)-sheet.png
	$(BIN)/flowcache report $(OUTPUT) --to $(OUTPUT)-report.html

test: setup
	$(BIN)/python -m pytest --golden $(GOLDEN)

test-slow: setup
	$(BIN)/python -m pytest --golden $(GOLDEN) -m "slow or not slow"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv $(OUTPUT) $(OUTPUT)-sheet.png $(OUTPUT)-report.html
