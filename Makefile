# Everything that you do with this repository; CI runs the same targets.
# You need make, and Python 3.11 or newer. The rest is installed into .venv and node_modules.

.DEFAULT_GOAL := help
.NOTPARALLEL:

VENV := .venv
BIN := $(VENV)/bin
NEWEST := .venv-newest# the newest Django on the newest Python of this machine
PYTEST_ARGS ?=# e.g. make test-python PYTEST_ARGS="-k smoke"
# Test files in several processes, each with its own servers.
PARALLEL := --numprocesses logical --maxprocesses 4 --dist loadfile

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1 \2/p' $(MAKEFILE_LIST) | awk '{ n = $$1; $$1 = ""; printf "  %-14s%s\n", n, $$0 }'

# Using it

.PHONY: demo
demo: $(VENV)/.demo ## Serve the demo at http://127.0.0.1:8000/ (another port: make demo PORT=9000)
	@$(BIN)/python -m demo $(if $(PORT),--port $(PORT))

.PHONY: bench
bench: $(VENV)/.dev ## Measure it and similar packages, in some 15 minutes: BENCH_ARGS="--quick", --growth, --save, --help
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

# Testing it

.PHONY: test
test: test-frontend test-python test-newest ## Run every test

.PHONY: test-frontend
test-frontend: frontend/node_modules/.installed ## Type check and test the frontend, and check that the committed build matches the sources
	cd frontend && ../tools/with-node npm run typecheck
	cd frontend && ../tools/with-node npm test

.PHONY: test-python
test-python: $(VENV)/.dev frontend/node_modules/.installed ## Run the Python tests: unit, integration, browser, faults in short
	@$(BIN)/python -m tools.chromium >/dev/null
	$(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

.PHONY: test-newest
test-newest: ## Run the unit and integration tests with the newest Django, if a Python for it is installed
	@python=$$(tools/find-python 14 13 12) || { \
	    echo "No Python 3.12, 3.13 or 3.14 is installed here: the tests with the newest Django are skipped."; exit 0; }; \
	$(MAKE) --silent --no-print-directory NEWEST_PYTHON="$$python" $(NEWEST)/.installed && \
	echo "$(NEWEST)/bin/python -m pytest $(PARALLEL) --ignore=tests/browser --ignore=tests/faults $(PYTEST_ARGS)" && \
	$(NEWEST)/bin/python -m pytest $(PARALLEL) --ignore=tests/browser --ignore=tests/faults $(PYTEST_ARGS)

.PHONY: faults
faults: $(VENV)/.dev ## Run all fault tests, which break real servers; make test runs only the short ones
	$(BIN)/python -m pytest tests/faults --deselect tests/faults/test_storm.py -m "" $(PYTEST_ARGS)

# The long storm of tests/faults. FAULT_SEED repeats a storm; FAULT_REPORT is a file for its figures, in JSON;
# FAULT_KINDS leaves out some kinds of faults (tests/faults/kinds.py).
FAULT_SECONDS ?= 300# for each of the two channel layers
FAULT_RUNS ?= 1000# at least this many, for each of them
export FAULT_SEED FAULT_REPORT FAULT_KINDS
.PHONY: soak
soak: $(VENV)/.dev ## Break everything at random for ten minutes: FAULT_SECONDS, FAULT_RUNS, FAULT_SEED, FAULT_REPORT
	@$(BIN)/python -m tools.chromium >/dev/null
	FAULT_SECONDS=$(FAULT_SECONDS) FAULT_RUNS=$(FAULT_RUNS) $(BIN)/python -m pytest tests/faults/test_storm.py -s $(PYTEST_ARGS)

.PHONY: lint
lint: types ## Check style, formatting, layers and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	cd frontend && ../tools/with-node npm run lint

.PHONY: types
types: $(VENV)/.dev frontend/node_modules/.installed ## Check the types of Python and TypeScript
	$(BIN)/mypy
	cd frontend && ../tools/with-node npm run typecheck

# Changing it

.PHONY: format
format: $(VENV)/.dev ## Format the Python sources and sort their imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: frontend
frontend: frontend/node_modules/.installed ## Build taskapi/static/ from frontend/ (commit the result)
	cd frontend && ../tools/with-node npm run build

.PHONY: docs
docs: $(VENV)/.dev ## Build the documentation into site/; a broken link is an error
	$(BIN)/mkdocs build --strict

# One lock file for every Python and platform. `make lock UV_FLAGS=--upgrade` takes newer versions.
COMPILE = $(BIN)/uv pip compile --quiet --universal --fork-strategy fewest --custom-compile-command "make lock" $(UV_FLAGS)
.PHONY: lock
lock: $(VENV)/.dev ## Write requirements/*.txt from pyproject.toml
	$(COMPILE) --python-version 3.11 -c requirements/lts.in --extra dev pyproject.toml -o requirements/dev.txt
	$(COMPILE) --python-version 3.11 -c requirements/dev.txt --extra demo pyproject.toml -o requirements/demo.txt
	$(COMPILE) --python-version 3.12 --extra test pyproject.toml -o requirements/newest.txt
	$(COMPILE) --python-version 3.11 requirements/node.in -o requirements/node.txt
	for peer in task-api-1 celery-progress channels-arq; do \
	    $(COMPILE) --python-version 3.11 -c requirements/dev.txt requirements/bench-$$peer.in -o requirements/bench-$$peer.txt \
	    || exit 1; done

.PHONY: clean
clean: ## Remove everything that these targets made, except the committed build
	rm -rf $(VENV) $(NEWEST) benchmarks/.environments frontend/node_modules build dist site demo/var
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Installations. Each stamp file is newer than the files that it depends on.

$(VENV)/.made:
	@python=$$(tools/find-python 11 12 13 14) || { \
	    echo "Python 3.11 or newer is needed, with its venv module (on Debian: apt-get install python3 python3-venv)." >&2; \
	    exit 1; }; \
	echo "Making $(VENV) with $$python"; \
	"$$python" -m venv --clear $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.made requirements/demo.txt pyproject.toml
	@echo "Installing what the demo needs into $(VENV)"
	@$(BIN)/python -m pip install -qq -r requirements/demo.txt
	@$(BIN)/python -m pip install -qq --no-deps --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.made requirements/dev.txt pyproject.toml
	@echo "Installing what development needs into $(VENV)"
	@$(BIN)/python -m pip install -qq -r requirements/dev.txt
	@$(BIN)/python -m pip install -qq --no-deps --editable .
	@touch $@

$(NEWEST)/.installed: requirements/newest.txt pyproject.toml
	@echo "Installing the newest Django into $(NEWEST) with $(NEWEST_PYTHON)"
	@"$(NEWEST_PYTHON)" -m venv --clear $(NEWEST)
	@$(NEWEST)/bin/python -m pip install -qq -r requirements/newest.txt
	@$(NEWEST)/bin/python -m pip install -qq --no-deps --editable .
	@touch $@

frontend/node_modules/.installed: frontend/package.json frontend/package-lock.json | $(VENV)/.made
	cd frontend && ../tools/with-node npm ci
	@touch $@
