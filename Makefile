# Everything needs only Python (3.10 or newer) and make; the first target that needs them sets up .venv by itself.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready

# Where there is no Go, that of the user's cache is taken, and put there first.
WITH_GO := command -v go >/dev/null || PATH="$$(sh tools/install-go.sh):$$PATH";
# Tests that need no program but Python, and no long waits: those of forks, kills and outages are in tests/stress.
PLAIN := tests/unit tests/typing tests/terminal README.md docs

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-again test-stack check format stack alert-demo bench coverage versions dashboards lock clean

help:  ## what there is to do
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(READY): requirements-dev.txt pyproject.toml
	@$(PYTHON) tools/environment.py $(VENV)
	@touch $@

demo: $(READY)  ## a monitor and its page, and jobs that work, wait, fail, hang, loop and are killed; needs nothing else
	@$(RUN) examples/tour

test: $(READY)  ## the tests that need nothing built or installed; in less than 5 minutes
	$(RUN) -m pytest -n 2 --dist loadfile $(PLAIN)

test-all: stack  ## builds and installs what is missing (the first time about 20 minutes), then runs all tests, as .ci/run does
	@$(WITH_GO) $(RUN) -m pytest -n 2 --dist loadfile

test-again: $(READY)  ## the tests that failed last, where they are few, once more and alone
	@$(WITH_GO) $(RUN) tools/again.py

test-stack: stack  ## only the tests against the real Collector, Prometheus, Jaeger and VictoriaLogs
	@$(WITH_GO) $(RUN) -m pytest -n 2 --dist loadfile tests/stack

check: $(READY)  ## lint, format, types, layers
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/pyright
	$(VENV)/bin/lint-imports

format: $(READY)  ## put the code into its form
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

stack: $(READY)  ## build or install what the tests against real programs need (Collector, Prometheus, Jaeger, VictoriaLogs, ...), where missing
	sh tools/install.sh prometheus promtool prometheus-alertmanager amtool redis-server chromium
	@$(WITH_GO) $(RUN) tests/stack/build.py

alert-demo: $(READY)  ## a job hangs, and its alert arrives at a webhook; about a minute, the first time some more
	@sh tools/install.sh prometheus promtool prometheus-alertmanager amtool
	@$(WITH_GO) $(RUN) tests/stack/build.py otelcol
	@$(RUN) examples/alerting/demo.py "$$($(RUN) tests/stack/build.py otelcol | tail -n 1)"

bench: $(READY)  ## how fast, side by side with peers, and how right; writes docs/performance.md and docs/accuracy.md
	$(RUN) -m benchmarks
	$(RUN) -m benchmarks.verdicts

coverage: $(READY)  ## which lines and branches no test reaches
	$(RUN) -m coverage run -m pytest tests/unit
	$(RUN) -m coverage report

versions: $(READY)  ## the unit tests on each other Python that is installed
	@for v in 3.10 3.11 3.12 3.13 3.14; do \
	  python$$v -c pass 2>/dev/null || { echo "python$$v is not installed"; continue; }; \
	  echo "python$$v"; \
	  python$$v -m venv $(VENV)/py$$v && $(VENV)/bin/uv pip install --quiet --python $(VENV)/py$$v/bin/python -r requirements-dev.txt && \
	  $(VENV)/bin/uv pip install --quiet --python $(VENV)/py$$v/bin/python --no-deps --editable . && \
	  $(VENV)/py$$v/bin/python -m pytest -q tests/unit -n 2 || exit 1; \
	done

dashboards: $(READY)  ## write grafana/dashboards anew
	$(RUN) -m grafana.generator

lock: $(READY)  ## pin the newest versions of what development needs
	$(VENV)/bin/uv pip compile --quiet --upgrade pyproject.toml --all-extras requirements-dev.in --universal --python-version 3.10 \
	  --no-emit-index-url --no-annotate --no-header --output-file requirements-dev.txt

clean:  ## remove what was made here
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build otel-data .coverage
