"""Figures come out as PNG and SVG that can be read, say what they show, and are the same bytes each time."""

import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from blank_figures import leave_blank
from made_up_results import OTHER, described, measurement, results
from PIL import Image

from engagement_recognition.data.schema import BINARY, EXPRESSIONS, LEVELS
from engagement_recognition.evaluation.calibration import calibration_scores, risk_coverage
from engagement_recognition.evaluation.figures import (
    name_figures,
    save_confusion,
    save_figures,
    save_reliability,
    save_risk_coverage,
    save_training_curves,
)
from engagement_recognition.evaluation.results_schema import PooledTrainings, Selection
from engagement_recognition.hub.model_files import is_published_name
from engagement_recognition.processor.input_errors import DataError

TRAINER_LOG = [
    {"epoch": 0.5, "loss": 0.8, "learning_rate": 1e-4},
    {"epoch": 1.0, "loss": 0.6},
    {"epoch": 1.0, "eval_loss": 0.7, "eval_macro_f1": 0.4},
    {"epoch": 2.0, "loss": 0.5},
    {"epoch": 2.0, "eval_loss": 0.6, "eval_macro_f1": 0.55},
    {"epoch": 2.0, "train_loss": 123.0, "train_runtime": 9.0},
]
CSV_LOG = [{"epoch": i, "train_loss": 1 / i, "val_loss": 1.1 / i, "val_macro_f1": 0.1 * i} for i in (1, 2, 3)]
# A loss that is no number stands in the results as null.
DIVERGED = [*TRAINER_LOG, {"epoch": 3.0, "loss": None}, {"epoch": 3.0, "eval_loss": None, "eval_macro_f1": 0.2}]


@pytest.fixture(autouse=True)
def _text_stays_text(monkeypatch: pytest.MonkeyPatch):
    # So that a test can read what an SVG says; by default letters are drawn, and look alike everywhere.
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")


def draw_scores(num_labels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.dirichlet(np.ones(num_labels), 200), rng.integers(num_labels, size=200)


DRAW = {
    "confusion": lambda path: save_confusion([[22, 61], [105, 1441]], BINARY, path, "Test"),
    "reliability": lambda path: save_reliability(calibration_scores(*draw_scores()), path, "Test"),
    "risk": lambda path: save_risk_coverage(
        {"LSTM": risk_coverage(*draw_scores()), "mean": risk_coverage(*draw_scores(2))}, path
    ),
    "training": lambda path: save_training_curves(TRAINER_LOG, path, "Test"),
}


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("confusion", ("1,441", "27 %", "disengaged", "predicted", "true")),
        ("reliability", ("ECE", "accuracy", "confidence", "examples")),
        ("risk", ("coverage", "risk", "LSTM (AURC", "mean (AURC")),
        ("training", ("training loss", "validation loss", "best: 0.550 at epoch 2", "epoch")),
    ],
)
def test_figures_say_what_they_show(name: str, texts: tuple[str, ...], tmp_path: Path):
    png, svg = DRAW[name](tmp_path / "new" / "figure")
    assert (png.name, svg.name) == ("figure.png", "figure.svg")
    said = svg.read_text(encoding="utf-8")
    assert [text for text in texts if text not in said] == []
    picture = Image.open(png)
    assert min(picture.size) > 600  # legible on a phone and in print
    assert len(picture.convert("RGB").getcolors(maxcolors=1 << 24)) > 10


@pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)
def test_the_same_input_gives_the_same_bytes_and_matplotlib_stays_as_it_was(draw, tmp_path: Path):
    before = dict(matplotlib.rcParams)
    first, second = ([path.read_bytes() for path in draw(tmp_path / name)] for name in "ab")
    assert first == second and dict(matplotlib.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


@pytest.mark.parametrize("names", [BINARY, LEVELS, EXPRESSIONS])
def test_a_class_that_never_occurs_is_drawn_as_zero(names: tuple[str, ...], tmp_path: Path):
    _, svg = save_confusion(np.diag(np.arange(len(names))).tolist(), names, tmp_path / "confusion.png")
    # The diagonal but the empty class, and the axis.
    assert svg.read_text(encoding="utf-8").count("100 %") == len(names) - 1 + 1


def test_edges_of_reliability_and_risk_are_drawn(tmp_path: Path):
    one_hot, labels = np.eye(2)[[0, 1]], np.array([0, 1])
    save_reliability(calibration_scores(one_hot, labels), tmp_path / "a")
    _, svg = save_risk_coverage(risk_coverage(one_hot, labels), tmp_path / "b")  # a model without an error
    assert "AURC 0.000" in svg.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("log", "best"), [(CSV_LOG, "0.300 at epoch 3"), (DIVERGED, "0.550 at epoch 2")], ids=["csv", "diverged"]
)
def test_csv_rows_are_drawn_as_trainer_s_log_is_and_what_is_not_finite_left_out(log: list, best: str, tmp_path: Path):
    _, svg = save_training_curves(log, tmp_path / "x")
    assert f"best: {best}" in svg.read_text(encoding="utf-8")


@pytest.mark.parametrize(("score", "drawn"), [("auroc", True), ("loss", False)])
def test_the_epoch_that_was_kept_is_marked_and_not_the_best_of_another_score(score: str, drawn: bool, tmp_path: Path):
    log = [
        {"epoch": epoch, "step": 10 * epoch, "eval_loss": 0.5, "eval_macro_f1": 0.4 + epoch / 10, "eval_auroc": 0.7}
        for epoch in (1, 2)
    ]
    value = log[0][f"eval_{score}"]
    selection = Selection(score=score, step=10, value=value, num_evaluations=2)
    said = save_training_curves(log, tmp_path / "x", selection=selection)[1].read_text(encoding="utf-8")
    assert f"kept: {score} {value:.3f} at epoch 1" in said and "best" not in said
    assert (f"validation {score}" in said) == (drawn or score == "loss")


def test_the_mean_loss_of_the_whole_run_is_no_point_of_the_curve(tmp_path: Path):
    with_end, without = (
        save_training_curves(log, tmp_path / "x")[0].read_bytes() for log in (TRAINER_LOG, TRAINER_LOG[:-1])
    )
    assert with_end == without


def test_a_log_without_numbers_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"training log has 1 rows.*train_loss"):
        save_training_curves([{"epoch": 1, "learning_rate": 0.1}], tmp_path / "none")
    assert not list(tmp_path.iterdir())


def test_no_measurement_s_figures_overwrite_another_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    leave_blank(monkeypatch)
    own, pooled = results(), PooledTrainings(seeds=[0], num_folds=5)
    (test,) = own.measurements
    there = measurement(data=described(OTHER, "../a b/é.csv"))
    several = [there, test, there.model_copy(update={"pooled": pooled}), measurement("validation")]
    told = own.model_copy(update={"measurements": several})
    assert name_figures(told) == ["test_a_b_csv_b2b2b2b2", "test", "test_a_b_csv_b2b2b2b2_again", "validation"]
    files = save_figures(tmp_path, told)
    assert sorted(files) == sorted((tmp_path / "figures").iterdir()) and len(set(files)) == 4 * 2 * 3 * 2 + 2
    assert all(is_published_name(path.relative_to(tmp_path).as_posix()) for path in files)


def test_figures_of_what_is_no_longer_measured_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    leave_blank(monkeypatch)
    save_figures(tmp_path, results().with_measurement(measurement("validation")))
    (tmp_path / "figures/mine.png").touch()
    files = save_figures(tmp_path, results())
    assert sorted((tmp_path / "figures").iterdir()) == sorted([*files, tmp_path / "figures/mine.png"])
    assert not list((tmp_path / "figures").glob("validation_*"))
