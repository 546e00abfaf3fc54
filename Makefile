# Set-up is done once: it is remembered by a stamp that follows pyproject.toml, constraints.txt and the real model's hash.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export TOKENIZERS_PARALLELISM := false

.PHONY: install demo test lines numeric older lint bench cost shape generate online differential decisions bf16 clients soak docs study coverage fuzz clean

install: $(STAMP)

REAL := tests/real/requirements.txt

$(STAMP): pyproject.toml constraints.txt $(REAL)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip>=24"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[all,dev]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement $(REAL)
	touch $(STAMP)

# The main job: base model, SFT, reward model, DPO, exam, report, decision, on the embedded world. Interrupted it goes on, finished it shows
# its table again; AGAIN=--overwrite throws it away and begins anew.
AGAIN ?= --resume
demo: $(STAMP)
	$(BIN)/truing run recipes/quickstart.yaml $(AGAIN)

# Version 4 of transformers, by which the tests read what is exported; it uses the environment's own torch.
OLDER := .clients/transformers4/.installed
older: $(OLDER)

$(OLDER): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .clients/transformers4 \
		transformers==4.57.6 tokenizers==0.22.2 huggingface-hub==0.36.2
	touch $(OLDER)

# One process a core, of one thread (TRUING_TEST_THREADS); a file's tests stay together.
WORKERS ?= 2
test: $(STAMP) $(OLDER) lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --doctest-modules src tests
	$(BIN)/python tests/numeric.py --workers $(WORKERS) $(SETTINGS)

# Which lines of the source no test runs; counting them takes a quarter of the time again, so it is no part of `test`.
lines: $(STAMP) $(OLDER)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --cov --cov-report=term-missing:skip-covered --doctest-modules src tests

# What is compared tightly, once more: under the instruction set below the processor's own and with another number of threads.
SETTINGS ?= lower:2
numeric: $(STAMP)
	$(BIN)/python tests/numeric.py --workers $(WORKERS) $(SETTINGS)

lint: $(STAMP)
	$(BIN)/ruff check src tests benchmarks docs studies
	$(BIN)/ruff format --check src tests benchmarks docs studies
	$(BIN)/mypy

# Truing beside TRL on real pairs; needs the data (TRUING_DATA) and makes an environment of its own for the peer.
TRUING_DATA ?= ../shared/data
PAIRS ?= $(TRUING_DATA)/hh_harmless_base_test/pairs.dev.jsonl.gz
MODELS ?= .bench/models
TASKS ?= sft reward dpo dpo-cached
NAMES ?= S-8k M-8k
ROUNDS ?= 3
PEER := .venv-peer/bin/python

$(PEER): benchmarks/peer_trl.py
	test -x $(PEER) || $(PYTHON) -m venv .venv-peer
	.venv-peer/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
	.venv-peer/bin/pip install --quiet --disable-pip-version-check trl==1.16.0
	touch $(PEER)

bench: $(STAMP) $(PEER)
	$(BIN)/python benchmarks/models.py $(PAIRS) $(MODELS) $(NAMES)
	$(BIN)/python benchmarks/compare.py $(PAIRS) $(MODELS) --tasks $(TASKS) --names $(NAMES) --rounds $(ROUNDS) $(BENCH)

# Rooms, import circles, names and docstrings of the source, or of several checkouts side by side: TREES="../old ."
shape: $(STAMP)
	$(BIN)/python benchmarks/shape.py $(TREES)

cost: $(STAMP)
	$(BIN)/python benchmarks/models.py $(PAIRS) $(MODELS) S-8k S-32k S-128k
	$(BIN)/python benchmarks/cost.py $(MODELS)
	$(BIN)/python benchmarks/objectives.py $(MODELS)

# Sampling beside transformers' own generate.
generate: $(STAMP)
	$(BIN)/python benchmarks/models.py $(PAIRS) $(MODELS) S-8k M-8k
	$(BIN)/python benchmarks/generate.py $(PAIRS) $(MODELS) $(BENCH)

# A step of learning from one's own answers, beside TRL's.
online: $(STAMP) $(PEER)
	$(BIN)/python benchmarks/models.py $(PAIRS) $(MODELS) S-8k
	$(BIN)/python benchmarks/online.py $(PAIRS) $(MODELS) $(BENCH)

# Every formula beside TRL's own loss code; KEEP=1 keeps the table in docs/differential.md and TRL's numbers for the tests.
differential: $(STAMP) $(PEER)
	PYTHONPATH=tests $(BIN)/python benchmarks/differential.py $(if $(KEEP),--keep)

# Simulated decisions by judges that err: the table of docs/conclusions.md. KEEP=1 keeps it there.
decisions: $(STAMP)
	$(BIN)/python benchmarks/decisions.py $(if $(KEEP),--keep)

# Every objective for three steps in bf16 on a real language model: the tables in docs/models.md. ONLY="dpo grpo" for some.
bf16: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m real.bf16 $(ONLY)

# An adapter as other programs open it; VLLM is the python of an environment with vLLM.
clients: $(STAMP)
	$(BIN)/python benchmarks/clients.py $(if $(VLLM),--vllm $(VLLM))

# Random kills of one process and of two, each gone on with; the weights must be those of a quiet run.
KILLS ?= 20
SEED ?= 0
soak: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m parallel.soak --kills $(KILLS) --seed $(SEED)

# Spoilt files by the hundred thousand: only documented ends, no traceback, no hang, no NaN (the tests do a thousand).
COUNT ?= 100000
fuzz: $(STAMP)
	$(BIN)/python tests/fuzz/run.py --count $(COUNT) --workers $(WORKERS) $(FUZZ)

# The generated tables of docs/objectives.md and docs/papers.md; a test fails where they are stale.
docs: $(STAMP)
	$(BIN)/python docs/tables.py

# How often every interval holds the truth, and verdicts are false: the table in docs/coverage.md. CASES="mean share" for some.
coverage: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/coverage_study.py $(if $(CASES),$(CASES),--keep)

# One recipe over several seeds, and one table of all: studies/NAME.yaml gives studies/NAME.md. Goes on where it was stopped.
NAME ?= objectives
study: $(STAMP)
	$(BIN)/python studies/run.py $(NAME) $(STUDY)

clean:
	rm -rf $(VENV) .clients runs .mypy_cache .ruff_cache .coverage
