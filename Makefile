# Every target below sets up .venv first when it is missing or older than the lock.
# Needs python3 >= 3.11 with venv, and make; nothing else.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready
BENCH_STAMP := $(VENV)/.bench-ready

.PHONY: setup run test kills outages differential lint fuzz-api bench truth lock clean
.DEFAULT_GOAL := help

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 16

setup: $(STAMP) ## make .venv from the lock, compile the kernels once

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: python3 >= 3.11 is needed; say which with PYTHON=/path/to/python3" >&2; exit 2; }
	@test -x $(BIN)/python || { echo "[1/4] making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "[2/4] installing the locked packages (about 150 MB the first time)"
	@$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements.lock
	@echo "[3/4] installing ringfence itself, in place"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@echo "[4/4] compiling the kernels (a minute or two, once)"
	@$(BIN)/python -m telemetry.warm
	@touch $@

run: $(STAMP) ## run the engine with a simulated fleet; prints the console's address
	@exec $(BIN)/ringfence up --simulate $${RINGFENCE_SIMULATE:-200}

test: $(STAMP) lint ## lint, then every test that needs nothing but this repository
	@$(BIN)/python -m pytest -n 2 --dist loadfile

kills: $(STAMP) ## SIGKILL engine, database and broker under load, 500 times (about an hour; KILLS=n)
	@RINGFENCE_KILLS=$(or $(KILLS),500) $(BIN)/python -m pytest tests/end_to_end/test_kills.py -s

outages: $(STAMP) ## outages of a minute, and a million pings in any order (about 10 minutes; OUTAGE=s, PINGS=n)
	@RINGFENCE_OUTAGE_S=$(or $(OUTAGE),60) RINGFENCE_PERMUTED_PINGS=$(or $(PINGS),1000000) $(BIN)/python -m pytest tests/end_to_end/test_outages.py -s

differential: $(STAMP) ## compare covering with two oracles on 100 million pairs (some minutes; PAIRS=n)
	@$(BIN)/python -m tests.geofence.differential --pairs $(or $(PAIRS),100000000)

lint: $(STAMP) ## ruff, mypy --strict, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

$(BENCH_STAMP): $(STAMP) requirements-bench.lock
	@echo "installing the peers that the benchmarks compare with"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $@

fuzz-api: $(BENCH_STAMP) ## ask the API in many more ways than the tests do (minutes)
	@RINGFENCE_FUZZ_EXAMPLES=$${RINGFENCE_FUZZ_EXAMPLES:-100} $(BIN)/python -m pytest tests/telemetry/api/test_api_fuzz.py --timeout 3600

truth: $(STAMP) ## judge simulated months against the truth; writes benchmarks/results/truth (QUICK=1: minutes)
	@$(BIN)/python -m benchmarks.truth $(if $(QUICK),--quick)

bench: $(BENCH_STAMP) ## measure against the peers; writes benchmarks/results (an hour; QUICK=1: minutes)
	@$(BIN)/python -m benchmarks $(if $(QUICK),--quick)
	@$(BIN)/python -m benchmarks.curves $(if $(QUICK),--quick)
	@$(BIN)/python -m benchmarks.growing $(if $(QUICK),--zones 100000)
	@$(BIN)/python -m benchmarks.engine --devices 20000 --batch 20000
	@$(BIN)/python -m benchmarks.ingest
	@$(BIN)/python -m benchmarks.store
	@$(BIN)/python -m benchmarks.end_to_end
	@$(BIN)/python -m benchmarks.latency
	@$(BIN)/python -m benchmarks.day
	@$(BIN)/python -m pytest benchmarks --benchmark-enable --benchmark-only

lock: ## pin the newest versions again (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --upgrade -o requirements.lock
	uv pip compile pyproject.toml --extra dev --extra bench --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --upgrade -c requirements.lock -o requirements-bench.lock

clean: ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis
