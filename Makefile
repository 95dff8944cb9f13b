# Every job of the project. `make book` and `make test` need nothing set up beforehand but
# Python 3.10 or newer; both create the environment in .venv the first time.
PYTHON ?= python3
VENV   ?= .venv
ifeq ($(OS),Windows_NT)
  BIN := $(VENV)/Scripts
else
  BIN := $(VENV)/bin
endif
READY := $(VENV)/.ready
PY    := $(BIN)/python
JOBS  ?= 2

.DEFAULT_GOAL := help
.PHONY: help env book test lint unit notebooks browser execute exercises models lab bench clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

env: $(READY)  ## create or refresh the environment in .venv

$(READY): pyproject.toml constraints.txt
	@echo "Creating the environment in $(VENV) (a few minutes the first time) ..."
	@$(PYTHON) tools/make_env.py $(VENV)
	@touch $(READY)

book: $(READY)  ## build the HTML book from the stored outputs and print where it lies
	@$(PY) tools/build_book.py

test: $(READY) lint unit notebooks browser  ## run every check and print a summary
	@$(PY) tools/summary.py

lab: $(READY)  ## open the chapters in JupyterLab
	$(BIN)/jupyter lab book/index.md

clean:  ## remove everything that can be made again (the environment too)
	rm -rf $(VENV) _build build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
