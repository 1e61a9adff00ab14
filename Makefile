# Two commands on a fresh machine: `make reproduce` runs the main job, `make test` runs the tests.
# Each sets up what it needs in .venv; a second call starts in seconds.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/.ready
OUT ?= runs/reproduce
PROFILE ?= default

.PHONY: reproduce theory test test-slow slow check format bench clean

reproduce: $(READY)
	$(BIN)/mightnt reproduce --profile $(PROFILE) --out $(OUT) --resume

theory: $(READY)
	$(BIN)/mightnt theory all --out runs/theory --resume

test: $(READY)
	$(BIN)/python -m pytest -m "not slow" -n 2

slow: test-slow

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "not slow" -n 2

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)
	$(BIN)/python -m bench

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed; set PYTHON=/path/to/python"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all,dev]"
	touch $(READY)

clean:
	rm -rf .venv build dist *.egg-info src/*.egg-info
