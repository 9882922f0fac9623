# The two commands of the README, and the few a contributor needs.
# Every target works on a machine with only git, make and Python 3.11 or later.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
INTEROP := $(VENV)/interop.stamp $(VENV)/interop-management.stamp $(VENV)/interop-tools.stamp $(VENV)/interop-node.stamp
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# A dot a second while a command runs: a silent minute looks like a hang.
DOTTED = @$(1) & pid=$$!; while kill -0 $$pid 2>/dev/null; do printf .; sleep 1; done; echo; wait $$pid

.PHONY: install demo test interleavings clients interop servers differential hosts lint check bench screenshots docs live-auth0 lock release verify-release bench-report clean

install: $(VENV)/runtime.stamp

demo: $(VENV)/runtime.stamp
	@$(BIN)/agentvault demo

# Bytecode is kept whatever the environment says: ours is started a hundred times.
test: $(VENV)/dev.stamp
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 3 --dist worksteal

# Random interleavings over three brokers, against what one broker answers.
interleavings: $(VENV)/dev.stamp
	@PYTHONPATH=tests $(BIN)/python -m support.run_interleavings $(INTERLEAVINGS)

# Other people's clients, unmodified: make test skips those that are not here.
clients: $(VENV)/dev.stamp
	@$(MAKE) --no-print-directory -j 3 $(INTEROP)

interop: clients
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest tests/interop -n 2 --dist loadfile

# Real servers, which read what the gateway sent them: make test skips those that are not here.
servers: $(VENV)/differential.stamp $(VENV)/differential-node.stamp $(VENV)/differential-go.stamp

differential: servers
	@PYTHONPATH=tests $(BIN)/python -m differential $(DIFFERENTIAL)

# Agent hosts of 1 GB, which make interop leaves out: each behind its hooks.
hosts: $(VENV)/interop-node.stamp $(VENV)/hosts-node.stamp
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest tests/interop/test_agent_hosts.py

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow and not integration"

bench: $(VENV)/dev.stamp
	@$(BIN)/python bench/run.py

screenshots: $(VENV)/dev.stamp
	@$(BIN)/python screenshots/make.py

# What the docs take from the code (settings, the operators' API, the overview's picture),
# then the site: open docs/_site/index.html.
docs: $(VENV)/docs.stamp
	@$(BIN)/python docs/make.py
	@$(BIN)/python docs/openapi.py
	@$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_site

# Opt-in, and changes a real tenant: see docs/auth0.md, "A live run".
live-auth0: $(VENV)/dev.stamp
	@$(BIN)/python tests/live/auth0.py $(LIVE)

# Wheel, sdist, SBOM, provenance and sums of the commit that is checked out, in dist/.
release: $(VENV)/dev.stamp
	@$(BIN)/python release/make.py $(RELEASE)

# Needs Python alone: make verify-release DIR=…
verify-release:
	@$(PYTHON) release/verify.py $(or $(DIR),dist)

# docs/performance.md, from a run on this machine; BENCH_REPORT=--quick is short.
bench-report: $(VENV)/dev.stamp
	@$(BIN)/python bench/report.py $(BENCH_REPORT)

lock: $(VENV)/dev.stamp
	$(LOCK) --extra postgres --group build pyproject.toml -o requirements/runtime.txt
	$(LOCK) -c requirements/runtime.txt --extra postgres --group dev --group build pyproject.toml -o requirements/dev.txt
	$(LOCK) -c requirements/dev.txt --group pyproject.toml:docs -o requirements/docs.txt
	$(LOCK) tests/interop/requirements.in -o tests/interop/requirements.txt
	$(LOCK) tests/interop/management.in -o tests/interop/management.txt
	$(LOCK) tests/interop/tools.in -o tests/interop/tools.txt
	$(LOCK) tests/differential/requirements.in -o tests/differential/requirements.txt

clean:
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "AgentVault needs Python 3.11 or later; $(PYTHON) is older. Try: make PYTHON=python3.13"; exit 1; }
	@echo "making $(VENV)"
	$(call DOTTED,$(PYTHON) -m venv $(VENV))

