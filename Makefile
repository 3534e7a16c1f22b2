# Everything a contributor, a newcomer or CI runs. Needs make and Python 3.11; the rest is
# installed into .venv by the first target that wants it, and again when what it is made from
# has changed.

BIN := .venv/bin
INSTALLED := .venv/.installed
DATA ?= raysaga-data
PYTEST_OPTIONS ?= --numprocesses 2

# Where Python is told to keep no translations, each of an engine's processes would translate
# all sources anew at its start; the tests start hundreds of them.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test check format types imports lint tidy bench brokers faults compiled promtool serve docs clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## run the sample orders; state is kept in raysaga-data (DATA=...)
	$(BIN)/raysaga run api/sample/orders.jsonl --stock api/sample/stock.json --services lively --data $(DATA)

# PYTEST_OPTIONS= runs them one after the other, in half as much time again (decision 0029).
test: check brokers faults promtool serve ## all checks, then all tests: what CI runs
	$(BIN)/pytest --ignore=tests/architecture $(PYTEST_OPTIONS)

check: lint types imports tidy ## layout, lint, types, import rules, house rules: before each commit

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(INSTALLED) ## lay the code out, and mend what can be mended without thought
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(INSTALLED) ## mypy, strict
	$(BIN)/mypy -p raysaga

imports: $(INSTALLED) ## who may import whom (setup.cfg, [importlinter])
	$(BIN)/lint-imports --no-cache

tidy: $(INSTALLED) ## the rules of the house (tests/architecture)
	$(BIN)/pytest -q tests/architecture

brokers: ## install the message brokers that the tests start, where that needs nobody's leave
	@tests/actors/brokers/install.sh

faults: ## install what chaos breaks things with, where that needs nobody's leave
	@tests/chaos/install.sh

compiled: $(INSTALLED) ## compile, and hold what is compiled to the same histories; takes ten minutes
	$(BIN)/pytest -m compiled tests/simulation/test_histories.py $(PYTEST_OPTIONS)

promtool: ## fetch the tool that reads metrics and alert rules as Prometheus does
	@tests/api/http/install.sh

serve: $(INSTALLED) ## make the environment in which the tests run Ray Serve
	@tests/cluster/install_serve.sh

docs: $(INSTALLED) ## build the documentation into build/site; a broken link or name fails
	$(BIN)/python docs/site/build.py build

bench: $(INSTALLED) ## measure, and add a line to bench/results
	$(BIN)/raysaga bench --results bench/results/$$(date -u +%F).jsonl

clean: ## remove build output and caches; keeps .venv and all data
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

# An environment is only made where there is none: one that somebody made by hand is kept.
$(BIN)/python:
	@for python in "$(PYTHON)" python3.11 python3; do \
	  if "$$python" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	  then exec "$$python" -m venv .venv; fi; \
	done; \
	echo 'raysaga needs Python 3.11 or newer with its venv module, and found none.' >&2; \
	echo 'On Debian and Ubuntu: apt-get install python3.11 python3.11-venv' >&2; \
	echo 'Elsewhere: install Python 3.11, or name it: make PYTHON=/path/to/python3.11' >&2; \
	exit 1

# pip and setuptools first, at their pins; then without isolation, so that nothing but the
# pinned setuptools builds the package.
$(INSTALLED): setup.cfg pyproject.toml constraints.txt | $(BIN)/python
	@echo 'Installing into .venv; the first time, this takes a minute or two.'
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt pip setuptools
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint constraints.txt \
	  --no-build-isolation --editable '.[orders,test,diagrams,http,brokers,tracing,bench,docs]'
	@touch $@
