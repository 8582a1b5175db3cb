# Works on a fresh clone with Python 3.11 or newer and make. Each target sets up .venv by itself; a stamp
# in .venv, newer than pyproject.toml and constraints.txt, says that an installation is still good, so a second run is quick.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Releases are those of constraints.txt, unless UNPINNED is set: then the newest that pyproject.toml allows.
PINS := $(if $(UNPINNED),,-c constraints.txt)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PINS)
comma := ,
# pip compiles on one core what it installs; some packages hold files that are no Python, for their own tests
INSTALL = $(PIP) --no-compile $(1) && { $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib > /dev/null 2>&1 || true; }

# tests start many interpreters: what one has compiled is there for the next, whatever the shell says
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo ready test test-all test-unpinned pins coverage lint bench fuzz docs site package clean

demo: $(VENV)/.run
	$(BIN)/cmsim run scenarios/headline.yaml --out demo/headline
	$(BIN)/cmsim plot power-throughput demo/headline --out demo/power_throughput.png

# What lint and tests need.
ready: $(VENV)/.ready

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" -q

test-all: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist worksteal -q

test-unpinned:
	$(MAKE) VENV=.venv-unpinned UNPINNED=1 test

# Written from what an installation without pins got, after its tests passed.
pins: test-unpinned
	.venv-unpinned/bin/python -m pip install --quiet --disable-pip-version-check -e '.[lint]'
	{ grep '^#' constraints.txt; .venv-unpinned/bin/python -m pip freeze --exclude-editable; } > constraints.txt.new
	mv constraints.txt.new constraints.txt

coverage: $(VENV)/.test
	$(BIN)/python benchmarks/covered.py

lint: $(VENV)/.lint
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

bench: $(VENV)/.test
	$(BIN)/python benchmarks/run.py

fuzz: $(VENV)/.test
	$(BIN)/python benchmarks/fuzz.py --inputs 1000000

docs: $(VENV)/.run
	$(BIN)/cmsim schema > docs/reference.md.new
	mv docs/reference.md.new docs/reference.md
	$(BIN)/cmsim schema scenario --json > docs/scenario.schema.json.new
	mv docs/scenario.schema.json.new docs/scenario.schema.json
	$(BIN)/cmsim validate --out docs/validity.md --errors workloads/reference/errors.yaml || test $$? -eq 1  # the page is written; 1 says that a row misses

# The documentation as pages for a browser, in docs/_build.
site: $(BIN)/python
	$(PIP) -e '.[docs]'
	$(BIN)/python -m sphinx -W -q -b html docs docs/_build

# Source archive and wheel, built and installed where nothing else is, with their sizes.
package: $(VENV)/.test
	$(BIN)/python -m pytest -q tests/unit/test_package.py

clean:
	rm -rf docs/_build $(VENV) .venv-unpinned .coverage* build dist demo out .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find cmsim tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cmsim needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

# The interpreter is an order-only prerequisite: its file is a link, dated when Python was built.
$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	$(call INSTALL,-e .)
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(call INSTALL,-e '.[test]')
	@touch $@ $(VENV)/.run

$(VENV)/.lint: pyproject.toml constraints.txt | $(BIN)/python
	$(call INSTALL,-e '.[lint]')
	@touch $@ $(VENV)/.run

# of both at once: what is common is looked up and built once
$(VENV)/.ready: pyproject.toml constraints.txt | $(BIN)/python
	$(call INSTALL,-e '.[test$(comma)lint]')
	@touch $@ $(VENV)/.run $(VENV)/.test $(VENV)/.lint
