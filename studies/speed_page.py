"""docs/performance.md and its picture, generated from the measurements of `engagement benchmark`."""

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..data.atomic_files import write_whole, writing
from ..data.json_records import write_record
from ..evaluation.markdown import markdown_table
from .speed_record import SPEED_FILE, Group, Ratio, SpeedRecord, Warm

_STAGES = ("decode", "faces", "crops", "model")
# Okabe and Ito's, which colour-blind readers can distinguish.
_COLOURS = ("#56B4E9", "#009E73", "#E69F00", "#0072B2")


def render_performance(record: SpeedRecord, picture: str) -> str:
    """The page, in Markdown; `picture`: address relative to the page."""
    return "\n\n".join(_parts(record, picture)) + "\n"


def _parts(record: SpeedRecord, picture: str) -> Iterator[str]:
    yield "# How fast it is"
    yield textwrap.fill(
        "Generated from `benchmark.json` by `make readme`; `engagement benchmark --output FOLDER` measures all of it "
        "on your machine in one run. All times are on the CPU; nothing was measured on a GPU. They are medians of "
        f"{record.rounds} rounds, in each of which every row is timed once; compare them within a table, and trust "
        'ratios more than milliseconds. "Plain" is a straightforward script: decode every frame, MTCNN with its '
        "defaults on each sampled frame, the model as loaded. Its boxes differ slightly from this package's, so that "
        "a close decision may give a different label. Stages are timed in separate runs, so that their sum may differ "
        "from the whole, and one may even take longer. Unless `--model` names others, the two models have randomly "
        "initialised weights: they take the time of trained ones, but their labels mean nothing, and neither does the "
        "check that int8 gives the same ones.",
        120, break_on_hyphens=False,
    )  # fmt: skip
    yield "\n".join(f"- {name}: {value}" for name, value in record.environment.items())
    if record.warm:
        yield f"![Milliseconds by stage and way]({picture})"
    for warm in record.warm:
        yield f"## From a file to its label, warm: {warm.model}"
        yield _warm_table(warm)
        yield _floor_text(warm)
    rows = [[one.name, f"{one.seconds:.2f}", f"{one.peak_mb:.0f}", f"{one.ratio:.2f}"] for one in record.cold]
    yield from _section("From the start of a process to its label", ("way", "seconds", "peak MB", "plain / this"), rows)
    rows = [
        [one.engine, str(one.workers), str(one.batch_size), str(one.clips), f"{one.clips_per_sec:.2f}",
         f"{one.peak_mb:.0f}"]
        for one in record.batches
    ]  # fmt: skip
    yield from _section("Many clips", ("engine", "workers", "batch", "clips", "clips per second", "peak MB"), rows)
    if record.batches:
        best = max(record.batches, key=lambda batch: batch.clips_per_sec)
        yield f"Fastest here: `--workers {best.workers} --batch-size {best.batch_size}`."
    yield from _section("Decoding", _RATIO_COLUMNS, [_ratio_row(record.decode)])
    names = _names_of(record.faces)
    rows = [[group.name, *(_value(group, name) for name in names)] for group in record.faces]
    yield from _section("Faces", ("of", *names), rows)
    if record.training:
        columns = ("what", *(_TRAINED.get(group.name, group.name) for group in record.training))
        rows = [
            [_STEPS.get(name, name.replace("_", " ")), *(_value(group, name) for group in record.training)]
            for name in _names_of(record.training)
        ]
        yield from _section("Training", columns, rows)
        yield "A step is forward, backward and optimizer for 8 clips of eight frames."
    missing = [f"- {name}: {why}" for name, why in record.not_measured.items()]
    missing += [f"- {warm.model}, {name}: {why}" for warm in record.warm for name, why in warm.not_measured.items()]
    if missing:
        yield "## Not measured"
        yield "\n".join(missing)


