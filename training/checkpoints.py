"""Which checkpoint a training resumes from: the newest whole one of the same recipe, or the one the user named.

A checkpoint is whole if its files match its checksums. If it has none, because an earlier version wrote it or the run
was killed just before, its files are opened.
"""

import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..data.atomic_files import writing
from ..data.checksums import CHECKSUMS_FILE, what_changed, write_checksums
from ..processor.input_errors import DataError, RecipeError, in_one_line
from .arguments import StageRun, train_command
from .failures import could_not_write
from .run_record import (
    RECORD_FILE,
    OptionValue,
    TrainingRecipe,
    inputs_that_differ,
    options_of,
    options_that_differ,
    read_training_recipe,
)

INCOMPLETE_FILE = "checkpoint-is-incomplete.txt"  # transformers' marker while it writes a just-in-time checkpoint
_STATE_FILE = "trainer_state.json"
_WEIGHTS_FILE = "model.safetensors"
_ARCHIVES = ("optimizer.pt", "scheduler.pt", "training_args.bin")  # as torch.save writes them
_LAST = ("true", "yes", "1")  # as resume_from_checkpoint


@dataclass(frozen=True)
class Resumption:
    """Where a stage resumes, and which checkpoints were skipped."""

    checkpoint: Path | None  # None: it starts from the beginning
    passed_over: Mapping[Path, str]  # newer checkpoints, each with what is wrong with it


def find_checkpoint(run: StageRun) -> Resumption:
    """What `--resume_from_checkpoint` means for a stage: true, false, or a checkpoint's path.

    Raises:
        RecipeError: the path is not a checkpoint, or a broken one; or all whole checkpoints have different options or
            are from a version that did not record its recipe.
    """
    asked = run.training.resume_from_checkpoint
    if asked is None:
        return Resumption(None, {})
    options, num_processes = options_of(run), run.training.world_size
    if not _is_switch(asked):
        return Resumption(_named_checkpoint(Path(str(asked)), options, num_processes), {})
    passed_over: dict[Path, str] = {}
    refusals: list[str] = []
    for checkpoint in _numbered(Path(str(run.training.output_dir))):
        wrong = what_is_wrong(checkpoint)
        if wrong:
            passed_over[checkpoint] = wrong
            continue
        refusal = _other_recipe(checkpoint, options, num_processes)
        if refusal is None:
            return Resumption(checkpoint, passed_over)
        refusals.append(refusal)
    if refusals:
        raise RecipeError(refusals[0])
    return Resumption(None, passed_over)


def _numbered(folder: Path) -> list[Path]:
    """Newest first."""
    numbered = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    return sorted(numbered, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)


def _named_checkpoint(path: Path, options: Mapping[str, OptionValue], num_processes: int) -> Path:
    if not (path / _STATE_FILE).is_file() and not (path / _WEIGHTS_FILE).is_file():
        inside = _numbered(path)
        hint = f"such as {inside[0]}" if inside else "or true for the last one in output_dir"
        raise RecipeError(f"resume_from_checkpoint {path} is not a checkpoint; pass the folder of one, {hint}.")
    wrong = what_is_wrong(path)
    if wrong:
        raise RecipeError(
            f"The checkpoint {path} is broken ({wrong}); pass a different one, or true for the last whole one."
        )
    # An earlier version recorded only the number of processes, as each has its own random state.
    known = options if read_training_recipe(path) else None
    refusal = _other_recipe(path, known, num_processes)
    if refusal:
        raise RecipeError(refusal)
    return path


def _other_recipe(checkpoint: Path, options: Mapping[str, OptionValue] | None, num_processes: int) -> str | None:
    """Why this run cannot resume from a whole checkpoint; None: it can.

    Args:
        options: of the run; None: they are not compared.
    """
    kept = read_training_recipe(checkpoint)
    if kept is None and options is not None:
        return (
            f"{checkpoint} does not record the options it was trained with ({RECORD_FILE} is missing): an earlier "
            f"version wrote it. To resume from it with the current options, pass --resume_from_checkpoint "
            f"{checkpoint}; to start again, move it away."
        )
    differing = options_that_differ(kept, options) if kept and options is not None else []
    if _processes_of(checkpoint) != num_processes:
        differing.append(f"num_processes {_processes_of(checkpoint)}, got {num_processes}")
    return _refusal(checkpoint, differing) if differing else None


