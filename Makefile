# Pagemill's set-up and checks. Everything is installed into .venv; the stamp files in it make the second time quick.

VENV := .venv
BIN := $(VENV)/bin
BASE := $(VENV)/.installed-base
DEV := $(VENV)/.installed-dev
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# The first interpreter that constraints.txt is made for; another one can be given: make demo PYTHON=/path/to/python3.11
SUPPORTED := import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do "$$p" -c '$(SUPPORTED)' 2>/dev/null && echo "$$p" && break; done)

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint format constraints clean

help: ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(BASE) ## Set up, transcribe the sample scans, say where the results are
	@$(BIN)/pagemill transcribe samples --output demo-output \
	    --format txt,jsonl,alto,pdf,overlay --on-change restart
	@echo
	@echo "The beginning of demo-output/txt/typed-letter-en-1938.txt:"
	@echo
	@sed -n '1,12s/^/    /p' demo-output/txt/typed-letter-en-1938.txt
	@echo
	@echo "Compared with the true texts (pagemill evaluate --truth samples --predicted demo-output/txt):"
	@echo
	@$(BIN)/pagemill evaluate --truth samples --predicted demo-output/txt
	@echo
	@echo "Text            demo-output/txt/        one file a document"
	@echo "Pictures        demo-output/overlay/    the pages with their lines and text drawn in"
	@echo "Data            demo-output/jsonl/      lines and words with boxes and confidences"
	@echo "Searchable PDF  demo-output/pdf/        the pages with their text laid under them"
	@echo "ALTO            demo-output/alto/"
	@echo "The books       $(BIN)/pagemill status demo-output"
	@echo
	@echo "Your own scans: $(BIN)/pagemill transcribe FOLDER --output RESULTS"

test: lint ## Set up, check format, lint and types, run the tests
	@$(BIN)/python -m pytest --quiet

test-slow: $(DEV) ## The tests that take minutes: training and export from scans to a bundle
	@$(BIN)/python -m pytest --quiet -m slow

lint: $(DEV) ## Check format, lint and types
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary

format: $(DEV) ## Put the code in order
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

constraints: ## Resolve all dependencies anew and write constraints.txt
	@rm -rf build/constraints
	@mkdir -p build
	@$(PYTHON) -m venv build/constraints
	@build/constraints/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip setuptools
	@build/constraints/bin/python -m pip install --quiet --editable '.[dev,gcp,ingest,jax]'
	@{ echo "# Every version that Pagemill is tested with, made by 'make constraints' (Python 3.11; 3.12 takes the same)."; \
	   build/constraints/bin/python -m pip freeze --all --exclude-editable --exclude pip; } > constraints.txt
	@rm -rf build/constraints
	@echo "constraints.txt: $$(grep -c == constraints.txt) versions"

clean: ## Remove the environment and everything that was made
	rm -rf $(VENV) build dist demo-output pagemill.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
	    echo "Pagemill needs Python 3.11 or 3.12, and none was found. On Debian 12: apt-get install python3 python3-venv" >&2; \
	    echo "Or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) cannot make virtual environments. On Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(BASE): pyproject.toml setup.py constraints.txt | $(BIN)/python
	@echo "Installing Pagemill into $(VENV) (a few minutes the first time: TensorFlow alone is about 600 MB) ..."
	@$(PIP_INSTALL) --editable .
	@touch $@

$(DEV): pyproject.toml setup.py constraints.txt | $(BIN)/python
	@echo "Installing Pagemill and its development tools into $(VENV) (a few minutes the first time) ..."
	@$(PIP_INSTALL) --editable '.[dev,gcp,ingest,jax]'
	@touch $(BASE) $@
