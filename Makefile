# One command each; every target sets up the environment that it needs on first use.
PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?= -n auto --maxprocesses=4
export DATABASE ?= sqlite
TESTS ?= tests

# With all tests and every database, a documented line that no test reaches is a bug.
COVERAGE = $(if $(filter-out tests,$(TESTS)),,--cov --cov-report=term \
	$(if $(findstring mysql,$(REQUIRED_DATABASES)),--cov-fail-under=100))

.DEFAULT_GOAL := help
.PHONY: help demo test test-sa20 test-floor bench verify record check format sync clean

help: ## list the commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: $(VENV)/.stamp ## from nothing to a running data layer (DATABASE=sqlite, postgresql or a URL)
	@$(VENV)/bin/python scripts/demo.py

test: $(VENV)/.stamp ## every documented pattern, on every database this machine can run
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS) $(COVERAGE) --junitxml=build/junit-latest.xml $(TESTS)

test-sa20: $(VENV)-sa20/.stamp ## the suite on SQLAlchemy 2.0
	$(VENV)-sa20/bin/python -m pytest $(PYTEST_ARGS) --junitxml=build/junit-sa20.xml \
		--ignore=tests/scripts --ignore=tests/install --ignore=tests/evals $(TESTS)

test-floor: $(VENV)-floor/.stamp ## the suite on the oldest supported versions
	$(VENV)-floor/bin/python -m pytest $(PYTEST_ARGS) --junitxml=build/junit-floor.xml \
		--ignore=tests/scripts --ignore=tests/install --ignore=tests/evals $(TESTS)

bench: $(VENV)/.stamp ## ServiceBase beside hand-written SQLAlchemy, as ratios within one run
	@$(VENV)/bin/python scripts/bench.py --json build/bench.json

# Written before `make`, DATABASE and DATABASE_URL are in no list of processes.
VERSIONS ?= latest
verify: $(VENV)/.stamp $(patsubst %,$(VENV)-%/.stamp,$(filter sa20 floor,$(VERSIONS))) ## your server (DATABASE_URL) or VERSIONS=latest-available: what holds there
	@$(VENV)/bin/python scripts/verify.py --versions '$(VERSIONS)'

record: ## write what the last full runs of the three suites passed into README.md
	@$(VENV)/bin/python scripts/verify.py --readme --report build/junit-latest.xml \
		build/junit-sa20.xml build/junit-floor.xml

check: $(VENV)/.stamp ## all that needs no database: the bundle's own rules, style, types, format
	@$(VENV)/bin/python scripts/check.py --outside
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/ruff format --quiet --check .
	@$(VENV)/bin/mypy --no-error-summary
	@$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	@$(VENV)/bin/zizmor --quiet --offline .github
	@echo "check: all agree"

format: $(VENV)/.stamp ## format the code, mend what the linter can
	@$(VENV)/bin/ruff check --quiet --fix .
	@$(VENV)/bin/ruff format --quiet .

sync: $(VENV)/.stamp ## write the code into the pages
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

$(VENV)/.stamp: requirements/latest.txt requirements/test.txt requirements/quality.txt
	$(environment)
$(VENV)-%/.stamp: requirements/%.txt requirements/test.txt
	$(environment)
