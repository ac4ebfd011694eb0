# The commands of this repository. `make` alone lists them.
PYTHON := .venv/bin/python
PIP := $(PYTHON) -m pip install --quiet --no-input --disable-pip-version-check
MAKEFLAGS += --no-print-directory
# where the environment says that nothing compiled is kept, each of a thousand processes would compile mqkit anew
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help venv demo brokers brokers-down test test-all provision lint format bench clean

help:
	@echo "mqkit: write a messaging service once, run it on RabbitMQ, Kafka, SQLite or memory."
	@echo
	@echo "  make demo            see it work: a small shop, on SQLite, with no server (about a minute, the first time)"
	@echo "  make brokers         start a real RabbitMQ and a real Kafka in containers, and print their URLs"
	@echo "  make demo URL='...'  the same shop on one of them: the code does not change"
	@echo "  make brokers-down    remove them"
	@echo
	@echo "  make venv            .venv with mqkit and all that its developers use (Python 3.11 or newer)"
	@echo "  make test            lint, then all tests, with brokers of their own; what CI runs"
	@echo "  make test-all        the same, and in full what it runs in a short form"
	@echo "  make lint            ruff, mypy and pyright only"
	@echo "  make format          let ruff put the code in order"
	@echo "  make bench           measure mqkit against its peers, on brokers of its own (half an hour), and write the tables"
	@echo "  make bench ARGS='--only kafka/publish --rounds 1'    a part of that; ARGS=--help lists what can be chosen"
	@echo "  make clean           remove what these commands made here (images and the Docker engine stay)"
	@echo
	@echo "One test:  .venv/bin/pytest tests/unit -k name     Brokers of yours:  MQKIT_TEST_AMQP_URL, MQKIT_TEST_KAFKA_URL"

venv: .venv/.development

# one environment in two steps: the demo is spared the second
.venv/.runtime: pyproject.toml
	@python=; for each in python3.13 python3.12 python3.11 python3 python; do \
	  if $$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$each; break; fi; done; \
	if [ -z "$$python" ]; then echo "mqkit needs Python 3.11 or newer, and there is none on the PATH: install python3" >&2; exit 1; fi; \
	if [ ! -x $(PYTHON) ]; then \
	  echo "making .venv with $$python"; \
	  $$python -m venv .venv || { echo "no virtual environment could be made: on Debian, apt-get install python3-venv" >&2; exit 1; }; fi
	@echo "installing mqkit into .venv"
	@$(PIP) --upgrade 'pip>=25.1'  # the first that reads dependency groups
	@$(PIP) --editable '.[all]'
	@touch $@

.venv/.development: .venv/.runtime
	@echo "installing what tests and linters need into .venv"
	@$(PIP) --group dev
	@touch $@

.venv/.bench: .venv/.development
	@echo "installing the peers into .venv"
	@$(PIP) --group bench
	@touch $@

demo: .venv/.runtime
	@$(PYTHON) -m examples.shop.demo $(if $(URL),--url "$(URL)")

brokers: .venv/.development
	@$(PYTHON) testcontainers/broker_command.py up

brokers-down: .venv/.development
	@$(PYTHON) testcontainers/broker_command.py down

# before the tests, so that no test is timed for it; where it cannot be done, they say what they miss (in CI: fail)
provision:
	@testcontainers/provision.sh >/dev/null || true

lint: .venv/.development
	@.venv/bin/ruff check --quiet
	@.venv/bin/ruff format --check --quiet
	@.venv/bin/mypy --no-error-summary
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 .venv/bin/pyright
	@echo "lint: ruff, mypy and pyright have nothing to say"

# Most tests wait for brokers, so several processes run them at once; they share brokers, but for tests that stop them.
# The run also holds the README's table of promises to what passed. pytest comes last: its closing line is the result.
test: .venv/.development lint provision
	@$(PYTHON) -m pytest --numprocesses 4 --dist loadgroup --no-loadscope-reorder --promises-table README.md $(ARGS)

# also in full what `test` runs in a short form: see SHORT in tests/conftest.py, and the backend of a plugin
test-all:
	@$(MAKE) test ARGS=--all

format: .venv/.development
	@.venv/bin/ruff check --fix --quiet || true
	@.venv/bin/ruff format

# the tables are written when everything was measured, not when ARGS choose a part
bench: .venv/.bench provision
	@$(PYTHON) -m tests.bench.run $(ARGS)

clean:
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
