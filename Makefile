# One command each; every target sets up the environment that it needs on first use.
PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?= -n auto --maxprocesses=4
DATABASE ?= sqlite
TESTS ?= tests

# With every database required, a documented line that no test reaches is a bug.
COVERAGE = --cov --cov-report=term $(if $(findstring mysql,$(REQUIRED_DATABASES)),--cov-fail-under=100)

.DEFAULT_GOAL := help
.PHONY: help demo test test-sa20 test-floor bench check format sync clean

help: ## list the commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: $(VENV)/.latest ## from nothing to a running data layer (DATABASE=sqlite, postgresql or a URL)
	@$(VENV)/bin/python scripts/demo.py --database '$(DATABASE)'

test: $(VENV)/.latest ## every documented pattern, on every database this machine can run
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS) $(COVERAGE) $(TESTS)

test-sa20: $(VENV)-sa20/.sa20 ## the suite on SQLAlchemy 2.0
	$(VENV)-sa20/bin/python -m pytest $(PYTEST_ARGS) --ignore=tests/scripts $(TESTS)

test-floor: $(VENV)-floor/.floor ## the suite on the oldest supported versions
	$(VENV)-floor/bin/python -m pytest $(PYTEST_ARGS) --ignore=tests/scripts $(TESTS)

bench: $(VENV)/.latest ## ServiceBase beside hand-written SQLAlchemy, as ratios within one run
	@$(VENV)/bin/python scripts/bench.py --json build/bench.json

check: $(VENV)/.latest ## all that needs no database: the bundle's own rules, style, types, format
	@$(VENV)/bin/python scripts/check.py --outside
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/ruff format --quiet --check .
	@$(VENV)/bin/mypy --no-error-summary
	@$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(VENV)/bin/zizmor --quiet --offline .github/workflows
	@echo "check: all agree"

format: $(VENV)/.latest ## format the code, mend what the linter can
	@$(VENV)/bin/ruff check --quiet --fix .
	@$(VENV)/bin/ruff format --quiet .

sync: $(VENV)/.latest ## write the code into the pages
	@$(VENV)/bin/python scripts/sync.py

clean: ## remove what the commands made
	rm -rf build $(VENV) $(VENV)-sa20 $(VENV)-floor .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis

# An environment is ready when its stamp is newer than its requirements.
define environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11: make PYTHON=python3.11 ..." >&2; exit 1; }
	@echo "setting up $(@D) from $< ..." >&2
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@
endef

$(VENV)/.latest: requirements/latest.txt requirements/test.txt requirements/quality.txt
	$(environment)
$(VENV)-sa20/.sa20: requirements/sa20.txt requirements/test.txt
	$(environment)
$(VENV)-floor/.floor: requirements/floor.txt requirements/test.txt
	$(environment)
