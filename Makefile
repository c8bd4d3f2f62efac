# Everything here needs Python >= 3.11, make and a package index, nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: floors typed pages test demo soak lint types suite suite-outside suite-inside coverage-erased sdk sdk-envs ray wheel bench bench-quick clean

# Half of the suite waits for sockets and processes while the other half computes, so they run side by side.
test: lint types
	$(MAKE) --no-print-directory -j2 --output-sync=target suite wheel sdk-envs .venv-ray/ready
	$(MAKE) --no-print-directory bench-quick sdk ray

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

OUTSIDE := tests/jobs tests/shared tests/faults tests/mock

suite: suite-outside suite-inside
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

suite-outside suite-inside: coverage-erased

coverage-erased: $(VENV)/ready
	$(BIN)/coverage erase

suite-outside:
	$(BIN)/coverage run -m pytest $(OUTSIDE)

suite-inside:
	$(BIN)/coverage run -m pytest tests $(OUTSIDE:%=--ignore=%)

# The drop-in under each generation of the official SDK, in environments that are kept from run to run.
SDK1 := 1.109.1
SDK2 := 2.54.0
SDK3 := 3.52.0
SDK_ENVS := .venv-sdk1 .venv-sdk2 .venv-sdk3

.venv-sdk%/ready: pyproject.toml Makefile
	test -x .venv-sdk$*/bin/python || $(PYTHON) -m venv .venv-sdk$*
	.venv-sdk$*/bin/python -m pip install --quiet --disable-pip-version-check -e . 'openai[aiohttp]==$(SDK$*)' httpx \
		pytest pytest-asyncio hypothesis
	touch $@

sdk-envs: $(SDK_ENVS:=/ready)

sdk: sdk-envs
	set -e; for env in $(SDK_ENVS); do echo "tests/sdk in $$env"; $$env/bin/python -m pytest -q tests/sdk; done

# Jobs on a cluster, in an environment that has Ray: half a gigabyte, so it is kept from run to run.
.venv-ray/ready: pyproject.toml
	test -x .venv-ray/bin/python || $(PYTHON) -m venv .venv-ray
	.venv-ray/bin/python -m pip install --quiet --disable-pip-version-check -e '.[ray,redis]' pytest pytest-asyncio hypothesis
	touch $@

ray: .venv-ray/ready
	.venv-ray/bin/python -m pytest -q tests/cluster

# What a user installs, the built wheel, outside the checkout: with it run the tests of all that a user sees or a file in
# the wheel decides, and those of seconds, which coverage would stretch. What schedules is the same code as in the suite,
# and is left to it, as are faults that last and long kills.
INNER := tests/admission tests/faults/test_service_away.py tests/faults/test_clocks.py tests/faults/test_hundredfold.py \
	tests/shared/test_lanes.py tests/shared/test_processes.py tests/jobs/batches/test_both_routes.py

wheel: $(VENV)/ready
	rm -rf dist .venv-wheel
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet --disable-pip-version-check "$$(ls dist/*.whl)[test]"
	here="$$PWD" && out="$$(mktemp -d)" && trap 'rm -rf "$$out"' EXIT && \
	cp -r tests docs bench examples config README.md CHANGELOG.md Makefile pyproject.toml "$$out" && cd "$$out" && \
	"$$here/.venv-wheel/bin/python" -m pytest -q tests $(INNER:%=--ignore=%)

# How complete the types are that a user of the wheel sees, by pyright, which brings its own node where there is none.
typed: $(VENV)/ready
	rm -rf dist .venv-typed
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	$(PYTHON) -m venv .venv-typed
	.venv-typed/bin/python -m pip install --quiet --disable-pip-version-check "$$(ls dist/*.whl)" pyright
	PATH="$$PWD/.venv-typed/bin:$$PATH" pyright --verifytypes ratelimit --ignoreexternal
	PATH="$$PWD/.venv-typed/bin:$$PATH" pyright --pythonpath .venv-typed/bin/python tests/typed_calls.py

# The page of commands, and the picture of a run, each made from the program itself.
pages: $(VENV)/ready
	$(BIN)/python docs/make/commands.py
	$(BIN)/python docs/make/picture.py

# Kills jobs over and over, live, three on one key and through batches; then what is generated in the suite, at length.
# Half an hour at most: 20 minutes of kills, what the last run of each takes to end, and some six for the rest.
soak: $(VENV)/ready
	$(BIN)/python -m bench kills
	$(BIN)/python -m pytest -q --hypothesis-profile=soak \
		tests/faults/test_foreign_bytes.py tests/faults/test_stateful.py

# The core of the suite on the lowest version of everything that pyproject.toml allows.
.venv-floors/ready: pyproject.toml tests/floors.py
	$(PYTHON) tests/floors.py > .venv-floors.txt
	$(PYTHON) -m venv .venv-floors
	.venv-floors/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test]' -c .venv-floors.txt
	rm .venv-floors.txt
	touch $@

floors: .venv-floors/ready
	.venv-floors/bin/python -m pytest -q tests/wire tests/jobs tests/mock tests/faults

demo: $(VENV)/ready
	$(BIN)/python examples/demo.py

# Every figure of docs/benchmarks.md, and the document itself; an hour. The peers install into .bench-envs.
bench: $(VENV)/ready .venv-ray/ready
	missed=; for each in 'caps --virtual' 'caps --real' overhead 'jobs --real' batch peers scale shared ray 'soak --seconds 120'; do \
		$(BIN)/python -m bench $$each || missed="$$missed; $$each"; done; \
	$(BIN)/python -m bench docs; test -z "$$missed" || { echo "misses a target$$missed"; exit 1; }

bench-quick: $(VENV)/ready
	$(BIN)/python -m bench caps --virtual --quick

clean:
	rm -rf .venv .venv-ray .venv-floors .venv-wheel .venv-typed $(SDK_ENVS) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
