# One command each; the set-up is repeated only when pyproject.toml changes.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
EXTRAS ?= test,demo,mpi

.PHONY: demo test nightly lint bench bench-smoke bench-pages clean

demo: $(VENV)/demo.done
	$(BIN)/python examples/ptychography.py $(ARGS)

test: $(VENV)/$(EXTRAS).done
	$(BIN)/python -m pytest -n auto $(ARGS)

nightly: $(VENV)/$(EXTRAS).done
	$(BIN)/python -m pytest -n auto --hypothesis-profile=nightly $(ARGS)
	$(BIN)/python tests/mutants cpu

lint: $(VENV)/dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

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

$(VENV)/%.done: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	touch $@

clean:
	rm -rf $(VENV) demo_output
