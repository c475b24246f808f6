# Every target makes the virtual environment it needs. `make help` lists the targets.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 3  # one more than two cores: tests wait for processes of their own
VIDEOS ?=
export VIDEOS  # to the shell as it is: a folder's name may hold an apostrophe

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint types docs versions bench bench-full clean chromium

help:  ## list the targets
	@grep -hE '^[a-z -]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

# Two stamps: what running needs, and the tools of development beside it.
$(VENV)/.running: setup.cfg pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON): install Python 3.11 or later, or say which with \
	PYTHON=" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info < (3, 11) and sys.exit("reelbank needs Python 3.11 or later, and $(PYTHON) is \
	%s. With another one: make $(MAKECMDGOALS) PYTHON=python3.11" % sys.version.split()[0])'
	@$(PYTHON) docs/install.py $(VENV) .
	@touch $@

$(VENV)/.installed: $(VENV)/.running
	@$(PYTHON) docs/install.py $(VENV) '.[dev,docs]'
	@touch $@

venv: $(VENV)/.installed  ## make the virtual environment and install reelbank with its tools

demo: $(VENV)/.running  ## whole line on a rendered set, or on your own folder of classes: make demo VIDEOS=folder
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python docs/demo.py $(if $(VIDEOS),--videos "$$VIDEOS")

lint: venv  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv  ## mypy --strict
	mkdir -p build/types && ln -sfn ../.. build/types/reelbank
	$(BIN)/mypy -p reelbank.manifests -p reelbank.store -p reelbank.extract -p reelbank.heads -p reelbank.testing -m reelbank.cli

docs: venv  ## the docs site in build/docs; every warning is an error
	$(BIN)/python docs/generate.py build/reference
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --quiet -d build/doctrees docs build/docs

test: lint types docs chromium  ## lint, types, docs and the whole test suite
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

versions: venv  ## the line and the quick tests from the wheel, with the lowest versions and with newer Pythons
	$(BIN)/python tests/versions.py

chromium:  ## install headless Chromium for the page tests where apt can (skipped where it is there)
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { \
	  command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get -q update >/dev/null && \
	  apt-get -q -y install --no-install-recommends chromium >/dev/null; } || \
	  echo "no Chromium and no way to install it: page tests are skipped"

bench: venv  ## the benchmark suite, under 15 minutes
bench-full: venv  ## the same with nothing scaled down
bench bench-full:
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/run.py $(if $(filter bench-full,$@),--full)

clean:  ## remove the virtual environment and everything made
	rm -rf $(VENV) build demo .pytest_cache .mypy_cache .ruff_cache *.egg-info
