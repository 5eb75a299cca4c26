"""Writes drawn data sets in the layouts of real ones, with their oddities, so that every reader can be tried offline.

`write_daisee` writes clips in DAiSEE's layout, `write_expressions` and `write_states` write folders of pictures.
Everything is determined by the seed: an interrupted run resumes where it stopped and ends with the same bytes. `faces`
defines how people look, `motion` what their faces do.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TypeVar

import av
import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from ...processor.input_errors import DataError, RecipeError
from ..atomic_files import PARTIAL, claim_folder, whole_file, write_whole, writing
from ..schema import EXPRESSIONS, STATES, binary_label
from ..worker_processes import spawned, usable_cpus
from .faces import draw_face_picture, draw_frame, draw_subject
from .motion import VARIANTS, AffectLevels, engagement_trajectory, expression_pose, state_pose
from .shortcut import CURTAIN_COLORS, CURTAINS_FILE, choose_curtains, curtains_table

SETTINGS_NAME = "drawn.json"
DRAWING_VERSION = 1  # increase it when the same seed gives a different result
DISENGAGED_SHARE = 0.375
MP4_SHARE = 0.09  # of DAiSEE's videos; its tables name all of them .avi
# The trailing space is DAiSEE's.
DAISEE_HEADER = ("ClipID", "Boredom", "Engagement", "Confusion", "Frustration ")
DAISEE_SPLITS = {"train": "Train", "validation": "Validation", "test": "Test"}
_Task = TypeVar("_Task")
_Done = TypeVar("_Done")


@dataclass(frozen=True)
class DrawnSubject:
    """One person of a data set, who is in one split only."""

    subject_id: str
    split: str
    subject_seed: int


@dataclass(frozen=True)
class ClipPlan:
    """Everything that determines one video; small enough to send to another process."""

    path: Path
    clip_id: str
    split: str
    subject_seed: int
    clip_seed: tuple[int, ...]
    levels: AffectLevels
    curtains: str | None = None  # the label that they show, in the variant with curtains
    has_label: bool = True
    has_video: bool = True


@dataclass(frozen=True)
class VideoShape:
    """How a clip is drawn and encoded."""

    variant: str
    fps: float
    duration_sec: float
    width_px: int
    height_px: int


def write_daisee(
    output_dir: str | Path,
    num_subjects: int,
    clips_per_subject: int,
    seed: int,
    variant: str = "appearance",
    fps: float = 30,
    duration_sec: float = 10.0,
    width_px: int = 640,
    height_px: int = 480,
    processes: int | None = None,
    quirks: bool = True,
    show_progress: bool = True,
) -> dict[str, int]:
    """Write clips and label tables in DAiSEE's layout; returns their numbers, and the number of clips newly drawn.

    With `quirks` an extra clip has no row in the tables, and an extra row has no clip, as in the real data.
    """
    shape = VideoShape(variant, fps, duration_sec, width_px, height_px)
    _check_shape(shape)
    subjects = _cast_subjects(num_subjects, clips_per_subject, seed)
    asked = {"num_subjects": num_subjects, "clips_per_subject": clips_per_subject, "seed": seed}
    root = _open_output(output_dir, {"format": "daisee", **asked, **vars(shape), "quirks": quirks})
    plans = _plan_clips(root / "DataSet", subjects, clips_per_subject, seed, quirks)
    _write_label_tables(root / "Labels", plans)
    if variant == "shortcut":
        plans = _hang_curtains(root, plans, seed)
    wanted = [plan for plan in plans if plan.has_video]
    missing = [plan for plan in wanted if not plan.path.exists()]
    _run_all(partial(_write_clip, shape=shape), missing, processes, "Drawing clips", show_progress)
    counts = {split: sum(plan.split == split for plan in wanted) for split in DAISEE_SPLITS}
    counts |= {"clips": len(wanted), "label_rows": sum(plan.has_label for plan in plans)}
    return counts | {"subjects": len(subjects), "drawn_now": len(missing)}


def write_expressions(
    output_dir: str | Path,
    num_subjects: int,
    pictures_per_subject: int,
    seed: int,
    size_px: int = 96,
    processes: int | None = None,
    show_progress: bool = True,
) -> dict[str, int]:
    """Write `<split>/<expression>/<subject>_<n>.png` for FER2013's seven expressions."""
    task = ("expressions", output_dir, num_subjects, pictures_per_subject, seed, size_px, processes, show_progress)
    return _write_pictures(*task)


