# Two commands matter: `make run` and `make test`. `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
PY := $(BIN)/python
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header
# -qq: errors only. What pip says besides is about the machine, not about us.
PIP := $(PY) -m pip install -qq --disable-pip-version-check --require-hashes

# An environment that was made by half, or whose Python is gone, is made anew.
$(shell test -x $(PY) -a -x $(BIN)/pip || rm -rf .venv)

.PHONY: help run install compile test interop check format lint arch types migrations lock bench fuzz soak clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*## */\t/' | expand -t 14

run: install  ## install what is needed, start everything, print where to go
	@exec $(PY) manage.py up --with-parent

install: .venv/.run  ## install what `make run` needs, into .venv

compile: .venv/.compile  ## make machine code of the relay's hot half: for production; wants a C compiler
	@$(PY) -m deploy.compile

test: .venv/.dev  ## install what the tests need and run them all
	@sh tests/install-programs
	$(PY) -m pytest -n 2 --dist loadgroup
	@# Once more with the relay compiled: the same has to hold.
	$(PY) -m pytest -n 2 --dist loadgroup -p tests.compiled tests/relay

interop: .venv/.dev  ## of these, the ones with other people's clients: coturn, libwebrtc, Chromium, aiortc
	@sh tests/install-programs
	$(PY) -m pytest -n 2 --dist loadgroup tests/relay/interop

check: .venv/.dev lint arch types migrations  ## format, lint, import contracts, types, migrations

format: .venv/.dev  ## put the code into its form
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix-only .

lint: .venv/.dev
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(BIN)/hadolint Dockerfile

arch: .venv/.dev
	$(BIN)/lint-imports --no-logo

types: .venv/.dev
	$(PY) -m mypy .

migrations: .venv/.dev
	@# It warns where no database runs, and needs none.
	$(PY) -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run --settings tests.static_settings

bench: .venv/.dev  ## the relay and coturn side by side, as ratios; how long the service takes to start
	@sh tests/install-programs
	-@$(PY) -m deploy.compile
	$(PY) -m tests.bench
	$(PY) -m tests.bench.start

fuzz: .venv/.dev  ## five million damaged messages through the core; CASES=n for more
	$(PY) -m tests.relay.fuzz $(CASES)

soak: .venv/.dev  ## a day's worth of calls against one relay, half an hour; SOAK=n for n hours' worth
	@sh tests/install-programs
	SOAK=$(or $(SOAK),24) $(PY) -m pytest tests/relay/endurance -rP

lock: .venv/.dev  ## pin every package anew, with hashes and without any registry's address
	$(LOCK) pyproject.toml --upgrade -o requirements/run.txt
	$(LOCK) pyproject.toml --group dev --upgrade -o requirements/dev.txt
	$(LOCK) --group compile --constraint requirements/dev.txt -o requirements/compile.txt

clean:  ## remove the environment and the local data
	test ! -L .mindmore/postgresql || rm -rf "$$(readlink -f .mindmore/postgresql)"
	rm -rf .venv .mindmore build

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Mindmore needs Python 3.11 or newer; name one: make run PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
		echo "could not make .venv: install your system's venv package (Debian, Ubuntu: apt install python3-venv)"; exit 1; }

.venv/.run: requirements/run.txt | .venv/bin/python
	@echo "installing into .venv"
	@$(PIP) -r requirements/run.txt
	@touch $@

.venv/.compile: requirements/run.txt requirements/compile.txt | .venv/bin/python
	@echo "installing into .venv, with what compiles"
	@$(PIP) -r requirements/run.txt -r requirements/compile.txt
	@touch .venv/.run $@

.venv/.dev: requirements/dev.txt | .venv/bin/python
	@echo "installing into .venv, with what tests and checks need"
	@$(PIP) -r requirements/dev.txt
	@touch .venv/.run .venv/.compile $@
