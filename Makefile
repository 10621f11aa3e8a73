# `make help` lists the targets. Each one first makes the virtual environment if it is not there.

SHELL := /bin/bash

WORK ?= data/work
# Also read by model/engine.py, for the compile cache of Theano.
export PIPELINE_WORK = $(WORK)
# Recipes read these from the environment, so that names with spaces and quotes stay whole.
export CORPUS VALID TEST WORK PROFILE SCHEDULER WORKERS PYTHON MODELS
# With it every process would compile all modules anew, for seconds: they are kept compiled.
unexport PYTHONDONTWRITEBYTECODE

venv_python := .venv/bin/python
# exec: signals reach the job itself, and its exit status is the recipe's.
pipeline := exec $(venv_python) -m pipeline
inputs = $(if $(CORPUS),--corpus "$$CORPUS") $(if $(VALID),--valid "$$VALID") \
         $(if $(TEST),--test "$$TEST") $(if $(PROFILE),--profile "$$PROFILE") --work "$$WORK"
luigi = $(if $(SCHEDULER),--scheduler "$$SCHEDULER") $(if $(WORKERS),--workers "$$WORKERS")

.DEFAULT_GOAL := help
.PHONY: help setup run why status report gc daemon stop bench test check clean
MAKEFLAGS += --no-print-directory

help: ## List the targets and the variables
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@awk -F '^#: ' '/^#: / { print $$2 }' $(MAKEFILE_LIST)

#: 
#: Variables, as in: make run CORPUS=train.txt WORK=/data/news
#:   CORPUS     sentences to train on: file, folder or glob (default: the King James text)
#:   VALID TEST sentences to validate and test with (default: 1 % of the corpus each)
#:   WORK       folder for everything the job makes (default: data/work)
#:   PROFILE    named settings of the network and its training
#:   SCHEDULER  daemon or local       WORKERS  processes side by side
#:   REMOVE     yes: gc removes        MODELS   these models too, by name, or all
#:   PYTHON     Python 3.10, 3.11 or 3.12 (default: the newest of these on the PATH)

setup: ## Make or update the virtual environment .venv
	@./setup.sh

run: setup ## Run the whole job, from the text to the report; only what has changed is done again
	@$(pipeline) run $(inputs) $(luigi)

why: setup ## Say what a run would do again, and why, without doing it
	@$(pipeline) why $(inputs)

status: setup ## Show what each task is doing
	@$(pipeline) status --work "$$WORK"

report: setup ## Make the report again
	@$(pipeline) report $(inputs)

gc: setup ## List what nothing refers to any more, and the models not in use; REMOVE=yes removes
	@$(pipeline) gc $(inputs) $(if $(filter yes,$(REMOVE)),--remove) $(if $(MODELS),--models $$MODELS)

daemon: setup ## Start the Luigi daemon, on the loopback address
	@$(pipeline) daemon --work "$$WORK"

stop: setup ## Stop the Luigi daemon
	@$(pipeline) stop --work "$$WORK"

bench: ## Compare the speed of training with PyTorch's (installs PyTorch)
	@./setup.sh bench
	@exec $(venv_python) -m benchmarks

# The tests keep their own compile cache, so that they depend on nothing that a job has left.
test check: export PIPELINE_WORK = data/test-work

# Two files of tests at a time, for most tests use one core; the long ones not last.
pytest := $(venv_python) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: setup ## Run the tests
	@exec $(pytest)

check: setup ## Run the linter, the type checker and the tests
	@$(venv_python) -m ruff check .
	@$(venv_python) -m mypy
	@exec $(pytest)

clean: ## Remove the environment and all caches; results stay
	@rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis data/test-work
	@find . -path ./data -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
	@if [[ -e $$WORK ]]; then echo "Kept: $$WORK (corpora, models, reports). To remove it: rm -r '$$WORK'"; fi
