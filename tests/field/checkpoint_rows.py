"""Checkpoints that are broken, of other options, or named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from bench import Bench, Said
from rows import Comes, Refused, Row
from safetensors.torch import load_file
from trainings import (
    BEFORE,
    NEWEST,
    Killed,
    as_earlier_version,
    best_elsewhere,
    cut,
    flip,
    killed_run,
    resumed_as_straight,
)

TRUE = ("--resume_from_checkpoint", "true")


# --- 40: broken checkpoints


def _write(name: str, content: str) -> Callable[[Path], object]:
    return lambda checkpoint: (checkpoint / name).write_text(content)


def _remove(name: str) -> Callable[[Path], object]:
    return lambda checkpoint: (checkpoint / name).unlink()


def _earlier(harm: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda checkpoint: (as_earlier_version(checkpoint), harm(checkpoint))


_BROKEN: dict[str, tuple[str, Callable[[Path], object]]] = {
    **{
        f"{name} {how}": (name, harm)
        for name in ("trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors",
                     "training_args.bin")
        for how, harm in {
            "cut": cut(name),
            "empty": cut(name, 0),
            "missing": _remove(name),
            "cut, of an earlier version": _earlier(cut(name)),
            "empty, of an earlier version": _earlier(cut(name, 0)),
            "missing, of an earlier version": _earlier(_remove(name)),
        }.items()
    },
    "bit of the weights": ("model.safetensors", lambda checkpoint: flip(checkpoint / "model.safetensors")),
    "bit of the optimizer": ("optimizer.pt", lambda checkpoint: flip(checkpoint / "optimizer.pt")),
    "bit of the optimizer, of an earlier version":
        ("optimizer.pt", _earlier(lambda checkpoint: flip(checkpoint / "optimizer.pt"))),
    "state without a step, of an earlier version": ("trainer_state.json", _earlier(_write("trainer_state.json", "{}"))),
    "state that is a list, of an earlier version": ("trainer_state.json", _earlier(_write("trainer_state.json", "[]"))),
    "config cut, of an earlier version": ("config.json", _earlier(cut("config.json"))),
    "marked as incomplete": ("not completely written", _write("checkpoint-is-incomplete.txt", "")),
    "recipe cut, of an earlier version": ("training_recipe.json", _earlier(cut("training_recipe.json"))),
    "checksums cut": ("SHA256SUMS", cut("SHA256SUMS")),
}  # fmt: skip


def _chosen(bench: Bench, killed: Killed) -> str:
    chosen = killed.chosen()
    assert (killed.checkpoints / f"broken-{NEWEST}").is_dir() and not killed.newest.exists()
    return chosen


_CHECKPOINTS = [
    Row(
        f"checkpoint: {name}",
        lambda folder, harm=harm: killed_run(folder, harm),
        _chosen,
        Comes(that=lambda chosen: chosen == BEFORE),
        kind=40,
    )
    for name, (_, harm) in _BROKEN.items()
] + [
    Row(
        "checkpoint without random numbers ends with the same weights",
        lambda folder: killed_run(folder, lambda checkpoint: (checkpoint / "rng_state.pth").unlink()),
        resumed_as_straight,
        Comes(says=(NEWEST, "rng_state.pth is missing", f"resumes from {BEFORE}")),
        kind=40,
    ),
    Row(
        "no checkpoint is whole",
        lambda folder: killed_run(folder, lambda newest: (cut("optimizer.pt")(newest), cut("scheduler.pt", 0)(
            newest.with_name(BEFORE)))),
        resumed_as_straight,
        Comes(says=("optimizer.pt", "scheduler.pt is empty", "starts again")),
        kind=40,
    ),
    Row(
        "the best checkpoint is damaged, the last whole",
        lambda folder: killed_run(folder, lambda newest: (best_elsewhere(newest), cut("model.safetensors")(
            newest.with_name(BEFORE)))),
        lambda bench, killed: killed.chosen(),
        Comes(that=lambda chosen: chosen == "none"),
        kind=40,
    ),
]  # fmt: skip


# --- 39: resuming with other options, and which checkpoint

_OTHER = {
    "seed": ("--seed", "1", "seed 0, got 1"),
    "learning rate": ("--learning_rate", "0.002", "learning_rate 0.001, got 0.002"),
    "encoder": ("--encoder", "resnet18", "encoder test_resnet, got resnet18"),
    "more epochs": ("--num_train_epochs", "5", "num_train_epochs 3.0, got 5.0"),
    "augmentation": ("--augmentation", '{"flip": 0.2}', "augmentation"),
    "size": ("--image_size", "48", "image_size 32, got 48"),
    "loss": ("--loss", "focal", "loss cross_entropy, got focal"),
}
_FREE = {
    "logging": ("--logging_strategy", "steps", "--logging_steps", "1"),
    "evaluation batch": ("--per_device_eval_batch_size", "3"),
    "bar": ("--disable_tqdm", "false"),
    "spaces in JSON": ("--augmentation", '{"flip":0.5}'),
}


def _without_recipe(newest: Path) -> None:
    for checkpoint in (newest, newest.with_name(BEFORE)):
        as_earlier_version(checkpoint)
        (checkpoint / "training_recipe.json").unlink()


def _of_two_processes(newest: Path) -> None:
    for checkpoint in (newest, newest.with_name(BEFORE)):
        as_earlier_version(checkpoint)
        recipe = checkpoint / "training_recipe.json"
        recipe.write_text(recipe.read_text().replace('"num_processes": 1', '"num_processes": 2'))
        for process in (0, 1):
            shutil.copyfile(checkpoint / "rng_state.pth", checkpoint / f"rng_state_{process}.pth")
        (checkpoint / "rng_state.pth").unlink()


def _other_data(folder: Path) -> Killed:
    """The same run, and one picture less to train on."""
    killed = killed_run(folder)
    recipe = killed.recipe.read_text()
    faces = Path(recipe.split('"data": "')[1].split('"')[0])
    shutil.copytree(faces, folder / "faces")
    min((folder / "faces/train/happy").iterdir()).unlink()
    killed.recipe.write_text(recipe.replace(str(faces), str(folder / "faces")))
    return killed


def _ends_with_the_best(bench: Bench, killed: Killed) -> Said:
    """Whose score no later epoch reaches: it is made one."""
    state = killed.newest / "trainer_state.json"
    content = json.loads(state.read_text())
    for row in content["log_history"]:
        if "eval_auroc" in row:
            row["eval_auroc"] = 1.0 if row["step"] == 2 else 0.0
    state.write_text(json.dumps(content))
    said = killed.train(bench, *TRUE)
    exported, best = (
        load_file(folder / "model.safetensors")
        for folder in (killed.run_dir / "expression", killed.checkpoints / BEFORE)
    )
    assert all(torch.equal(exported[name], best[name]) for name in best), said
    return said


_RESUMING = [
    *(
        Row(
            f"resumed with other {name}",
            killed_run,
            lambda bench, killed, option=option, value=value: killed.train(bench, *TRUE, option, value),
            Refused((words, NEWEST, "--output_dir")),
            kind=39,
        )
        for name, (option, value, words) in _OTHER.items()
    ),
    *(
        Row(
            f"resumed with other {name}, which may change",
            killed_run,
            lambda bench, killed, options=options: killed.chosen(
                **{key.removeprefix("--"): value for key, value in zip(options[::2], options[1::2], strict=True)}
            ),
            Comes(that=lambda chosen: chosen == NEWEST),
            kind=39,
        )
        for name, options in _FREE.items()
    ),
    Row(
        "resumed with other data",
        _other_data,
        lambda bench, killed: killed.train(bench, *TRUE, "--cache_dir", str(killed.run_dir.parent / "cache")),
        Refused(("data with fingerprint", NEWEST)),
        kind=39,
    ),
    Row(
        "begun before recipes lay in checkpoints",
        lambda folder: killed_run(folder, _without_recipe),
        lambda bench, killed: killed.train(bench, *TRUE),
        Refused((NEWEST, "an earlier version", "--resume_from_checkpoint")),
        kind=39,
    ),
    Row(
        "begun before recipes lay in checkpoints, and named",
        lambda folder: killed_run(folder, _without_recipe),
        lambda bench, killed: resumed_as_straight(bench, killed, "--resume_from_checkpoint", str(killed.newest)),
        Comes(says=("does not record the options",)),
        kind=39,
    ),
    Row(
        "resumed from the checkpoint that is named",
        killed_run,
        lambda bench, killed: killed.chosen(str(killed.checkpoints / BEFORE)),
        Comes(that=lambda chosen: chosen == BEFORE),
        kind=39,
    ),
    Row(
        "named checkpoint is none",
        killed_run,
        lambda bench, killed: killed.train(bench, "--resume_from_checkpoint", str(killed.checkpoints)),
        Refused(("resume_from_checkpoint", "is not a checkpoint", "such as")),
        kind=39,
    ),
    Row(
        "named checkpoint is broken",
        lambda folder: killed_run(folder, cut("optimizer.pt")),
        lambda bench, killed: killed.train(bench, "--resume_from_checkpoint", str(killed.newest)),
        Refused((NEWEST, "optimizer.pt", "pass a different")),
        kind=40,
    ),
    Row(
        "resumed by fewer processes",
        lambda folder: killed_run(folder, _of_two_processes),
        lambda bench, killed: killed.train(bench, *TRUE),
        Refused(("num_processes 2, got 1", NEWEST)),
        kind=39,
    ),
    Row(
        "false begins anew",
        killed_run,
        lambda bench, killed: killed.chosen("False"),
        Comes(that=lambda chosen: chosen == "none"),
        kind=39,
    ),
    Row(
        "a run's folder that was moved ends with its best",
        lambda folder: killed_run(folder, best_elsewhere),
        _ends_with_the_best,
        Comes(says=("see ",)),
        kind=39,
    ),
]  # fmt: skip

ROWS = [*_CHECKPOINTS, *_RESUMING]
