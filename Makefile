# Everything here needs Python >= 3.11, make and a package index, nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: test demo lint types suite wheel clean

test: lint types suite wheel

$(VENV)/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ratelimit needs Python 3.11 or newer; say make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/ready
	$(BIN)/mypy

suite: $(VENV)/ready
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# The same suite once more, against what a user installs: the built wheel, outside the checkout.
wheel: $(VENV)/ready
	rm -rf dist .venv-wheel
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet --disable-pip-version-check "$$(ls dist/*.whl)[test]"
	here="$$PWD" && out="$$(mktemp -d)" && trap 'rm -rf "$$out"' EXIT && \
	cp -r tests docs bench examples config README.md CHANGELOG.md Makefile pyproject.toml "$$out" && cd "$$out" && \
	"$$here/.venv-wheel/bin/python" -m pytest -q

demo: $(VENV)/ready
	$(BIN)/python examples/demo.py

clean:
	rm -rf .venv .venv-wheel build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
