# install, demo, test, bench: the four verbs. Everything runs in .venv; nothing else is touched.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed
export HF_HUB_OFFLINE = 1
export MLFLOW_DISABLE_TELEMETRY = true
export DO_NOT_TRACK = true
# Installed without bytecode, of which compiling all takes a minute: what is imported is kept then.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install base base-if-possible demo docs test lint bench clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -e ".[base,dev,lm-eval]" -c constraints.txt
	touch $(STAMP)

# The base model of the repository's own catalog: downloaded once, converted here, digest checked.
base: $(STAMP)
	$(BIN)/python scripts/make_base.py

demo: base
	$(BIN)/registry sync
	$(BIN)/registry status
	@echo
	@echo "The subtraction against its weight (the curves are in MLflow too: .venv/bin/registry ui):"
	$(BIN)/registry tune polite-notes

# The documentation as a site, in site/.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# With the base model where it can be had; the tests that need it skip without. Checks and download
# side by side, and three tests at once on two cores: many wait for a server, a browser or the disk.
test: $(STAMP)
	$(MAKE) --jobs=2 --output-sync lint base-if-possible
	$(BIN)/registry validate
	$(BIN)/pytest --numprocesses 3 --dist worksteal

base-if-possible: $(STAMP)
	-$(BIN)/python scripts/make_base.py

# About an hour at 1.1B on two cores, and 25 GB of disk; BENCH=--quick takes minutes,
# BENCH=--write-docs makes the figures and plots of docs/benchmarks.md anew.
bench: base
	$(BIN)/python -m benchmarks $(BENCH)

clean:
	rm -rf .venv .bench site .registry .mypy_cache .ruff_cache .pytest_cache
