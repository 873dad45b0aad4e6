# The project's commands; `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: help setup run test check bench fuzz format generate clean

help:  ## list the commands
	@grep -hE '^[a-z]+:.*?## ' $(MAKEFILE_LIST) | awk -F ':.*?## ' '{printf "make %-10s %s\n", $$1, $$2}'

setup:  ## install what is missing (system packages when root, a virtual environment)
	@dev/setup.sh

run: setup  ## run the whole way on this machine, with a live view; Ctrl-C ends it (make run ARGS=--help)
	@exec $(PY) -m dev.up $(ARGS)

test:  ## set up everything and the tests' own servers, then pass the tests; skips are counted with their reasons
	@dev/setup.sh tests
	@failed=0; $(PY) -m pytest -n 2 --dist loadfile -m "not machine" || failed=1; \
	$(PY) -m pytest -m machine || failed=1; exit $$failed

check: setup  ## format, lint, types, layers, generated code and docs tables
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy --platform darwin --cache-dir .mypy_cache/darwin --no-warn-unreachable --follow-imports=silent -p agent -p escalation
	$(VENV)/bin/lint-imports --no-cache
	$(PY) -m dev.generate --check

bench: setup  ## measure in pairs and print the figures (make bench ARGS="storms --pairs 9")
	@$(PY) -m bench $(ARGS)

fuzz: setup  ## fuzz the route observer, then all property tests with new examples, for some minutes (make fuzz ARGS="-max_total_time=3600")
	@$(PY) -m pip install -q --disable-pip-version-check -c dev/constraints.txt -e ".[fuzz]"
	@$(PY) -m fuzz.observer $(ARGS)
	@NANOBOT_EXAMPLES=1000 $(PY) -m pytest -q --timeout 0 --hypothesis-profile=searching tests/probes/http/test_invariants.py
	@$(PY) -m pytest -q -n 2 --dist loadfile -m "not machine" --hypothesis-profile=searching

format: setup  ## format the code and mend what the linter can
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

generate: setup  ## write the generated code and docs tables again
	$(PY) -m dev.generate

clean:  ## remove the virtual environment, caches and run-time state
	if [ -L .run ]; then rm -rf "$$(readlink .run)"; fi
	rm -rf $(VENV) .run .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
