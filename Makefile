# `make help` lists the targets. Each one first makes the virtual environment if it is not there.

SHELL := /bin/bash
# -p: bash itself obeys nothing that the environment says to it (BASH_ENV, functions, CDPATH).
.SHELLFLAGS := -pc

# Nor does make: MAKEFLAGS=n in the environment would let every target succeed and do nothing.
ifeq ($(MAKELEVEL),0)
obeyed := $(shell tr '\0' '\n' </proc/$$PPID/environ | \
    sed -nE 's/^(GNU)?MAKEFLAGS=//p; /^MAKEFILES=./p' | tr ' ' '\n' | \
    grep -vxE -e '-*[jlOswrR]*[0-9.]*|--(job[-a-z]*|load-average|output-sync|silent|(no-)?print-directory)(=.*)?')
ifneq ($(obeyed),)
$(error MAKEFLAGS, GNUMAKEFLAGS or MAKEFILES in the environment changes what make does \
    ($(obeyed)): unset it, and name options on the command line)
endif
endif

# Only what the command line says counts: clusters, for one, set WORK. A $ in a name is one.
variables := CORPUS VALID TEST WORK PROFILE SET DEVICE PROCESSES SCHEDULER WORKERS PYTHON REMOVE \
             MODELS
given = $(if $(findstring command line,$(origin $1)),$(value $1))
$(foreach name,$(variables),$(eval override $(name) := $$(call given,$(name))))
override WORK := $(or $(WORK),data/work)
# Also read by model/engine/compilation.py, for the compile cache of Theano.
export PIPELINE_WORK = $(WORK)
# Recipes read these from the environment, so that names with spaces and quotes stay whole.
export $(variables)
# With it every process would compile all modules anew, for seconds: they are kept compiled.
unexport PYTHONDONTWRITEBYTECODE

# The folder that .venv is a link to now: while a job runs the link may come to name another.
python := "$$(readlink -f .venv)/bin/python" -E
# exec: signals reach the job itself, and its exit status is the recipe's.
pipeline := exec $(python) -m pipeline
work = $(if $(SET),--set "$$SET") --work "$$WORK"
inputs = $(if $(CORPUS),--corpus "$$CORPUS") $(if $(VALID),--valid "$$VALID") \
         $(if $(TEST),--test "$$TEST") $(if $(PROFILE),--profile "$$PROFILE") $(work)
scheduler = $(if $(SCHEDULER),--scheduler "$$SCHEDULER")
luigi = $(if $(DEVICE),--device "$$DEVICE") $(if $(PROCESSES),--processes "$$PROCESSES") \
        $(scheduler) $(if $(WORKERS),--workers "$$WORKERS")
setup := ./setup.sh $(if $(PYTHON),--python "$$PYTHON")
# A device other than the processor needs PyTorch, and several processes need MPI: by a variable of
# their own, by SET, or else by luigi.cfg.
set_to = $(or $(patsubst run.$1=%,%,$(filter run.$1=%,$(SET))),$(shell sed -nE '/^\[run\]/,/^\[[^r]/s/^$1 *= *//p' luigi.cfg 2>/dev/null))
torch = $(if $(filter-out cpu,$(or $(DEVICE),$(call set_to,device))),torch)
mpi = $(if $(filter-out 1,$(or $(PROCESSES),$(call set_to,processes))),mpi)

.DEFAULT_GOAL := help
.PHONY: help setup environment run worker why plan settings history status report gc daemon stop \
        bench test test-extras test-all test-card check lock clean
MAKEFLAGS += --no-print-directory

help: ## List the targets and the variables
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@awk -F '^#: ' '/^#: / { print $$2 }' $(MAKEFILE_LIST)

#: 
#: Variables, as in: make run CORPUS=train.txt WORK=/data/news
#:   CORPUS     sentences to train on: file, folder or glob (default: the King James text)
#:   VALID TEST sentences to validate and test with (default: 1 % of the corpus each)
#:   WORK       folder for everything the job makes (default: data/work)
#:   PROFILE    named settings of the network and its training, or the path of a file of them
#:   SET        single settings: "training.rate=0.002 network.num_units=512"
#:   DEVICE     cpu, cuda or cuda:N for a graphics card (installs PyTorch), or torch-cpu
#:   PROCESSES  that train the network together, by MPI (installs it)
#:   SCHEDULER  daemon, local, or the address of a luigid that hosts share: docs/clusters.md
#:   WORKERS    processes side by side
#:   PYTHON     Python 3.10, 3.11 or 3.12 (default: that of .venv, or the newest on the PATH)
#:   REMOVE     yes: gc removes        MODELS   these models too, by name, or all
#: They are read from the command line only, not from the environment.

setup: ## Make or update the virtual environment .venv
	@$(setup) $(torch) $(mpi)

# What only looks, or only ends something, installs nothing.
environment:
	@[[ -x .venv/bin/python ]] || { echo "There is no environment yet: make setup" >&2; exit 1; }