$(VENV)/runtime.stamp: requirements/runtime.txt pyproject.toml | $(BIN)/python
	@echo "installing the locked requirements into $(VENV)"
	$(call DOTTED,$(PIP) --require-hashes -r requirements/runtime.txt)
	@$(PIP) --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt $(VENV)/runtime.stamp
	@echo "installing the tools of the tests and checks"
	$(call DOTTED,$(PIP) --require-hashes -r requirements/dev.txt)
	@touch $@

$(VENV)/docs.stamp: requirements/docs.txt $(VENV)/dev.stamp
	@echo "installing Sphinx for the site"
	@$(PIP) --require-hashes -r $<
	@touch $@

# Each in an environment of its own: auth0-ai needs an auth0-python before 5.
$(VENV)/interop.stamp: tests/interop/requirements.txt $(VENV)/dev.stamp
	@echo "installing other people's clients into $(VENV)/interop"
	@$(PYTHON) -m venv --without-pip $(VENV)/interop
	@$(BIN)/uv pip install --quiet --python $(VENV)/interop --require-hashes -r $<
	@touch $@

$(VENV)/interop-management.stamp: tests/interop/management.txt $(VENV)/dev.stamp
	@echo "installing other people's clients into $(VENV)/interop-management"
	@$(PYTHON) -m venv --without-pip $(VENV)/interop-management
	@$(BIN)/uv pip install --quiet --python $(VENV)/interop-management --require-hashes -r $<
	@touch $@

$(VENV)/interop-tools.stamp: tests/interop/tools.txt $(VENV)/dev.stamp
	@echo "installing agent frameworks into $(VENV)/interop-tools"
	@$(PYTHON) -m venv --without-pip $(VENV)/interop-tools
	@$(BIN)/uv pip install --quiet --python $(VENV)/interop-tools --require-hashes -r $<
	@touch $@

$(VENV)/interop-node.stamp: tests/interop/package-lock.json $(VENV)/dev.stamp
	@echo "installing other people's clients into tests/interop/node_modules"
	@if command -v npm >/dev/null; then npm ci --prefix tests/interop --omit=optional --ignore-scripts --silent --no-audit --no-fund; else echo "no npm here: the JavaScript ones are left out"; fi
	@touch $@

# Their programs are optional packages, one a platform.
$(VENV)/hosts-node.stamp: tests/interop/hosts/package-lock.json $(VENV)/dev.stamp
	@echo "installing agent hosts into tests/interop/hosts/node_modules"
	$(call DOTTED,npm ci --prefix tests/interop/hosts --ignore-scripts --silent --no-audit --no-fund)
	@touch $@

# PHP, Ruby with rack and puma, and Go are the system's: see CONTRIBUTING.md.
$(VENV)/differential.stamp: tests/differential/requirements.txt $(VENV)/dev.stamp
	@echo "installing Flask, Django and FastAPI into $(VENV)/differential"
	@$(PYTHON) -m venv --without-pip --clear $(VENV)/differential
	@$(BIN)/uv pip install --quiet --python $(VENV)/differential --require-hashes -r $<
	@touch $@

$(VENV)/differential-node.stamp: tests/differential/package-lock.json $(VENV)/dev.stamp
	@echo "installing Express into tests/differential/node_modules"
	@if command -v npm >/dev/null; then npm ci --prefix tests/differential --ignore-scripts --silent --no-audit --no-fund; else echo "no npm here: Express is left out"; fi
	@touch $@

$(VENV)/differential-go.stamp: tests/differential/servers/golang/main.go tests/differential/servers/golang/mcp.go $(VENV)/dev.stamp
	@echo "building the server of Go"
	@if command -v go >/dev/null; then rm -f $(VENV)/differential-go/server; cd tests/differential/servers/golang && CGO_ENABLED=0 GOPROXY=off GOTOOLCHAIN=local go build -o $(CURDIR)/$(VENV)/differential-go/server .; else echo "no go here: its server is left out"; fi
	@touch $@
