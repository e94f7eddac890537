# Everything runs in .venv, made from requirements.lock when first needed and whenever that file changes.

.PHONY: report test check acceptance lock

# The first of these that is Python 3.11 or later; `make PYTHON=/path/to/python ...` chooses another.
PYTHON ?= $(firstword $(foreach name,python3.11 python3 python3.12 python3.13 python3.14,\
	$(shell $(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))

report: .venv/installed  # the study of the model and benchmark that ship, and its page
	.venv/bin/mata-interp study --out runs/organism
	@echo "The report is $(CURDIR)/runs/organism/report.html"

# One thread: the tensors of the tests are too small to share. Offline: no test may need a model hub.
test acceptance: export OMP_NUM_THREADS ?= 1
test acceptance: export HF_HUB_OFFLINE = 1
test acceptance: export MPLBACKEND = Agg

test: .venv/installed  # all tests but the long ones
	.venv/bin/python -m pytest -m "not acceptance"

acceptance: .venv/installed  # the long ones
	.venv/bin/python -m pytest -m acceptance --durations=0

check: .venv/installed  # style and types
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/pyright --pythonpath .venv/bin/python

lock: .venv/installed  # write the versions now in .venv into requirements.lock
	.venv/bin/python .ci/lock.py > .venv/requirements.lock
	cmp --silent .venv/requirements.lock requirements.lock || cp .venv/requirements.lock requirements.lock

.venv/installed: .venv/locked pyproject.toml
	.venv/bin/pip install --no-deps --no-build-isolation --editable .
	.venv/bin/pip check
	@touch $@

.venv/locked: requirements.lock
	@test -n "$(PYTHON)" || { echo "mata-interp needs Python 3.11 or later: make PYTHON=/path/to/python"; exit 1; }
	@echo "Making .venv from requirements.lock; the first time this takes some minutes."
	rm -rf .venv
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --disable-pip-version-check --requirement requirements.lock
	@touch $@
