# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VERL := .venv-verl

.PHONY: demo test check install real docs clean verl-cpu test-verl

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

install: $(STAMP)

demo: install
	$(BIN)/rlx train --algo dgpo

test: install
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# verl over .venv and not inside it: its hydra needs an older antlr4, and its pins an older transformers than it works with.
$(VERL)/.installed: $(STAMP) constraints-verl.txt
	$(BIN)/python -m venv $(VERL)
	$(VERL)/bin/python -c "import sysconfig; print('import site; site.addsitedir(\"' + sysconfig.get_path('purelib').replace('$(VERL)', '$(VENV)') + '\")')" > $(VERL)/below
	mv $(VERL)/below "$$($(VERL)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/below.pth"
	$(VERL)/bin/python -m pip install --quiet --constraint constraints-verl.txt --editable ".[verl]"
	$(VERL)/bin/python -m pip install --quiet --no-deps verl==0.9.1
	touch $@

verl-cpu: $(VERL)/.installed

test-verl: verl-cpu
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(VERL)/bin/python -m pytest -m verl tests/backends tests/compare

check: install
	$(BIN)/ruff check rlx tests docs experiments
	$(BIN)/ruff format --check rlx tests docs experiments
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

coverage: install
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --cov=rlx --cov-report=term-missing:skip-covered

# A local file of GSM8K questions (columns id, problem, answer) stands in for the hub where there is one.
GSM8K ?= $(wildcard ../shared/data/bench/gsm8k_train.jsonl)
LOCAL_GSM8K = --data $(GSM8K) --set data.prompt=problem --set data.answer_format=raw

real: install
	$(BIN)/python experiments/get_smollm2.py
	$(BIN)/rlx train experiments/grpo_smollm2-135m_gsm8k.yaml $(if $(GSM8K),$(LOCAL_GSM8K))

docs: install
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) $(VERL) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