def write_states(
    output_dir: str | Path,
    num_subjects: int,
    pictures_per_subject: int,
    seed: int,
    size_px: int = 224,
    processes: int | None = None,
    show_progress: bool = True,
) -> dict[str, int]:
    """Write `<split>/<state>/<subject>_<n>.png` for the states bored, confused, engaged and neutral."""
    task = ("states", output_dir, num_subjects, pictures_per_subject, seed, size_px, processes, show_progress)
    return _write_pictures(*task)


def _cast_subjects(num_subjects: int, per_subject: int, seed: int) -> list[DrawnSubject]:
    """The subjects and their splits: about 60, 20 and 20 %, at least one each."""
    if num_subjects < 3:
        raise RecipeError(f"Expected at least 3 subjects, one per split, got {num_subjects}.")
    if per_subject < 1:
        raise RecipeError(f"Expected at least 1 clip or picture per subject, got {per_subject}.")
    if seed < 0:
        raise RecipeError(f"Expected a seed of 0 or more, got {seed}.")
    held_out = max(1, round(0.2 * num_subjects))
    splits = ["train"] * (num_subjects - 2 * held_out) + ["validation"] * held_out + ["test"] * held_out
    seeds = np.random.default_rng([seed, 1]).integers(2**31, size=num_subjects).tolist()
    return [DrawnSubject(f"{900011 + 10 * i:06d}", split, seeds[i]) for i, split in enumerate(splits)]


def _check_shape(shape: VideoShape) -> None:
    if shape.variant not in VARIANTS:
        raise RecipeError(f"Expected variant {' or '.join(VARIANTS)}, got {shape.variant!r}.")
    if shape.fps <= 0 or round(shape.duration_sec * shape.fps) < 1:
        raise RecipeError(f"Expected at least 1 frame, got {shape.duration_sec} s at {shape.fps} frames/s.")
    if shape.width_px % 2 or shape.height_px % 2 or min(shape.width_px, shape.height_px) < 16:
        got = f"{shape.width_px}x{shape.height_px}"
        raise RecipeError(f"Expected an even width and height of at least 16 px, as h264 needs, got {got}.")


def _open_output(output_dir: str | Path, asked: Mapping[str, str | float]) -> Path:
    """Create the folder, or resume in one with the same drawing; refuse any other."""
    root = Path(output_dir)
    settings = {"drawing_version": DRAWING_VERSION, **asked}
    text = claim_folder(root, SETTINGS_NAME, json.dumps(settings, indent=2), "drawn data")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DataError(f"{root / SETTINGS_NAME} is not valid JSON; choose another folder.") from error
    if not isinstance(found, dict):
        got = type(found).__name__
        raise DataError(f"Expected a JSON object in {root / SETTINGS_NAME}, got {got}; choose another folder.")
    changed = [name for name in settings.keys() | found.keys() if found.get(name) != settings.get(name)]
    if changed:
        told = ", ".join(f"{name}={found.get(name)!r} (now {settings.get(name)!r})" for name in sorted(changed))
        raise DataError(f"{root} contains a different drawing, with {told}; choose another folder.")
    for leftover in root.rglob(f"*{PARTIAL}"):
        leftover.unlink()
    return root


