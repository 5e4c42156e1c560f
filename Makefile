# Two commands do everything on a machine with Python 3.10+ and pip: `make demo` and `make test`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && { echo $$p; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
export OMP_WAIT_POLICY := PASSIVE

SUPPLY := build/supply/bin
LOCK := $(SUPPLY)/uv --config-file requirements/uv.toml pip compile --quiet --native-tls --universal --python-version 3.10 \
	--generate-hashes --no-emit-package torch --no-annotate --no-header -c constraints.txt pyproject.toml

SBOM := $(SUPPLY)/cyclonedx-py requirements - --pyproject pyproject.toml --output-reproducible --of JSON

.PHONY: demo test nightly lint docs package bench lock audit sbom reproducible pythons clean

demo: $(VENV)/.learned
	$(BIN)/flawsmith demo --out demo
	@echo "Open demo/report.html in a browser; the contact sheet is demo/contact-sheet.png."

test: lint docs package
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Commands of the documentation that train and judge, and the other tests that take minutes.
nightly: $(VENV)/.dev
	$(BIN)/python -m pytest -m "slow and not gpu"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

package: $(VENV)/.dev
	$(BIN)/python tests/package.py build/package

bench: $(VENV)/.core
	$(BIN)/python benchmarks/generate.py

# The supply chain: docs/supply-chain.md. These need the network.
lock: build/supply/.made
	$(LOCK) -o requirements/core.txt
	$(LOCK) --extra all -o requirements/all.txt

audit: build/supply/.made
	$(SUPPLY)/pip-audit --strict --require-hashes --disable-pip -r requirements/core.txt
	$(SUPPLY)/pip-audit --strict --require-hashes --disable-pip -r requirements/all.txt

sbom: build/supply/.made
	@mkdir -p build/sbom
	$(SBOM) -o build/sbom/core.cdx.json < requirements/core.txt
	{ cat requirements/all.txt; grep ^torch== constraints.txt; } | $(SBOM) -o build/sbom/all.cdx.json

reproducible: $(VENV)/.dev
	$(BIN)/python tests/reproducible.py build/reproducible

pythons: $(VENV)/.dev
	$(BIN)/python tests/pythons.py build/pythons

build/supply/.made: constraints.txt | $(BIN)/python
	$(BIN)/python -m venv build/supply
	$(SUPPLY)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv pip-audit cyclonedx-bom
	@touch $@

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "flawsmith needs Python 3.10 or newer: install it, or run make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing flawsmith into $(VENV) ..."
	$(PIP) -e .
	@touch $@

$(VENV)/.learned: $(VENV)/.core
	@echo "Installing the learned part (torch first, a few minutes) ..."
	$(subst --quiet ,,$(PIP)) torch==2.13.0  # a gigabyte: with a progress bar
	$(PIP) -e .[diffusion,report]
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing flawsmith and its test tools into $(VENV) (torch first, a few minutes) ..."
	$(subst --quiet ,,$(PIP)) torch==2.13.0  # a gigabyte: with a progress bar
	$(PIP) -e .[dev]
	@touch $(VENV)/.core $(VENV)/.learned $@

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .mypy_cache .ruff_cache
