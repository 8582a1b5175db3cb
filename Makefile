# Works on a fresh clone with Python 3.11 or newer and make. Each target sets up .venv by itself; a stamp
# in .venv, newer than pyproject.toml, says that an installation is still good, so a second run is quick.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-all lint bench fuzz docs clean

demo: $(VENV)/.run
	$(BIN)/cmsim run scenarios/headline.yaml --out demo/headline
	$(BIN)/cmsim plot power-throughput demo/headline --out demo/power_throughput.png

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" -q

test-all: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist worksteal -q

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
	$(BIN)/cmsim validate --out docs/validity.md || test $$? -eq 1  # the page is written; 1 says that a row misses

clean:
	rm -rf $(VENV) build dist demo out .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find cmsim tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cmsim needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

# The interpreter is an order-only prerequisite: its file is a link, dated when Python was built.
$(VENV)/.run: pyproject.toml | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(PIP) -e '.[test]'
	@touch $@ $(VENV)/.run

$(VENV)/.lint: pyproject.toml | $(BIN)/python
	$(PIP) -e '.[lint]'
	@touch $@ $(VENV)/.run