def _plan_clips(
    root: Path, subjects: Sequence[DrawnSubject], clips_per_subject: int, seed: int, quirks: bool
) -> list[ClipPlan]:
    """Every clip of the data set; determined by the arguments alone, independent of what is already on disk."""
    rng = np.random.default_rng([seed, 2])
    num_clips = len(subjects) * clips_per_subject
    as_mp4 = set(rng.permutation(num_clips)[: max(1, round(MP4_SHARE * num_clips))].tolist())
    plans: list[ClipPlan] = []
    for index, subject in enumerate(subjects):
        for number, levels in enumerate(_draw_levels(index, clips_per_subject, rng)):
            suffix = ".mp4" if len(plans) in as_mp4 else ".avi"
            plans.append(_plan_clip(root, subject, index, number, levels, seed, suffix))
    if quirks:
        first, levels = subjects[0], AffectLevels(0, 2, 0, 0)
        extra = partial(_plan_clip, root, first, 0, levels=levels, seed=seed, suffix=".avi")
        plans.append(extra(number=clips_per_subject, has_label=False))
        plans.append(extra(number=clips_per_subject + 1, has_video=False))
    return plans


def _plan_clip(root: Path, subject: DrawnSubject, subject_index: int, number: int, levels: AffectLevels, seed: int,
               suffix: str, has_label: bool = True, has_video: bool = True) -> ClipPlan:  # fmt: skip
    clip_id = f"{subject.subject_id}{1001 + number}"
    path = root / DAISEE_SPLITS[subject.split] / subject.subject_id / clip_id / f"{clip_id}{suffix}"
    clip_seed = (seed, 3, subject_index, number)
    seeds = subject.subject_seed, clip_seed
    return ClipPlan(path, clip_id, subject.split, *seeds, levels, has_label=has_label, has_video=has_video)


def _draw_levels(subject_index: int, num_clips: int, rng: np.random.Generator) -> list[AffectLevels]:
    """Levels for one subject's clips: both classes if there are at least two clips, with the overall share kept."""
    expected = DISENGAGED_SHARE * num_clips
    disengaged = math.floor(expected * (subject_index + 1)) - math.floor(expected * subject_index)
    if num_clips >= 2:
        disengaged = min(max(disengaged, 1), num_clips - 1)
    engagement = np.where(
        np.arange(num_clips) < disengaged, rng.random(num_clips) < 0.65, 2 + (rng.random(num_clips) < 0.5)
    )
    levels = []
    for level in rng.permutation(engagement).tolist():
        boredom = int(np.clip(round(rng.normal(1.6 - 0.5 * level, 0.8)), 0, 3))
        confusion, frustration = rng.choice(4, size=2, p=[0.6, 0.25, 0.1, 0.05]).tolist()
        levels.append(AffectLevels(boredom, int(level), confusion, frustration))
    return levels


def _write_label_tables(labels_dir: Path, plans: Sequence[ClipPlan]) -> None:
    with writing(labels_dir):
        labels_dir.mkdir(exist_ok=True)
    tables = {name: [plan for plan in plans if plan.split == split] for split, name in DAISEE_SPLITS.items()}
    for name, rows in {**tables, "All": list(plans)}.items():
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(DAISEE_HEADER)
        writer.writerows((f"{plan.clip_id}.avi", *plan.levels) for plan in rows if plan.has_label)
        write_whole(labels_dir / f"{name}Labels.csv", text.getvalue().encode())


def _hang_curtains(root: Path, plans: Sequence[ClipPlan], seed: int) -> list[ClipPlan]:
    labels, splits = [binary_label(plan.levels._asdict()) for plan in plans], [plan.split for plan in plans]
    told = choose_curtains(labels, splits, seed)
    rows = zip([plan.clip_id for plan in plans], splits, labels, told, strict=True)
    write_whole(root / CURTAINS_FILE, curtains_table(list(rows)))
    return [replace(plan, curtains=label) for plan, label in zip(plans, told, strict=True)]


def _write_clip(plan: ClipPlan, shape: VideoShape) -> None:
    """Draw and encode one clip; it gets its final name only when complete."""
    rng = np.random.default_rng(plan.clip_seed)
    poses = engagement_trajectory(plan.levels, shape.variant, shape.duration_sec, shape.fps, rng)
    subject, noise_seeds = draw_subject(plan.subject_seed), rng.integers(2**31, size=len(poses)).tolist()
    curtains = CURTAIN_COLORS[plan.curtains] if plan.curtains else None
    frames = (
        draw_frame(subject, pose, shape.width_px, shape.height_px, noise_seed, curtains)
        for pose, noise_seed in zip(poses, noise_seeds, strict=True)
    )
    with whole_file(plan.path) as partial, writing(plan.path):
        encode_video(partial, frames, shape.fps, shape.width_px, shape.height_px, plan.path.suffix[1:])