def _processes_of(checkpoint: Path) -> int:
    """How many processes trained it, from its recipe or the number of its random-state files."""
    kept = read_training_recipe(checkpoint)
    return kept.num_processes if kept else max(1, len(list(checkpoint.glob("rng_state_*.pth"))))


def _refusal(checkpoint: Path, differing: list[str]) -> str:
    return (
        f"To resume from {checkpoint}, expected {'; '.join(differing)}. Resume with the same settings, or start a new "
        "training in a different --output_dir."
    )


def choose_checkpoint(run: StageRun, recipe: TrainingRecipe) -> Path | None:
    """`find_checkpoint`, with one line on skipped checkpoints, which are renamed to `broken-checkpoint-...`.

    Args:
        recipe: of the run.

    Raises:
        RecipeError: as `find_checkpoint`; or the checkpoint has different data or different first weights.
        DataError: a broken checkpoint cannot be renamed.
    """
    found = find_checkpoint(run)
    kept = read_training_recipe(found.checkpoint) if found.checkpoint else None
    differing = inputs_that_differ(kept, recipe) if kept else []
    if found.checkpoint and differing:
        raise RecipeError(_refusal(found.checkpoint, differing))
    _tell(found, run)
    for broken in found.passed_over:
        aside = broken.with_name(f"broken-{broken.name}")  # Trainer would write into it at the same step
        with writing(broken):
            if aside.exists():
                shutil.rmtree(aside)
            broken.rename(aside)
    return found.checkpoint


def _tell(found: Resumption, run: StageRun) -> None:
    folder = Path(str(run.training.output_dir))
    if found.checkpoint and read_training_recipe(found.checkpoint) is None:
        print(
            f"{found.checkpoint} does not record the options it was trained with; resuming with the current ones",
            flush=True,
        )
    if found.passed_over:
        name = found.checkpoint.name if found.checkpoint else ""
        goes_on = f"the training resumes from {name}" if name else "none is left, so the training starts again"
        broken = "; ".join(f"{path.name}: {wrong}" for path, wrong in found.passed_over.items())
        print(f"{run.name}: broken checkpoints set aside in {folder}: {broken}; {goes_on}", flush=True)
    elif "resume_from_checkpoint" not in run.given and _numbered(folder):
        print(
            f"{run.name}: starts again and replaces the checkpoints in {folder}; to resume from them instead, stop now "
            f"and use {train_command()} with --resume_from_checkpoint true",
            flush=True,
        )


def give_to_one_stage(runs: Sequence[StageRun]) -> None:
    """A checkpoint named for both stages belongs to one: an earlier stage resumes from its own last checkpoint, a later
    one starts from the beginning.

    Raises:
        RecipeError: it belongs to neither stage; or it was named for folds, each of which has its own.
    """
    named = [run for run in runs if not _is_switch(run.training.resume_from_checkpoint)]
    for run in named:
        if run.stage.folds:
            raise RecipeError(
                "With folds, resume_from_checkpoint must be true, not a path: each fold has its own checkpoints."
            )
    if len({str(run.training.resume_from_checkpoint) for run in named}) != 1 or len(named) < 2:
        return
    path = Path(str(named[0].training.resume_from_checkpoint))
    kept = read_training_recipe(path)
    stage = kept.stage if kept else path.resolve().parent.name
    places = [place for place, run in enumerate(runs) if run.name == stage]
    if not places:
        raise RecipeError(
            f"{path} was given for both stages and belongs to neither; pass --expression_resume_from_checkpoint or "
            "--engagement_resume_from_checkpoint."
        )
    for place, run in enumerate(runs):
        if place != places[0]:
            run.training.resume_from_checkpoint = "true" if place < places[0] else None


def _is_switch(asked: str | None) -> bool:
    return asked is None or str(asked).lower() in _LAST