_RATIO_COLUMNS = ("what", "all, ms", "only those, ms", "ratio")
_TRAINED = {
    "resnet18_224": "resnet18 + lstm, 224 px",
    "demo": "face_vgg8_050 + lstm, 48 px",
    "beside_a_busy_process": "the latter, beside a process that occupies a core",
}
# By the names of `training_speed`.
_STEPS = {
    "load_ms": "loading a batch: decoding and augmenting crops, ms",
    "contiguous_ms": "step, all weights trained, torch's default memory layout, ms",
    "channels_last_ms": "step, all weights trained, `--channels_last true`, ms",
    "bf16_ms": "the same with `--bf16 true`, ms",
    "frozen_ms": "loading and step, encoder frozen but computed anew in each step, ms",
    "kept_ms": "loading and step, encoder frozen and its features computed once (`--freeze_encoder true`), ms",
    "channels_last_ratio": "default layout / channels last",
    "bf16_ratio": "default layout / bf16",
    "loading_share": "share of loading in loading and the fastest step with all weights trained",
    "kept_ratio": "features computed anew / computed once",
    "all_threads_ms": "step with all threads, ms",
    "free_cores_ms": "step with one thread less, ms",
    "ratio": "all threads / one less",
}


def _names_of(groups: Sequence[Group]) -> list[str]:
    """Of all their values, in order."""
    return list(dict.fromkeys(name for group in groups for name in group.values))


def _value(group: Group, name: str) -> str:
    return f"{group.values[name]:.4g}" if name in group.values else ""


def _ratio_row(ratio: Ratio) -> list[str]:
    return [ratio.name, f"{ratio.before_ms:.2f}", f"{ratio.after_ms:.2f}", f"{ratio.ratio:.2f}"]


def _section(title: str, columns: tuple[str, ...], rows: "Iterator[list[str]] | list[list[str]]") -> Iterator[str]:
    if found := list(rows):
        yield f"## {title}"
        yield markdown_table(columns, found)


def _warm_table(warm: Warm) -> str:
    columns = ("way", "ms, whole", *(f"{stage}, ms" for stage in _STAGES), "plain / this", "label")
    rows = [
        [
            f"{way.name} ({way.dtype})" if way.dtype not in way.name else way.name,
            f"{way.whole_ms:.0f}",
            *(f"{way.stages_ms[stage]:.0f}" if way.stages_ms else "" for stage in _STAGES),
            f"{way.ratio:.2f}",
            "as plain" if way.same_label else "different",
        ]
        for way in warm.ways
    ]
    return markdown_table(columns, rows)


def _floor_text(warm: Warm) -> str:
    floor = warm.floor
    return (
        f"Lower limits: decoding only the sampled frames takes {floor.decode_ms:.0f} ms, and {floor.gflop:.1f} GFLOP "
        f"of arithmetic take {floor.arithmetic_ms:.0f} ms at the {floor.gflop_per_sec:.0f} GFLOP/s that a large "
        "float32 matrix product reaches here. Convolutions with fewer multiplications (Winograd's) and int8 can be "
        "faster than the latter."
    )


def save_speed_figure(record: SpeedRecord, path: Path) -> None:
    """One bar per way and model, with stacked stages; PNG. Raises DataError where it cannot be written."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.2 + 0.38 * sum(len(warm.ways) + 1 for warm in record.warm)), layout="constrained")
    panels = figure.subplots(len(record.warm), 1, squeeze=False)[:, 0]
    for axes, warm in zip(panels, record.warm, strict=True):
        for place, way in enumerate(reversed(warm.ways)):
            left = 0.0
            for stage, colour in zip(_STAGES, _COLOURS, strict=True):
                width = way.stages_ms.get(stage, 0.0)
                axes.barh(place, width, left=left, color=colour, label=stage if place == 0 else None)
                left += width
            rest = max(way.whole_ms - left, 0.0)
            name = "the rest, or not separated" if place == 0 else None
            axes.barh(place, rest, left=left, color="0.75", label=name)
            axes.annotate(f" {way.whole_ms:.0f} ms", (max(left + rest, left), place), va="center", fontsize=9)
        axes.set_yticks(range(len(warm.ways)), [way.name for way in reversed(warm.ways)])
        axes.set_title(warm.model, loc="left", fontsize=10)
        axes.set_xlim(0, 1.12 * max(way.whole_ms for way in warm.ways))
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("milliseconds from file to label, warm")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=5, fontsize=8, loc="outside upper right", frameon=False)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=160)


def write_speed(record: SpeedRecord, folder: Path) -> list[Path]:
    """`benchmark.json`, and the page and picture generated from it; raises DataError where they cannot be written."""
    data, picture, page = (folder / name for name in (SPEED_FILE, "benchmark.png", "performance.md"))
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_record(data, record)
    write_whole(page, render_performance(record, picture.name))
    if not record.warm:  # the picture shows only this part
        return [data, page]
    save_speed_figure(record, picture)
    return [data, picture, page]