run: setup ## Run the whole job, from the text to the report; only what has changed is done again
	@$(pipeline) run $(inputs) $(luigi)

worker: setup ## Help the runs in a working folder that hosts share, until it is ended
	@$(pipeline) worker $(work) $(scheduler) $(if $(WORKERS),--workers "$$WORKERS")

why: environment ## Say what a run would do again, and why, without doing it
	@$(pipeline) why $(inputs)

plan: setup ## Say what a run would take: sentences, time, memory, disk; measures for some seconds
	@$(pipeline) plan $(inputs) $(luigi)

settings: environment ## Show every setting, its value, where it comes from, and its reason
	@$(pipeline) settings $(inputs) $(luigi)

history: environment ## Show a table of all runs so far
	@$(pipeline) history $(work)

status: environment ## Show what each task is doing
	@$(pipeline) status $(work) $(scheduler)

report: setup ## Make the report again
	@$(pipeline) report $(inputs)

gc: environment ## List what nothing refers to any more, and the models not in use; REMOVE=yes removes
	@$(pipeline) gc $(inputs) $(if $(filter yes,$(REMOVE)),--remove) $(if $(MODELS),--models $$MODELS)

daemon: setup ## Start the Luigi daemon, on the loopback address
	@$(pipeline) daemon $(work) $(scheduler)

stop: environment ## Stop the Luigi daemon
	@$(pipeline) stop $(work) $(scheduler)

bench: ## Compare the speed of training with PyTorch's (installs PyTorch and MPI)
	@$(setup) torch mpi
	@exec $(python) -m benchmarks $(if $(CORPUS),--corpus "$$CORPUS")

# The tests keep their own compile cache, so that they depend on nothing that a job has left.
test test-extras test-card check: export PIPELINE_WORK = data/test-work

# Two files of tests at a time, for most tests use one core; the long ones not last.
pytest := $(python) -m pytest -n 2 --dist loadfile --no-loadscope-reorder
without_extras := -m "not extras and not card"

test: setup ## Run the tests
	@exec $(pytest) $(without_extras)

# The networks of the tests are tiny: threads would only wait for each other.
test-extras test-card: export OMP_NUM_THREADS = 1

test-extras: ## Run the tests of what needs an extra (installs PyTorch, MPI and onnxruntime)
	@$(setup) torch triton mpi export
	@exec $(pytest) -m "extras and not card"

# In copies, so that this checkout's environment stays: each makes one of its own, the first time.
test-all: ## Run the tests on each of Python 3.10, 3.11 and 3.12 that is found
	@result=; failed=; \
	for version in 3.10 3.11 3.12; do \
	    python=; \
	    for each in python$$version ~/.pyenv/versions/$$version.*/bin/python \
	            ~/.local/share/uv/python/cpython-$$version.*/bin/python; do \
	        if [[ $$("$$each" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>&1) \
	                == $$version ]]; then python=$$each; break; fi; \
	    done; \
	    if [[ ! $$python ]]; then result+="Python $$version: not found"$$'\n'; continue; fi; \
	    copy=data/test-all/$$version; \
	    mkdir -p $$copy && find $$copy -mindepth 1 -maxdepth 1 \
	        ! -name '.venv*' ! -name data -exec rm -rf {} + && \
	    tar --exclude=./data/?* --exclude='./.venv*' --exclude=./.git --exclude=__pycache__ \
	        -cf - . | tar -xf - -C $$copy && $(MAKE) -C $$copy test PYTHON=$$python \
	        && result+="Python $$version: passed"$$'\n' \
	        || { result+="Python $$version: FAILED"$$'\n'; failed=yes; }; \
	done; \
	printf %s "$$result"; [[ ! $$failed && $$result == *passed* ]]

# Where a card is, there may be another Python, with packages of its own: PYTHON names it.
test-card: ## Run the tests that need a graphics card, with PYTHON or that of .venv
	@exec $(if $(PYTHON),"$$PYTHON",$(python)) -m pytest -m card tests/model/engine/on_torch \
	    $(addprefix tests/model/test_,devices.py network.py training.py updater.py)

check: setup ## Run the linter, the type checker and the tests
	@$(python) -m ruff check .
	@$(python) -m mypy
	@exec $(pytest) $(without_extras)

lock: ## Write constraints/: exact versions, what is there stays (remove a file for the newest)
	@$(setup) lock
	@for version in 3.10 3.11 3.12; do \
	    .venv/bin/uv pip compile --quiet --python-version $$version \
	        --python-platform x86_64-manylinux_2_28 --all-extras --no-annotate \
	        --custom-compile-command 'make lock' --output-file constraints/python$$version.txt \
	        pyproject.toml || exit; \
	done

clean: ## Remove the environment and all caches; results stay
	@./setup.sh --remove
	@rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis data/test-work
	@find . -path ./data -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
	@if [[ -e $$WORK ]]; then echo "Kept: $$WORK (corpora, models, reports). To remove it: rm -r '$$WORK'"; fi
