# `make demo` and `make test` each do all set-up on a fresh machine: Python 3.10 or newer with venv is all they need.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: setup demo test test-all lint clean

setup: $(VENV)/installed

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -e '.[test]'
	touch $@

# Draws people who do not exist, trains both stages on them, shows that time carries information, predicts a video.
demo: setup
	$(BIN)/engagement draw --format expressions --output drawn/expressions --subjects 60 --clips-per-subject 50
	$(BIN)/engagement draw --format daisee --output drawn/daisee --subjects 40 --clips-per-subject 8 --fps 2 --height-px 240
	$(BIN)/python train.py recipes/demo.yaml
	$(BIN)/engagement draw --format daisee --variant dynamics --output drawn/dynamics --subjects 40 --clips-per-subject 6 --fps 2 --height-px 240
	$(BIN)/python train.py recipes/demo_dynamics.yaml --output_dir runs/demo_lstm --temporal lstm
	$(BIN)/python train.py recipes/demo_dynamics.yaml --output_dir runs/demo_mean --temporal mean
	$(BIN)/engagement evaluate runs/demo/engagement --data drawn/daisee --face-focus 20
	$(BIN)/engagement report runs/demo/expression runs/demo/engagement runs/demo_lstm/engagement runs/demo_mean/engagement
	$(BIN)/engagement predict drawn/daisee/DataSet/Test/*/*1001/* --model runs/demo/engagement

# Two processes with a thread each: torch's threads gain nothing on models this small. A file's tests stay together,
# since they share what they train.
test: setup
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -m "not slow" -n 2 --dist loadfile

test-all: setup
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest tests

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf runs drawn build *.egg-info
