# Tilescope: `make run` and `make test` are all the set-up there is.
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
export QT_QPA_PLATFORM ?= $(if $(DISPLAY)$(WAYLAND_DISPLAY),,offscreen)

.PHONY: help run test fuzz compile check bench sanitize format clean setup

help:  ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

run: setup  ## the app; ARGS="--theme light" passes options; without a display a picture and a table
	@env $(if $(DISPLAY)$(WAYLAND_DISPLAY),-u QT_QPA_PLATFORM) $(PY) -m app $(ARGS)

test: setup  ## all tests; those of kernels in Triton's interpreter in a process of their own
	$(PY) -m pytest -n 2 --dist loadgroup --ignore=tests/kernels/interpreter
	TRITON_INTERPRET=1 $(PY) -m pytest -n 2 tests/kernels/interpreter

fuzz: setup  ## the properties, on examples that no run before has drawn
	$(PY) -m pytest -n 2 --hypothesis-profile=default -m hypothesis --ignore=tests/kernels/interpreter

compile: setup  ## every variant of every tuned kernel, without a GPU: some minutes; `make test` takes the hardest of each
	TILESCOPE_COMPILE=all $(PY) -m pytest -n 2 tests/kernels/test_compile.py

check: setup  ## style, types, the direction of imports
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

bench: setup  ## frames a second, start, open and close
	$(PY) -m app --bench start
	$(PY) -m app --bench frames
	$(PY) -m app --bench cycles

sanitize: setup  ## every kernel under Compute Sanitizer, on a GPU: memory, and races where all is synchronous
	$(PY) -m engine bench sanitize

format: setup  ## mend what ruff can mend
	$(PY) -m ruff check --fix .

clean:  ## remove the environment and all caches
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .hypothesis .import_linter_cache

setup: $(READY)

$(READY): pyproject.toml scripts/setup
	@sh scripts/setup $(VENV)