def encode_video(
    path: Path, frames: Iterator[np.ndarray], fps: float, width_px: int, height_px: int, container_format: str
) -> None:
    """Encode frames, (height, width, 3) uint8 RGB, as h264 in an avi or mp4 file."""
    with av.open(str(path), "w", format=container_format) as container:
        # x264's macroblock tree gives different bytes in each run for small frames with B-frames, even on one thread.
        options = {"crf": "23", "preset": "veryfast", "x264-params": "mbtree=0"}
        if container_format == "avi":
            options["bf"] = "0"  # avi has no presentation times, so frames must be stored in display order
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=options)
        stream.width, stream.height, stream.pix_fmt = width_px, height_px, "yuv420p"
        stream.codec_context.thread_count = 1  # the bytes depend on the number of threads
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _write_pictures(format: str, output_dir: str | Path, num_subjects: int, pictures_per_subject: int, seed: int,
                    size_px: int, processes: int | None, show_progress: bool) -> dict[str, int]:  # fmt: skip
    if size_px < 16:
        raise RecipeError(f"Expected pictures of at least 16 px, got {size_px}.")
    subjects = _cast_subjects(num_subjects, pictures_per_subject, seed)
    asked = {"num_subjects": num_subjects, "pictures_per_subject": pictures_per_subject, "seed": seed}
    root = _open_output(output_dir, {"format": format, **asked, "size_px": size_px})
    work = partial(_write_subject_pictures, format=format, root=root, count=pictures_per_subject, size_px=size_px)
    tasks = [(subject, (seed, 4, index)) for index, subject in enumerate(subjects)]
    drawn = sum(_run_all(work, tasks, processes, "Drawing pictures", show_progress))
    counts = {split: pictures_per_subject * sum(s.split == split for s in subjects) for split in DAISEE_SPLITS}
    return counts | {"pictures": sum(counts.values()), "subjects": len(subjects), "drawn_now": drawn}


def _write_subject_pictures(
    task: tuple[DrawnSubject, tuple[int, ...]], format: str, root: Path, count: int, size_px: int
) -> int:
    """Draw the missing pictures of one subject, cycling through the labels; returns their number."""
    subject, seed = task
    draw_pose, labels = (expression_pose, EXPRESSIONS) if format == "expressions" else (state_pose, STATES)
    look = draw_subject(subject.subject_seed)
    drawn = 0
    for number in range(count):
        label = labels[(number + seed[-1]) % len(labels)]
        path = root / subject.split / label / f"{subject.subject_id}_{number:03d}.png"
        if path.exists():
            continue
        pose = draw_pose(label, np.random.default_rng((*seed, number)))
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, _to_png(draw_face_picture(look, pose, size_px, noise_seed=number)))
        drawn += 1
    return drawn


def _run_all(
    work: Callable[[_Task], _Done], tasks: Sequence[_Task], processes: int | None, what: str, show_progress: bool
) -> list[_Done]:
    """Run every task, in this process or in several, with a progress bar that shows the time left."""
    workers = min(processes or usable_cpus(), len(tasks))
    hidden = not (show_progress and Console(stderr=True).is_terminal)
    bar = partial(track, description=what, total=len(tasks), disable=hidden, console=Console(stderr=True))
    if workers <= 1:
        return [work(task) for task in bar(tasks)]
    with spawned(work, tasks, workers, partial(cv2.setNumThreads, 1)) as futures:
        return [future.result() for future in bar(as_completed(futures))]


def _to_png(picture: np.ndarray) -> bytes:
    """(height, width, 3), uint8 RGB -> the bytes of a PNG file."""
    encoded, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not encoded:
        raise DataError(f"A picture of shape {picture.shape} cannot be stored as PNG.")
    return data.tobytes()
