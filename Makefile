# Needs only Python (3.10 or newer) and make. The first target that needs .venv sets it up.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
# Streamlit, Gradio and Jupyter, for tests/screens: too large for every developer's environment.
SCREENS := $(VENV)/screens
# Agent frameworks, for tests/frameworks: as large.
FRAMEWORKS := $(VENV)/frameworks
# Sphinx, for `make docs`, which needs nothing else.
DOCS := $(VENV)/docs
RELEASE := $(VENV)/release

# If there is no Go on the PATH, use the one in the user's cache; it is installed there first.
WITH_GO := command -v go >/dev/null || PATH="$$(sh tools/install-go.sh):$$PATH";
# Tests that need only Python and no long waits. Tests of forks, kills and outages are in tests/stress.
FAST_TESTS := tests/unit tests/typing tests/terminal README.md docs
# What is checked for systems other than Linux: all but the command `run`, which needs POSIX.
ELSEWHERE := --follow-imports silent --exclude cli/run/ src/otel_progress
# More workers than cores, because many tests wait for real programs; tests/conftest.py says what runs in which order.
PARALLEL := -n 4
# Tests start Python about two thousand times: where this variable is set, each start would compile our code again.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-again test-stack test-screens test-frameworks check format hooks stack alert-demo bench cost incident docs coverage versions dashboards conventions api kubernetes lock dist clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(READY): requirements-dev.txt pyproject.toml
	@$(PYTHON) tools/environment.py $(VENV)
	@touch $@

$(SCREENS)/.ready: requirements-screens.txt | $(READY)
	@echo "setting up $(SCREENS); this happens once and takes about a minute"
	@$(VENV)/bin/uv venv --quiet --clear --python $(RUN) $(SCREENS)
	@$(VENV)/bin/uv pip install --quiet --python $(SCREENS)/bin/python -r requirements-screens.txt
	@$(VENV)/bin/uv pip install --quiet --python $(SCREENS)/bin/python --no-deps --editable .
	@touch $@

$(FRAMEWORKS)/.ready: requirements-frameworks.txt | $(READY)
	@echo "setting up $(FRAMEWORKS); this happens once and takes about a minute"
	@$(VENV)/bin/uv venv --quiet --clear --python $(RUN) $(FRAMEWORKS)
	@$(VENV)/bin/uv pip install --quiet --python $(FRAMEWORKS)/bin/python -r requirements-frameworks.txt
	@$(VENV)/bin/uv pip install --quiet --python $(FRAMEWORKS)/bin/python --no-deps --editable .
	@touch $@

$(DOCS)/.ready: requirements-docs.txt pyproject.toml
	@echo "setting up $(DOCS); this happens once and takes about half a minute"
	@$(PYTHON) -m venv --clear $(DOCS)
	@$(DOCS)/bin/python -m pip --quiet --disable-pip-version-check install -r requirements-docs.txt
	@$(DOCS)/bin/python -m pip --quiet --disable-pip-version-check install --constraint requirements-dev.txt --editable '.[all]'
	@touch $@

demo: $(READY)  ## run a monitor with its page, and jobs that work, wait, fail, hang, loop and are killed
	@$(RUN) examples/tour

test: $(READY)  ## run the tests that need nothing else installed; less than 5 minutes
	$(RUN) -m pytest $(PARALLEL) $(FAST_TESTS)

test-all: stack $(SCREENS)/.ready $(FRAMEWORKS)/.ready $(DOCS)/.ready  ## install what is missing (about 20 minutes the first time), then run all tests, as .ci/run does
	@$(WITH_GO) $(RUN) -m pytest $(PARALLEL)

test-again: $(READY)  ## rerun the tests that just failed, one by one, if they are at most twelve; passing tests are reported as flaky
	@$(WITH_GO) $(RUN) tools/again.py

test-stack: stack  ## run only the tests against the real Collector, Prometheus, Jaeger and VictoriaLogs
	@$(WITH_GO) $(RUN) -m pytest $(PARALLEL) tests/stack

test-screens: $(SCREENS)/.ready  ## run only the tests with real notebooks, Streamlit and Gradio
	@sh tools/install.sh chromium
	$(RUN) -m pytest tests/screens

test-frameworks: $(FRAMEWORKS)/.ready  ## run only the tests with real agent frameworks
	$(RUN) -m pytest $(PARALLEL) tests/frameworks

check: $(READY)  ## check lint, format, types, import layers and spelling
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m mypy --platform win32 --cache-dir .mypy_cache/win32 $(ELSEWHERE)
	$(RUN) -m mypy --platform darwin --cache-dir .mypy_cache/darwin $(ELSEWHERE)
	$(VENV)/bin/pyright
	$(VENV)/bin/lint-imports
	$(VENV)/bin/codespell

format: $(READY)  ## format the code and apply safe fixes
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

hooks: $(READY)  ## install the pre-commit hooks
	$(VENV)/bin/pre-commit install

