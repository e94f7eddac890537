# Everything runs in .venv, made from requirements.lock when first needed and whenever that file changes.

.PHONY: report test smoke acceptance acceptance-harness acceptance-families check lock test-floors

# The first of these that is Python 3.11 or later; `make PYTHON=/path/to/python ...` chooses another.
PYTHON ?= $(firstword $(foreach name,python3.11 python3 python3.12 python3.13 python3.14,\
	$(shell $(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))

report: .venv/installed  # the study of the model and benchmark that ship, and its page
	.venv/bin/mata-interp study --out runs/organism
	@echo "The report is $(CURDIR)/runs/organism/report.html"

# One thread: the tensors of the tests are too small to share. Offline: no test may need a model hub.
test smoke acceptance acceptance-harness acceptance-families test-floors: export OMP_NUM_THREADS ?= 1
test smoke acceptance acceptance-harness acceptance-families test-floors: export HF_HUB_OFFLINE = 1
test smoke acceptance acceptance-harness acceptance-families test-floors: export MPLBACKEND = Agg

# The mathematics, one model and one command: what breaks first when something is wrong.
SMOKE = tests/test_package.py tests/test_dependencies.py tests/attention tests/interventions tests/statistics \
	tests/lalm/test_model.py tests/lalm/test_mata.py tests/sweeps/test_sweep.py tests/tracing

# Files of tests are spread over two processes, in their order; `make WORKERS=8 test` takes more.
WORKERS ?= 2
PARALLEL = -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: .venv/installed  # all tests but the long ones
	.venv/bin/python -m pytest $(PARALLEL) -m "not acceptance"

smoke: .venv/installed  # in under two minutes: does the core still work?
	.venv/bin/python -m pytest -x -m "not acceptance" $(SMOKE)

acceptance: .venv/installed  # the long ones
	.venv/bin/python -m pytest -m acceptance --durations=0

# Evaluation harnesses that do not fit the lock: an environment for each (lmms-eval's takes 8 GB of disk).
acceptance-harness: .venv-inspect/installed .venv-lmms-eval/installed
	.venv-inspect/bin/python -m pytest -m acceptance tests/harnesses/test_inspect.py
	.venv-lmms-eval/bin/python -m pytest -m acceptance tests/harnesses/test_lmms_eval.py

# Processors of some families need torchvision or torchaudio, which the lock cannot have: they get an environment too
# (7 GB). The README's table of families is then written from what the tests have shown in both.
acceptance-families: .venv/installed .venv-families/installed
	MATA_FAMILIES_RECORD=.venv-families/record.json .venv-families/bin/python -m pytest tests/families
	.venv/bin/python -m pytest tests/families
	.venv/bin/python -m tests.families.table README.md

check: .venv/installed  # style and types
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/pyright --pythonpath .venv/bin/python

test-floors:  # the smoke tests on the lower bound of every dependency, in an environment of its own
	@test -n "$(PYTHON)" || { echo "mata-interp needs Python 3.11 or later: make PYTHON=/path/to/python"; exit 1; }
	rm -rf .venv-floors
	$(PYTHON) -m venv .venv-floors
	.venv-floors/bin/pip install --disable-pip-version-check packaging
	.venv-floors/bin/python .ci/floors.py > .venv-floors/requirements.txt
	.venv-floors/bin/pip install --disable-pip-version-check --requirement .venv-floors/requirements.txt
	.venv-floors/bin/pip install --no-deps --no-build-isolation --editable .
	.venv-floors/bin/python -m pytest -x -m "not acceptance" $(SMOKE)

lock: .venv/installed  # write the versions now in .venv into requirements.lock
	.venv/bin/python .ci/lock.py > .venv/requirements.lock
	cmp --silent .venv/requirements.lock requirements.lock || cp .venv/requirements.lock requirements.lock

.venv/installed: .venv/locked pyproject.toml
	.venv/bin/pip install --no-deps --no-build-isolation --editable .
	.venv/bin/pip check
	@touch $@

.venv/locked: requirements.lock
	@test -n "$(PYTHON)" || { echo "mata-interp needs Python 3.11 or later: make PYTHON=/path/to/python"; exit 1; }
	@echo "Installing requirements.lock into .venv; the first time this takes some minutes."
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/pip install --disable-pip-version-check --requirement requirements.lock
	@touch $@

# What reads audio or computes has the version of the lock; whatever else an environment needs is its own choice.
COMPUTES = transformers|nnsight|transformer-lens|tokenizers|mistral-common|safetensors|accelerate|numpy|scipy|soundfile|soxr

.venv-%/installed: .ci/environments/%.txt requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "mata-interp needs Python 3.11 or later: make PYTHON=/path/to/python"; exit 1; }
	test -x .venv-$*/bin/python || $(PYTHON) -m venv .venv-$*
	grep -E '^($(COMPUTES))==' requirements.lock > .venv-$*/constraints.txt
	grep -q '^torch==' $< || grep '^torch==' requirements.lock >> .venv-$*/constraints.txt
	.venv-$*/bin/pip install --disable-pip-version-check --constraint .venv-$*/constraints.txt --requirement $< --editable .
	@touch $@
