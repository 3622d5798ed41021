# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
OUTPUT ?= demo-output
GOLDEN ?= tests/golden
ROOM ?=
BASE ?= main
PROCESSES ?= 2
N ?= 4
SEED ?= 0

.PHONY: help setup demo test test-quick test-runs test-rooms test-stores test-slow soak scale bench bench-skyreels bench-magi train-skyreels train-magi hls lint format docs clean

help:
	@echo "make demo    set up, render manifests/demo.jsonl on the bundled models, say where to look"
	@echo "make test    set up, run the tests (some 15 minutes on 2 cores)"
	@echo "make test-quick ROOM=cache   the unit tests of a room, in under a minute; without ROOM: of what differs from main"
	@echo "make test-slow   the slow ones too"
	@echo "make soak    200 tiny videos while everything is killed at random; the short form is in make test"
	@echo "make scale   the driver with 100,000 videos on 1,000 simulated gangs"
	@echo "make bench   what each policy costs and how close it stays to off, on the bundled models; N=32 prompts, SEED=1 others"
	@echo "make train-skyreels, make train-magi   train a bundled model from nothing, or go on (training/README.md)"
	@echo "make docs    the pages as a site, in site/; installs mkdocs-material once, then needs no network"
	@echo "make hls     hls.js for tests/s3/test_player.py, by npm (docs/playing.md)"
	@echo "make lint    ruff, the layers, types, spelling, unused code"
	@echo "make clean   remove the environment and the demo's output"

setup: .venv/.ready

# Installed once, and again when the dependencies change. Editable: code changes need no new install.
.venv/.ready: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	$(BIN)/flowcache render --job jobs/demo.yaml --output $(OUTPUT)
	$(BIN)/flowcache sheet $(OUTPUT) --to $(OUTPUT)-sheet.webp
	$(BIN)/flowcache report $(OUTPUT) --to $(OUTPUT)-report.html
	@echo "two of these videos again, each by a gang of two ranks:"
	$(BIN)/flowcache render manifests/demo-gang.jsonl --output $(OUTPUT)-gang --policy paper:slow --gang 2
	$(BIN)/python -m benchmarks.same $(OUTPUT) $(OUTPUT)-gang

# Three processes on two cores: those of stores wait more than they compute.
test: setup
	@echo "running the tests in three processes; each prints when it is through"
	@$(MAKE) --no-print-directory -j3 -Otarget test-runs test-rooms test-stores

test-runs: setup
	@$(BIN)/python -m pytest tests/e2e tests/fault tests/cluster tests/hostile

test-rooms: setup
	@$(BIN)/python -m pytest --golden $(GOLDEN) tests/unit tests/parity

test-stores: setup
	@$(BIN)/python -m pytest tests/s3 tests/damage tests/soak

# Leaves out what is marked long, which `make test` runs.
test-quick: setup
	@tests="$(or $(ROOM:%=tests/unit/%),$$(tools/changed-tests $(BASE)))" && \
		$(BIN)/python -m pytest -q --golden $(GOLDEN) -m "not slow and not long" $$tests

test-slow: setup
	$(BIN)/python -m pytest --golden $(GOLDEN) -m "slow or not slow"

soak: setup
	OMP_NUM_THREADS=1 PYTHONPATH=. $(BIN)/python -m tests.soak
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow tests/damage
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -s -m slow tests/hostile

scale: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.scale

# Each on a core of its own. Goes on where it was; what is measured lies in runs/.
bench: setup
	@$(MAKE) --no-print-directory -j2 bench-skyreels bench-magi

bench-skyreels bench-magi: bench-%: setup
	OMP_NUM_THREADS=1 $(BIN)/flowcache bench tiny-$* --n $(N) --seed $(SEED) --out runs/bench-$*-$(SEED)

train-skyreels train-magi: train-%: setup
	$(BIN)/python -m training.train --plan training/plans/$*.yaml --out runs/$* --processes $(PROCESSES)

hls:
	npm install --silent --no-package-lock --no-audit --no-fund --prefix tests/s3

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright
	$(BIN)/codespell
	$(BIN)/vulture

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

.venv/.docs: pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

clean:
	rm -rf .venv site $(OUTPUT) $(OUTPUT)-gang $(OUTPUT)-sheet.webp $(OUTPUT)-report.html
