"""Kills trainings at random moments and runs them again: `python killed_trainings.py FOLDER SEED KIND=COUNT...`.

A process that has imported everything forks each training, which saves most of the time. KIND is where the kill falls:
step, save (of a checkpoint), export (of the model) or preparation (with two workers). The last line says how many
moments there were and how many of the reruns ended with the weights and results of a run never killed.
"""

import gc
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

EPOCHS, STEPS = 3, 2


def recipe_of(folder: Path, run: str, cache: str, workers: int = 1) -> dict[str, object]:
    return {
        "encoder": "test_resnet", "image_size": 32, "num_frames": 4, "temporal_hidden_size": 16, "disable_tqdm": True,
        "num_preparation_processes": workers, "cache_dir": str(folder / cache), "num_train_epochs": EPOCHS,
        "per_device_train_batch_size": 8, "learning_rate": 1e-3, "seed": 0, "augmentation": {"flip": 0.5},
        "average_decay": 0.9, "output_dir": str(folder / run), "engagement": {"data": str(folder / "daisee")},
    }  # fmt: skip


def train_in_a_fork(recipe: dict[str, object], before: Callable[[], object]) -> int:
    """What `train.py` ends with; `before` is done in the fork."""
    pid = os.fork()
    if not pid:
        from engagement_recognition.data.preparation import prepare
        from engagement_recognition.train import train
        from engagement_recognition.training.arguments import Recipe

        prepare.CLIPS_PER_PART["video"] = 2
        os.setsid()  # workers die by themselves
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 # until the fork ends
        code = 1
        try:
            before()
            train(Recipe(recipe), {"resume_from_checkpoint": "true"})
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def kill_later(seconds: float) -> None:
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()


def killing(kind: str, rng: random.Random) -> Callable[[], object]:
    """What makes a training kill itself at a random moment of that kind."""
    if kind == "preparation":
        seconds = rng.uniform(0.1, 12)
        return lambda: kill_later(seconds)
    place, seconds = rng.randrange(EPOCHS * STEPS if kind == "step" else EPOCHS), rng.uniform(0, 0.12)

    def patch() -> None:
        from engagement_recognition import train
        from engagement_recognition.training.trainer import EngagementTrainer

        names = {"step": "training_step", "save": "_save_checkpoint", "export": "export_model"}
        owner = train if kind == "export" else EngagementTrainer
        work, calls = getattr(owner, names[kind]), []

        def wrapped(*arguments: object, **more: object) -> object:
            calls.append(kind)
            if kind == "export" or len(calls) == place + 1:
                kill_later(seconds)
            return work(*arguments, **more)

        setattr(owner, names[kind], wrapped)

    return patch


def ended_as(run: Path, calm: Path) -> bool:
    """Whether weights are equal to the byte, and all that was measured."""
    weights = [(folder / "engagement/model.safetensors").read_bytes() for folder in (run, calm)]
    results = [json.loads((folder / "engagement/results.json").read_text()) for folder in (run, calm)]
    logs = [[{**row, "eval_runtime": 0} for row in found["training"]["log"] if "eval_loss" in row] for found in results]
    numbers = [[{k: v for k, v in row.items() if not k.endswith("_per_second")} for row in log] for log in logs]
    same_results = results[0]["measurements"] == results[1]["measurements"] and results[0]["data"] == results[1]["data"]
    return weights[0] == weights[1] and same_results and numbers[0] == numbers[1]


def main() -> None:
    folder, rng = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
    kinds = [kind for word in sys.argv[3:] for kind in [word.partition("=")[0]] * int(word.partition("=")[2])]
    import engagement_recognition.train
    from engagement_recognition.data.drawn.datasets import write_daisee
    from engagement_recognition.hub import export_folder

    assert engagement_recognition.train
    export_folder.save_figures = lambda folder, results: []  # half of a training's time, and not what is compared
    gc.collect()
    gc.freeze()  # nor does each fork look through what was imported
    if not (folder / "daisee").exists():
        write_daisee(
            folder / "daisee", 5, 3, seed=0, fps=4, duration_sec=2.0, width_px=320, height_px=240, processes=1,
            show_progress=False,
        )  # fmt: skip
    assert train_in_a_fork(recipe_of(folder, "calm", "cache"), lambda: None) == 0
    num_killed = num_equal = 0
    for number, kind in enumerate(kinds):
        prepares = kind == "preparation"  # each worker imports everything, which takes longer than a training
        cache, workers = (f"cache{number}", 2) if prepares else ("cache", 1)
        recipe, began = recipe_of(folder, f"run{number}", cache, workers), time.monotonic()
        ended = train_in_a_fork(recipe, killing(kind, rng))
        was_killed = os.WIFSIGNALED(ended) and os.WTERMSIG(ended) == signal.SIGKILL
        again = train_in_a_fork(recipe, lambda: None)
        is_equal = again == 0 and ended_as(folder / f"run{number}", folder / "calm")
        num_killed, num_equal = num_killed + was_killed, num_equal + is_equal
        print(f"{number} {kind}: killed {was_killed}, equal {is_equal}, {time.monotonic() - began:.1f} s", flush=True)
    print(f"moments {len(kinds)}, killed {num_killed}, equal {num_equal}")


if __name__ == "__main__":
    main()
