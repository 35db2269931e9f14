# One command each; the set-up is repeated only when pyproject.toml changes.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
EXTRAS ?= test,demo,mpi

.PHONY: demo test nightly nightly-gpu lint gpu bench bench-smoke bench-pages clean
.NOTPARALLEL:

demo: $(VENV)/demo.done
	$(BIN)/python examples/ptychography.py $(ARGS)

test: $(VENV)/$(EXTRAS).done
	$(BIN)/python -m pytest -n auto $(ARGS)

nightly: $(VENV)/$(EXTRAS).done
	$(BIN)/python -m pytest -n auto --hypothesis-profile=nightly $(ARGS)
	$(BIN)/python tests/mutants cpu

# The same for CuPy, on a GPU or in a simulator, which GPU_RUN then is.
nightly-gpu: $(VENV)/$(EXTRAS).done
	$(GPU_RUN) $(BIN)/python -m pytest -n auto --hypothesis-profile=nightly -m gpu tests $(ARGS)
	GPUSIM_FUZZ=1 $(GPU_RUN) $(BIN)/python -m pytest -n auto -m gpu tests/backends/rmsprop_cupy $(ARGS)
	GPUSIM_DEFER=1 $(GPU_RUN) $(BIN)/python -m pytest -n auto -m gpu tests/backends/rmsprop_cupy $(ARGS)
	$(GPU_RUN) $(BIN)/python tests/mutants gpu

lint: $(VENV)/dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

# All that a machine with a GPU can tell, by an interpreter that has CuPy, or in an environment with that of its CUDA.
CUDA = $(or $(shell nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: \([0-9]*\).*/cuda\1/p'),cuda12)

gpu:
	@python=$(PYTHON); \
	$$python -c 'import cupy, hypothesis, matplotlib, numba, xdist; $(IS_NEW)' 2>/dev/null || { \
		$(MAKE) --no-print-directory $(VENV)/test,$(CUDA).done && python=$(BIN)/python; \
	} && PYTHONPATH=$(CURDIR):$(CURDIR)/backends:$$PYTHONPATH $$python asv_bench/gpu $(ARGS)

ASV = cd asv_bench && $(abspath $(BIN))/asv
RUN = run --python=same --show-stderr --launch-method=forkserver

bench: $(VENV)/bench.done
	$(ASV) machine --yes
	$(ASV) $(RUN) --set-commit-hash=$$(git rev-parse HEAD) -a rounds=1 $(ARGS)
	$(BIN)/python asv_bench/report.py

bench-smoke: $(VENV)/bench.done
	$(ASV) machine --yes
	RMSPROP_BENCH_SMOKE=1 && export RMSPROP_BENCH_SMOKE && $(ASV) $(RUN) --quick --dry-run $(ARGS)

bench-pages: $(VENV)/bench.done
	$(ASV) publish

# Asked before pip is, which tries all versions of all packages before it finds that none is for an old Python.
NEEDED = $(shell sed -n 's/^requires-python = ">=\(.*\)"/\1/p' pyproject.toml)
IS_NEW = import sys; sys.exit(sys.version_info < tuple(map(int, "$(NEEDED)".split("."))))
TOO_OLD = rmsprop needs Python $(NEEDED) or later, and $(PYTHON) is not: make $(MAKECMDGOALS) PYTHON=python$(NEEDED)

# Beside the environment, so that it outlives one that is made anew.
UNFINISHED = $(VENV).unfinished

# An environment in which a set-up was interrupted, or of another Python than is needed, is made anew.
$(VENV)/%.done: pyproject.toml
	@if test -e $(UNFINISHED) || ! $(BIN)/python -c 'import pip; $(IS_NEW)' 2>/dev/null; then \
		$(PYTHON) -c '$(IS_NEW)' || { echo '$(TOO_OLD)' >&2; exit 1; }; \
		echo "setting up $(VENV), which takes a minute or so"; \
		touch $(UNFINISHED); \
		$(PYTHON) -m venv $$(test ! -e $(VENV)/pyvenv.cfg || echo --clear) $(VENV); \
	fi
	@touch $(UNFINISHED)
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	@mv $(UNFINISHED) $@

clean:
	rm -rf $(VENV) $(UNFINISHED) demo_output