@contextmanager
def whole_checkpoint(checkpoint: Path, writes: bool) -> Iterator[None]:
    """Wraps the writing of a checkpoint: an old one of that name is deleted first, an unfinished one afterwards.

    Args:
        writes: whether this process writes it.

    Raises:
        DataError: it could not be written; the one before it stays.
    """
    if writes and (checkpoint / _STATE_FILE).is_file():
        shutil.rmtree(checkpoint)
    try:
        yield
    except Exception as error:
        if not could_not_write(error):
            raise
        shutil.rmtree(checkpoint, ignore_errors=True)
        before = next(iter(_numbered(checkpoint.parent)), None)
        stays = f"{before.name} stays whole" if before else "there is none before it"
        raise DataError(
            f"{checkpoint} could not be written ({in_one_line(error)}); {stays}. Free disk space, then resume with "
            f"{train_command()} and --resume_from_checkpoint true."
        ) from error


def seal_checkpoint(checkpoint: Path) -> None:
    """Write the checksums of a checkpoint's files; raises DataError where that fails."""
    files = [path for path in checkpoint.rglob("*") if path.is_file() and path.name != CHECKSUMS_FILE]
    write_checksums(checkpoint, [path.relative_to(checkpoint).as_posix() for path in files])


def what_is_wrong(checkpoint: Path, with_best: bool = True) -> str | None:
    """In words; None: the checkpoint is whole, and so is the best one that it refers to."""
    if (checkpoint / INCOMPLETE_FILE).exists():
        return "it was not completely written"
    try:
        num_processes = _processes_of(checkpoint)
    except RecipeError:
        return f"{RECORD_FILE} is damaged"
    states = [f"rng_state_{i}.pth" for i in range(num_processes)] if num_processes > 1 else ["rng_state.pth"]
    needed = (_STATE_FILE, _WEIGHTS_FILE, *_ARCHIVES, *states)
    wrong = next((f"{name} is missing" for name in needed if not (checkpoint / name).is_file()), None)
    wrong = wrong or what_changed(checkpoint) or _what_does_not_open(checkpoint, needed)
    best = best_checkpoint(checkpoint) if with_best and not wrong else None
    if best is not None and best.resolve() != checkpoint.resolve():
        of_best = what_is_wrong(best, with_best=False) if best.is_dir() else "it is missing"
        return f"it refers to {best.name} as the best so far, where {of_best}" if of_best else None
    return wrong


def best_checkpoint(checkpoint: Path) -> Path | None:
    """The best checkpoint when this one was written; None: there was none yet.

    It is looked for next to this one, so that a run's folder can be moved.
    """
    state = json.loads((checkpoint / _STATE_FILE).read_text(encoding="utf-8"))
    stored = state.get("best_model_checkpoint")
    return checkpoint.parent / Path(stored).name if stored else None


def _what_does_not_open(checkpoint: Path, needed: tuple[str, ...]) -> str | None:
    for name in needed:
        path = checkpoint / name
        if not path.stat().st_size:
            return f"{name} is empty"
        if path.suffix in (".pt", ".pth", ".bin") and not _is_sound_archive(path):
            return f"{name} is cut or damaged"
    try:
        with safe_open(str(checkpoint / _WEIGHTS_FILE), framework="pt"):
            pass
    except (OSError, SafetensorError):
        return f"{_WEIGHTS_FILE} is cut or damaged"
    for name in (_STATE_FILE, "config.json"):
        try:
            content = json.loads((checkpoint / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError):
            return f"{name} is cut or damaged"
        if not isinstance(content, dict) or (name == _STATE_FILE and not _is_state(content)):
            return f"{name} has unexpected content"
    return None


def _is_state(content: Mapping[str, object]) -> bool:
    """Whether it records the training's position: without that Trainer would start trained weights at step 0."""
    step, log, best = content.get("global_step"), content.get("log_history"), content.get("best_model_checkpoint")
    is_step = isinstance(step, int) and not isinstance(step, bool) and step > 0
    return is_step and isinstance(log, list) and isinstance(best, (str, type(None)))


def _is_sound_archive(path: Path) -> bool:
    """Whether it is an archive of torch.save with all parts intact."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None and any(name.endswith("/data.pkl") for name in archive.namelist())
    # zipfile raises these where bits of a part's header flipped: unknown compression, encryption, a different name.
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError):
        return False
