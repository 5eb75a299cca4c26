# `make demo` and `make test` each do all set-up on a fresh machine: Python 3.11 or newer with venv is all they need.
PYTHON ?= python3
# The lower bounds have wheels for this one.
LOWEST_PYTHON ?= python3.11
VENV ?= .venv
BIN = $(VENV)/bin
# A process that crashed ends the run and is named: the others would wait for its files for ever.
# Compiled files are kept even where the environment says not to: many tests start processes that import all of this.
PYTEST = PYTHONDONTWRITEBYTECODE= HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 \
	$(BIN)/python -m pytest tests --dist loadfile --no-loadscope-reorder --max-worker-restart 0 -n

.PHONY: setup demo test test-core test-lowest test-all fuzz soak lint readme notebook clean

setup: $(VENV)/installed

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off $(PIP_OPTIONS) -e '.[test]'
	touch $@

# Draws people who do not exist, trains both stages on them, tries heads with and without time, and says what was shown.
demo: setup
	$(BIN)/engagement draw --format expressions --output drawn/expressions --subjects 60 --clips-per-subject 50
	$(BIN)/engagement draw --format daisee --output drawn/daisee --subjects 40 --clips-per-subject 8 --fps 2 --height-px 240
	$(BIN)/python train.py recipes/demo.yaml
	$(BIN)/engagement draw --format daisee --variant dynamics --output drawn/order --subjects 100 --clips-per-subject 16 --fps 2 --height-px 120
	$(BIN)/python train.py recipes/order/lstm.yaml --output_dir runs/demo_lstm
	$(BIN)/python train.py recipes/order/mean.yaml --output_dir runs/demo_mean
	$(BIN)/engagement evaluate runs/demo/engagement --data drawn/daisee --face-focus 20
	$(BIN)/engagement report runs/demo/expression runs/demo/engagement runs/demo_lstm/engagement runs/demo_mean/engagement --output runs/demo/report
	rm -rf runs/demo/checkpoints runs/demo_lstm/checkpoints runs/demo_mean/checkpoints
	$(BIN)/python -m engagement_recognition.studies.demo_verdict runs/demo runs/demo_lstm runs/demo_mean drawn/daisee

# Three processes with a thread each: torch's threads gain nothing on models this small, and some tests wait more than
# they compute. A file's tests stay together, since they share what they train.
test: setup
	$(PYTEST) 3 -m "not slow"

# What must work with every set of versions: loading elsewhere, prediction, training, exports, publication.
test-core: setup
	$(PYTEST) 2 -m "core and not slow"

# The same with the lower bound of every package in setup.cfg, all of them at once.
test-lowest:
	mkdir -p build
	$(LOWEST_PYTHON) .ci/lowest_versions.py > build/lowest_versions.txt
	$(MAKE) test-core PYTHON=$(LOWEST_PYTHON) VENV=.venv-lowest PIP_OPTIONS='-c build/lowest_versions.txt'

test-all: setup
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest tests

# Spoilt films, pictures, archives, models and records, for MINUTES, from SEED on; what is found lies in build/fuzz.
fuzz: setup
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python tests/field/fuzz.py --minutes $(or $(MINUTES),5) --seed $(or $(SEED),0)

# Live, page and endpoint under load for MINUTES: memory stays level, every question has an answer, no file is left.
soak: setup
	HF_HUB_OFFLINE=1 $(BIN)/python tests/field/soak.py --minutes $(or $(MINUTES),30)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache --no-logo
# As the commit hooks do, of all text that git knows.
	git grep -lI '' -- ':!*.ipynb' ':!*.svg' ':!*.json' ':!*.csv' | xargs $(BIN)/codespell
	git grep -lI '' | xargs $(BIN)/python .ci/find_secrets.py
# mypy takes a package's name from its folder, and a checkout may have any.
	mkdir -p $(VENV)/types && ln -sfn "$(CURDIR)" $(VENV)/types/engagement_recognition
	MYPYPATH=$(VENV)/types $(BIN)/mypy

# Measured results, docs/evidence.md and the use limits, from the files that contain them; the keys of results.json;
# docs/encoders.md; the Python API.
readme: setup
	$(BIN)/python .ci/readme.py
	$(BIN)/python .ci/results_doc.py
	$(BIN)/python .ci/encoders_doc.py
	$(BIN)/python .ci/api_doc.py

# docs/course.ipynb with outputs of this machine's making; minutes.
notebook: setup
	HF_HUB_OFFLINE=1 $(BIN)/python .ci/notebook.py

clean:
	rm -rf runs drawn build *.egg-info