stack: $(READY)  ## build or install the programs that tests need and that are missing (Collector, Prometheus, ...)
	sh tools/install.sh prometheus promtool prometheus-alertmanager amtool redis-server chromium zsh fish
	@$(WITH_GO) $(RUN) tests/stack/build.py

alert-demo: $(READY)  ## let a job hang until its alert arrives at a webhook; about a minute, longer the first time
	@sh tools/install.sh prometheus promtool prometheus-alertmanager amtool
	@$(WITH_GO) $(RUN) tests/stack/build.py otelcol
	@$(RUN) examples/alerting/demo.py "$$($(RUN) tests/stack/build.py otelcol | tail -n 1)"

bench: $(READY)  ## measure speed beside peers, and accuracy; writes docs/performance.md and docs/accuracy.md
	$(RUN) -m benchmarks
	$(RUN) -m benchmarks.eta
	$(RUN) -m benchmarks.verdicts

cost: $(READY)  ## count what operations send, beside peers, with an example bill; about 15 minutes; writes docs/cost.md
	$(RUN) -m benchmarks.cost

incident: $(READY)  ## play an incident on the programs that `make stack` installs; 15 minutes; writes docs/accuracy.md
	$(RUN) -m benchmarks.incident

docs: $(DOCS)/.ready  ## build the documentation as a site in build/site; a broken link, anchor or reference fails
	@$(DOCS)/bin/python -m tools.docs

coverage: $(READY)  ## list the lines and branches that no unit test reaches
	$(RUN) -m coverage run -m pytest tests/unit
	$(RUN) -m coverage report

versions: $(READY)  ## run the unit tests on every installed Python from 3.10 to 3.14
	@for v in 3.10 3.11 3.12 3.13 3.14; do \
	  python$$v -c pass 2>/dev/null || { echo "python$$v is not installed"; continue; }; \
	  echo "python$$v"; \
	  python$$v -m venv $(VENV)/py$$v && $(VENV)/bin/uv pip install --quiet --python $(VENV)/py$$v/bin/python -r requirements-dev.txt && \
	  $(VENV)/bin/uv pip install --quiet --python $(VENV)/py$$v/bin/python --no-deps --editable . && \
	  $(VENV)/py$$v/bin/python -m pytest -q tests/unit -n 2 || exit 1; \
	done

dashboards: $(READY)  ## generate grafana/dashboards
	$(RUN) -m grafana.generator

conventions: $(READY)  ## generate conventions/ from docs/semantic-conventions.md
	$(RUN) tools/conventions.py

api: $(READY)  ## list the public API in docs/public-api.txt
	$(RUN) tools/public_api.py

kubernetes: $(READY)  ## write Kubernetes manifests, with rules and dashboards, to build/kubernetes
	$(RUN) tools/kubernetes.py

lock: $(READY)  ## pin the newest versions of the packages for development and releases
	$(VENV)/bin/uv pip compile --quiet --upgrade pyproject.toml --extra all requirements-dev.in --universal --python-version 3.10 \
	  --no-emit-index-url --no-annotate --no-header --output-file requirements-dev.txt
	$(VENV)/bin/uv pip compile --quiet --upgrade pyproject.toml --extra notebook --extra streamlit --extra gradio requirements-screens.in \
	  --constraint requirements-dev.txt --universal --python-version 3.10 --no-emit-index-url --no-annotate --no-header --output-file requirements-screens.txt
	$(VENV)/bin/uv pip compile --quiet --upgrade pyproject.toml --extra all requirements-frameworks.in --universal --python-version 3.10 \
	  --no-emit-index-url --no-annotate --no-header --output-file requirements-frameworks.txt
	$(VENV)/bin/uv pip compile --quiet --upgrade requirements-docs.in --universal --python-version 3.10 \
	  --no-emit-index-url --no-annotate --no-header --output-file requirements-docs.txt
	$(VENV)/bin/uv pip compile --quiet --upgrade requirements-release.in --constraint requirements-dev.txt --universal --python-version 3.10 \
	  --no-emit-index-url --no-annotate --no-header --output-file requirements-release.txt

dist: $(READY)  ## build the distributions once, check and install them, and write their SBOM to build/sbom.cdx.json
	rm -rf dist build $(RELEASE) $(RELEASE)-check && mkdir -p build
	$(VENV)/bin/uv build --quiet --out-dir dist
	$(PYTHON) -m venv $(RELEASE) && $(VENV)/bin/uv pip install --quiet --python $(RELEASE)/bin/python -r requirements-release.txt
	$(RELEASE)/bin/twine check --strict dist/*
	$(PYTHON) -m venv --without-pip $(RELEASE)-check
	$(VENV)/bin/uv pip install --quiet --python $(RELEASE)-check/bin/python "$$(ls dist/*.whl)[all]"
	$(RELEASE)-check/bin/otel-progress --version
	$(RELEASE)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file build/sbom.cdx.json $(RELEASE)-check/bin/python

clean:  ## remove everything that these targets made here
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build otel-data .coverage
