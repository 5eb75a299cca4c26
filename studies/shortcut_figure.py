"""The shortcut experiment as one figure: heat maps of both models on the same test clips, and the scores.

Heat is drawn as in `explanation.heat_map_figure`, over grey pictures in their own proportions, with one scale per clip;
the clips themselves are in colour, since the curtains' colour is the shortcut. The last frame of each clip is shown,
which has the most influence on an LSTM. The same input gives the same bytes. matplotlib is imported late, and only as
objects.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.atomic_files import writing
from ..explanation.explain_files import ExplainedClip
from ..explanation.heat_map_figure import add_heat_scale, box_outline, draw_frame_heat
from ..processor.face_cropping import map_points
from .shortcut_records import Example, ShortcutRecord, ShortcutRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

# Okabe and Ito's colours, which colour-blind readers can distinguish; shapes differ as well.
_STYLES = (("#0072B2", "s"), ("#D55E00", "o"))
_GREY = "0.35"
_TEXT_PT, _SMALL_TEXT_PT = 12, 10
_PNG_DPI = 200
_PICTURE_INCHES, _PANEL_INCHES = 1.95, 4.6  # the width of a clip's column, and of the panel of scores
_GROUPS = ("macro-F1,\nvalidation", "macro-F1,\ntest", "face focus,\ntest")


def save_shortcut_figure(
    record: ShortcutRecord, names: Mapping[str, str], examples: Sequence[Example], path: Path
) -> None:
    """Write the figure as PNG.

    Args:
        record: the content of `shortcut.json`.
        names: the recipes' names in the record → as shown; whole frames come first.

    Raises:
        DataError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_PICTURE_INCHES * len(examples) + _PANEL_INCHES + 1.3, 6.6), layout="constrained")
    widths = [_PICTURE_INCHES * len(examples) + 1.3, _PANEL_INCHES]
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=widths, wspace=0.03)[0]
    _draw_examples(left, examples, names)
    _draw_scores(right.subplots(), record, names)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=_PNG_DPI)


def _draw_examples(figure: "SubFigure", examples: Sequence[Example], names: Mapping[str, str]) -> None:
    """One column per clip: the clip with the crop's outline, then the heat of each model."""
    grid = figure.subplots(1 + len(names), len(examples), squeeze=False)
    for axes in grid.ravel():
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for column, example in zip(grid.T, examples, strict=True):
        whole = example.explained[next(iter(names))]
        last = len(whole.pictures) - 1
        column[0].imshow(whole.pictures[last])
        for clip in example.explained.values():
            if clip.transforms is not None:
                height, width = clip.pictures.shape[1:3]
                outline = map_points(box_outline((0, 0, width, height)), clip.transforms[last])
                column[0].plot(*outline.T, color="white", linewidth=1.4, linestyle="--")
        column[0].set_title(f"truth: {example.label}\ncurtains: {example.curtains}", fontsize=_SMALL_TEXT_PT)
        for axes, name in zip(column[1:], names, strict=True):
            clip = example.explained[name]
            draw_frame_heat(axes, clip, last)
            axes.set_title(_verdict(clip, example.label), fontsize=_SMALL_TEXT_PT)
    for axes, title in zip(grid[:, 0], ["test clip", *names.values()], strict=True):
        axes.set_ylabel(title, fontsize=_TEXT_PT)
    add_heat_scale(figure, grid[1:].ravel())
    figure.suptitle(
        "Evidence for the predicted label (Grad-CAM; blue: face box, dashed: outline of the crop)", fontsize=_TEXT_PT
    )


def _verdict(clip: ExplainedClip, label: str) -> str:
    """For the whole clip, like the share of heat."""
    said = clip.explanation.label  # the predicted one, as no label was requested
    outcome = "right" if said == label else "wrong"
    share = clip.face.focus.clip["face"]["heat_share"] if clip.face else None
    on_face = "" if share is None else f"\nheat on the face {100 * share:.0f} %"
    return f"{outcome}: {said} {clip.explanation.scores[said]:.2f}{on_face}"


def _draw_scores(axes: "Axes", record: ShortcutRecord, names: Mapping[str, str]) -> None:
    """One point per seed with its interval over people, the recipes side by side."""
    for place, (name, style) in enumerate(zip(names, _STYLES, strict=True)):
        runs = [run for run in record.runs if run.recipe == name]
        for turn, run in enumerate(runs):
            aside = (0.42 * place - 0.21) + 0.1 * (turn - (len(runs) - 1) / 2)
            _draw_run(axes, run, aside, style, names[name] if turn == 0 else None)
    alone = [record.curtains_alone.validation, record.curtains_alone.test]
    for values, marker, label in ((alone, "x", "only curtains' colour"), ([], "_", "evenly spread heat")):
        axes.plot(
            range(len(values)), values, marker, color=_GREY, markersize=9, markeredgewidth=1.8, linestyle="",
            label=label,
        )  # fmt: skip
    axes.set_xticks(range(len(_GROUPS)), _GROUPS)
    axes.set(xlim=(-0.5, len(_GROUPS) - 0.5), ylim=(0, 1.02))
    axes.set_title("One point per seed, 95 % interval over people", fontsize=_TEXT_PT)
    axes.tick_params(labelsize=_SMALL_TEXT_PT + 1)
    axes.grid(axis="y", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, frameon=False, fontsize=_SMALL_TEXT_PT)


def _draw_run(axes: "Axes", run: ShortcutRun, aside: float, style: tuple[str, str], label: str | None) -> None:
    color, marker = style
    scores, face = run.macro_f1, run.face_focus.face
    points = [(scores.validation, None), (scores.test, scores.test_interval), (face.mean, face)]
    for place, (value, bounds) in enumerate(points):
        if value is None:
            continue
        if bounds is not None and bounds.lower is not None and bounds.upper is not None:
            axes.vlines(place + aside, bounds.lower, bounds.upper, color=color, linewidth=1.4)
        axes.plot(
            place + aside, value, marker, color=color, markersize=8, markeredgecolor="white", linestyle="", label=label
        )
        label = None
    if face.chance is not None:
        axes.plot(2 + aside, face.chance, "_", color=_GREY, markersize=9, markeredgewidth=1.8)
