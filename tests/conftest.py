"""Drawn data and models trained on it, tiny and made once for all test files that need them."""

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# What takes seconds to import is imported where it is used: the process that only hands tests out reads this file too.
if TYPE_CHECKING:
    import torch

    from engagement_recognition.data.preparation.prepared_data import PreparedData
    from engagement_recognition.data.schema import LabelledSource
    from engagement_recognition.training.arguments import StageRun

# What must work with every set of versions that setup.cfg allows: each of these leans on the libraries in its own way.
CORE_FILES = {
    "test_elsewhere.py", "test_encoders.py", "test_exports.py", "test_face_focus.py", "test_live_sources.py",
    "test_predict.py", "test_publish.py", "test_reference_h5.py", "test_training.py",
    "test_versions.py", "test_video_decoding.py",
}  # fmt: skip
_num_modules = [0]  # when they were frozen
Command = Callable[..., tuple[int, str, str]]
LONG_FILES = ("test_app_browser.py", "test_elsewhere.py", "test_training.py", "test_model_focus.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name in CORE_FILES:
            item.add_marker(pytest.mark.core)
    # Files go to the processes in this order: the long ones first, or the last of them would run alone.
    items.sort(key=lambda item: LONG_FILES.index(item.path.name) if item.path.name in LONG_FILES else len(LONG_FILES))


def freeze_what_was_imported() -> None:
    # Trainer collects garbage twice a training; looking through all that was imported is half of a tiny one's time.
    if len(sys.modules) > _num_modules[-1] + 100:
        _num_modules.append(len(sys.modules))
        gc.collect()
        gc.freeze()


def pytest_collection_finish() -> None:
    freeze_what_was_imported()


def pytest_runtest_logfinish() -> None:
    freeze_what_was_imported()  # a first training imports as much again


def pytest_runtest_teardown() -> None:
    # Where it may, as root, libsvtav1 gives whoever encodes AV1 a real-time priority: all other processes would wait.
    if hasattr(os, "sched_setscheduler") and os.sched_getscheduler(0) == os.SCHED_FIFO:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture
def engagement(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Command:
    """`engagement ARGUMENTS...` in this process → exit code, stdout, stderr."""
    from engagement_recognition.cli import main as cli

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["engagement", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capfd.readouterr()
        return stop.value.code or 0, said.out, said.err

    return run


@pytest.fixture(scope="module")
def one_reader() -> Iterator[None]:
    """For files with many commands: `pytestmark = pytest.mark.usefixtures("one_reader")`."""
    from kept_reader import one_reader

    with one_reader():
        yield


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps that were begun; the first run is interrupted in its second epoch."""
    from stopped_trainings import stop_in

    return stop_in(monkeypatch, 4)


def prepare_drawn(source: Path, output: Path, drop_conflicts: bool = False, **settings: object) -> "PreparedData":
    """Read a source of a kind that is told by itself, and prepare it."""
    from engagement_recognition.data.readers.sources import read_source

    return prepare_found(read_source(None, source), source, output, drop_conflicts, **settings)


def prepare_found(
    found: "LabelledSource", source: Path, output: Path, drop_conflicts: bool = False, **settings: object
) -> "PreparedData":
    """Prepare what was read without other processes: a spawned one spends seconds on imports."""
    from engagement_recognition.data.preparation.prepare import prepare
    from engagement_recognition.data.preparation.settings import FrameOptions, settings_for

    chosen = settings_for(found.media, FrameOptions(**settings))
    return prepare(found, chosen, source, output, num_processes=1, drop_conflicts=drop_conflicts)


@dataclass(frozen=True)
class TrainedStages:
    """What training left behind, the recipe it followed, and what stage two's model was before its first step."""

    recipe: dict[str, object]
    run_dir: Path
    expression: Path
    engagement: Path
    first_weights: "dict[str, dict[str, torch.Tensor]]"  # by stage


@contextmanager
def _figures_by(save_figures: Callable[..., list[Path]]) -> Iterator[None]:
    from engagement_recognition.evaluation import pooled_folds
    from engagement_recognition.hub import export_folder, publish

    with pytest.MonkeyPatch.context() as patch:
        for module in (export_folder, pooled_folds, publish):
            patch.setattr(module, "save_figures", save_figures)
        yield


@pytest.fixture(scope="session", autouse=True)
def _without_figures() -> Iterator[None]:
    """Figures take half of the time of what is trained, measured or published here: `figures` has them drawn."""
    with _figures_by(lambda folder, results: []):
        yield


@pytest.fixture
def figures() -> Iterator[None]:
    """For tests that look at figures: `@pytest.mark.usefixtures("figures")`."""
    from engagement_recognition.evaluation.figures import save_figures

    with _figures_by(save_figures):
        yield


@pytest.fixture(scope="session")
def drawn_daisee(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """15 labelled clips of 5 people in DAiSEE's layout, oddities included: 8 frames of 320x240 each."""
    from engagement_recognition.data.drawn.datasets import write_daisee

    folder = tmp_path_factory.mktemp("drawn") / "daisee"
    shape = {"fps": 4, "duration_sec": 2.0, "width_px": 320, "height_px": 240}
    write_daisee(folder, 5, 3, seed=0, **shape, processes=1, show_progress=False)
    return folder


@pytest.fixture(scope="session")
def drawn_expressions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """56 face pictures of 4 people in class folders, 48x48."""
    from engagement_recognition.data.drawn.datasets import write_expressions

    folder = tmp_path_factory.mktemp("drawn") / "expressions"
    write_expressions(folder, 4, 14, seed=0, size_px=48, processes=1, show_progress=False)
    return folder


@pytest.fixture(scope="session")
def tiny_recipe(
    drawn_daisee: Path, drawn_expressions: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, object]:
    """Both stages in a second or two; without an `output_dir`, which every test names for itself."""
    return {
        "encoder": "test_resnet",
        "image_size": 32,
        "num_frames": 4,
        "num_preparation_processes": 1,
        "temporal_hidden_size": 16,
        "cache_dir": str(tmp_path_factory.mktemp("cache")),
        "num_train_epochs": 2,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-3,
        "disable_tqdm": True,
        "seed": 0,
        "expression": {"data": str(drawn_expressions), "subject_pattern": r"^\d+"},
        "engagement": {"data": str(drawn_daisee)},
    }


@pytest.fixture(scope="session")
def trained(tiny_recipe: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> TrainedStages:
    """Both stages with their figures, trained once; tests read the folders and never write to them."""
    from engagement_recognition import train
    from engagement_recognition.evaluation.figures import save_figures
    from engagement_recognition.training.arguments import Recipe

    recipe = {**tiny_recipe, "output_dir": str(tmp_path_factory.mktemp("run"))}
    first_weights = {}
    stage_trainer = train.stage_trainer

    @contextmanager
    def remember(run: "StageRun", *arguments: object) -> Iterator[object]:
        with stage_trainer(run, *arguments) as (trainer, learned):
            first_weights[run.name] = {name: value.clone() for name, value in trainer.model.state_dict().items()}
            yield trainer, learned

    with pytest.MonkeyPatch.context() as patch, _figures_by(save_figures):
        patch.setattr(train, "stage_trainer", remember)
        expression, engagement = train.train(Recipe(recipe), {})
    return TrainedStages(recipe, Path(recipe["output_dir"]), expression, engagement, first_weights)


@pytest.fixture(scope="session")
def prepared_crops(trained: TrainedStages) -> Path:
    """The face crops that stage two was trained on; tests never write to them."""
    from engagement_recognition.data.preparation.prepared_data import load_prepared
    from engagement_recognition.evaluation.results_file import read_results

    fingerprint = read_results(trained.engagement).data.fingerprint
    folders = Path(trained.recipe["cache_dir"]).glob("daisee-*")
    return next(folder for folder in folders if load_prepared(folder).fingerprint == fingerprint)
