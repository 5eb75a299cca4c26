"""An explained file as a figure: its frames in rows with the heat over each, and the face focus in numbers.

Pictures are grey, so that colour only means heat; heat has the picture's proportions, so a whole frame's square map is
stretched back. All frames of a clip have one scale, since they share one logit; each face of a photo has its own. The
same input gives the same bytes. matplotlib is imported late, and without pyplot.
"""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import numpy as np

from ..data.atomic_files import writing
from ..evaluation.focus_records import FINE_MAP
from ..evaluation.plotting import shown_name, take_literally
from ..processor.face_cropping import invert_transform, map_points
from ..processor.input_errors import EngagementInputError
from .explain_files import ExplainedClip, Explanation
from .face_focus import REGIONS, FaceFocus

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure, FigureBase

_MAX_WIDTH_INCHES = 12.5
_TEXT_PT, _SMALL_TEXT_PT = 13, 11
_PNG_DPI = 200
_FRAME_INCHES, _FACE_INCHES = 1.45, 2.5  # least widths of a clip's frame (eight in a row) and of a face
_MIN_WIDTH_INCHES = 5.8  # so that there is space for sentences below a single frame
_SCALE_INCHES = 0.9  # the colour bar and its label
_BOX_COLOR = "#56B4E9"  # Okabe and Ito's light blue, not a colour of heat
_METHOD_NAMES = {"gradcam": "Grad-CAM", "hirescam": "HiResCAM"}
_REGION_NAMES = {"face": "face box", "eyes": "eyes and brows", "mouth": "mouth"}


def picture_path(output: Path, source: Path) -> Path:
    """The picture's path for a requested `output`, checked to be writable before anything is computed.

    Raises:
        EngagementInputError: it is a folder, does not end in .png, is the explained file itself, or cannot be written.
    """
    path = output if output.suffix or not output.name else output.with_name(f"{output.name}.png")
    if output.name and path.suffix.lower() != ".png":
        raise EngagementInputError(f"The picture must end in .png, got {output}; rename it.")
    with writing(path):
        if output.is_dir():
            raise EngagementInputError(f"{output} is a folder; name a file in it for the picture.")
        if path.exists() and source.exists() and path.samefile(source):
            raise EngagementInputError(
                f"{path} is the explained file and must not be overwritten; choose another --output."
            )
        if path.exists():
            path.open("ab").close()
        else:
            TemporaryFile(dir=next(folder for folder in path.parents if folder.exists())).close()
    return path


def save_explanation(explanation: Explanation, path: Path, numbers: Sequence[int] | None = None) -> Path:
    """Write the figure as PNG; returns the path.

    Args:
        numbers: as for `draw_explanation`.

    Raises:
        DataError: the file cannot be written.
    """
    figure = draw_explanation(explanation, numbers)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi=_PNG_DPI, bbox_inches="tight")
    return path


def draw_explanation(explanation: Explanation, numbers: Sequence[int] | None = None) -> "Figure":
    """Rows of panels: narrow ones for a clip's frames, wider ones for a photo's faces, which have longer titles.

    Args:
        numbers: the numbers of a photo's faces. Default: 1, 2, ... in their order.
    """
    from matplotlib.figure import Figure

    numbers = range(1, len(explanation.clips) + 1) if numbers is None else numbers
    numbered = zip(numbers, explanation.clips, strict=True)
    panels = [(number, clip, i) for number, clip in numbered for i in range(len(clip.pictures))]
    least_inches = _FRAME_INCHES if len(explanation.clips) == 1 else _FACE_INCHES
    columns = min(len(panels), int(_MAX_WIDTH_INCHES / least_inches))
    panel_inches = float(np.clip(_MIN_WIDTH_INCHES / columns, least_inches, _FACE_INCHES))
    width = max(columns * panel_inches, _MIN_WIDTH_INCHES) + _SCALE_INCHES
    titles = [_wrap(_panel_title(explanation, *panel), panel_inches, _SMALL_TEXT_PT) for panel in panels]
    heading = _wrap(_heading(explanation), width, _TEXT_PT)
    warnings = [f"Take care: {warning}." for warning in explanation.warnings]
    caption = _wrap("\n".join([*_caption(explanation), *warnings]), width, _SMALL_TEXT_PT)
    rows = math.ceil(len(panels) / columns)
    height_px, width_px = explanation.clips[0].pictures.shape[1:3]
    row_inches = panel_inches * height_px / width_px + max(_text_height(title, _SMALL_TEXT_PT) for title in titles)
    text_height = _text_height(heading, _TEXT_PT) + _text_height(caption, _SMALL_TEXT_PT)
    figure = Figure(figsize=(width, rows * (row_inches + 0.1) + text_height + 0.2), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, (_, clip, i), title in zip(grid, panels, titles, strict=False):
        draw_frame_heat(axes, clip, i)
        axes.set_title(title, fontsize=_SMALL_TEXT_PT, pad=3)
    add_heat_scale(figure, grid)
    figure.suptitle(heading, fontsize=_TEXT_PT)
    figure.supxlabel(caption, fontsize=_SMALL_TEXT_PT)
    take_literally(figure)
    # The layout runs here and again on saving, since the first pass measures titles at other picture sizes.
    figure.draw_without_rendering()
    return figure


def _text_height(text: str, size_pt: float) -> float:
    """In inches."""
    return 1.3 * size_pt / 72 * (text.count("\n") + 1)


def _wrap(text: str, width_inches: float, size_pt: float) -> str:
    """Wrap each line; a letter's width is estimated as 0.58 of its size."""
    return "\n".join(textwrap.fill(line, int(width_inches * 72 / (0.58 * size_pt))) for line in text.split("\n"))


def draw_frame_heat(axes: "Axes", clip: ExplainedClip, index: int) -> None:
    """One frame of a clip in grey, with its heat as a share of the clip's peak, and the face box."""
    picture, maps = clip.pictures[index], clip.explanation.maps
    height, width = picture.shape[:2]
    extent = (0, width, height, 0)
    grey = picture @ np.array([0.299, 0.587, 0.114])
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=extent)
    shown = _shows_heat(clip)
    if shown[index]:
        heat = maps[index] / (maps[shown].max() or 1.0)
        axes.imshow(heat, cmap=_heat_colors(), vmin=0, vmax=1, extent=extent, interpolation="bilinear")
    if clip.face is not None and clip.face.found[index]:
        outline = box_outline(clip.face.boxes_xyxy_px[index])
        if clip.transforms is not None:
            outline = map_points(outline, invert_transform(clip.transforms[index]))
        axes.plot(*outline.T, color=_BOX_COLOR, linewidth=1.4)
    axes.set(xlim=(0, width), ylim=(height, 0))  # a box may extend beyond the edge


def _shows_heat(clip: ExplainedClip) -> np.ndarray:
    """(num_frames,) bool: False for a crop at the place of other frames' faces, which shows no face."""
    is_crop = clip.transforms is not None and clip.face is not None
    return clip.face.found if is_crop and clip.face else np.ones(len(clip.pictures), dtype=bool)


def _heat_colors() -> "ListedColormap":
    """Inferno, readable for colour-blind people and in grey print; more transparent for less heat."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    colors = matplotlib.colormaps["inferno"](np.linspace(0.15, 0.95, 256))
    colors[:, 3] = 0.8 * np.linspace(0, 1, 256) ** 0.7
    return ListedColormap(colors)


def box_outline(box_xyxy_px: Sequence[float] | np.ndarray) -> np.ndarray:
    """(5, 2): the box's corners, the first repeated at the end."""
    left, top, right, bottom = box_xyxy_px
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)])


def add_heat_scale(figure: "FigureBase", grid: np.ndarray) -> None:
    """The colours of `draw_frame_heat`, as a bar next to these axes."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap

    colors = np.asarray(_heat_colors().colors)
    over_grey = ListedColormap(colors[:, 3:] * colors[:, :3] + (1 - colors[:, 3:]) * 0.5)
    mappable = ScalarMappable(cmap=over_grey)
    bar = figure.colorbar(mappable, ax=list(grid), fraction=0.05, pad=0.01, aspect=14, panchor=False)
    bar.set_ticks([0, 0.5, 1], labels=["0", "0.5", "1"])
    bar.ax.tick_params(labelsize=_SMALL_TEXT_PT)
    bar.set_label("share of peak heat", fontsize=_SMALL_TEXT_PT)


def _heading(explanation: Explanation) -> str:
    """The file's name and, for a single clip, the explained and the predicted label, and in which frames a face was."""
    clip, name = explanation.clips[0], shown_name(explanation.source)
    if len(explanation.clips) > 1:
        return f"{name}: {len(explanation.clips)} faces"
    if explanation.span_sec is not None:
        start_sec, end_sec = explanation.span_sec
        name += f", {start_sec:.1f} s to {end_sec:.1f} s, whose scores are nearest to the whole video's"
    label, scores = clip.explanation.label, clip.explanation.scores
    asked, best = f"{label}, score {scores[label]:.2f}", clip.answer.label
    if best is None:
        said = f"no label: {clip.answer.reason}; heat for {asked}"
    else:
        said = f"predicted {asked}" if label == best else f"heat for {asked}; predicted {best}, {scores[best]:.2f}"
    if clip.face is not None and not clip.face.found.all():
        said += f"\na face was found in {clip.face.found.sum()} of {_frames(len(clip.face.found))}"
    return f"{name}\n{said}"


def _panel_title(explanation: Explanation, number: int, clip: ExplainedClip, index: int) -> str:
    """For a face in a photo: number, label and score, the predicted label if different, and the share of heat on the
    face; for a frame, its time.
    """
    notes = ["no face"] if clip.face is not None and not clip.face.found[index] else []
    notes += ["no heat"] if clip.explanation.zero_heat[index] else []
    if not np.isnan(clip.frame_times_sec[index]):
        return f"{clip.frame_times_sec[index]:.1f} s{', ' if len(notes) == 1 else chr(10)}{', '.join(notes)}".strip()
    if len(explanation.clips) == 1:
        return ", ".join(notes)
    label, scores = clip.explanation.label, clip.explanation.scores
    best = clip.answer.label
    predicted = [] if label == best else [f"predicted {best} {scores[best]:.2f}" if best else f"{clip.answer.reason}"]
    on_face = [_region_text(clip.face.focus, "face")] if clip.face else []
    return "\n".join([f"{number}. {label} {scores[label]:.2f}", *predicted, *(notes or on_face)])


def _caption(explanation: Explanation) -> list[str]:
    """The method and, for a single clip, the shares of heat by region; one paragraph each."""
    first = explanation.clips[0].explanation
    rows, columns = first.map_size
    coarse = ", too coarse to separate a face from its surroundings" if min(rows, columns) < FINE_MAP else ""
    method = f"{_METHOD_NAMES[first.method]} of a {rows}×{columns} map{coarse}."
    faces = [(clip, clip.face.focus) for clip in explanation.clips if clip.face is not None]
    if not faces:
        return [*_cold_frames(explanation), f"{method} No face was found to measure it against."]
    scale = f"{method} 1.0×: as for evenly spread heat. Blue: face box."
    if len(explanation.clips) > 1:
        return [*_cold_frames(explanation), f"{scale} Each face has its own heat scale."]
    shares = _shares(*faces[0])
    return [*shares, *_cold_frames(explanation), scale if "×" in "".join(shares) else f"{method} Blue: face box."]


def _shares(clip: ExplainedClip, focus: FaceFocus) -> list[str]:
    """Shares by region; empty if no frame has heat, which `_cold_frames` reports."""
    counted = sum(share is not None for share in focus.heat_share["face"])
    if not counted:
        unknown = "No frame shows both heat and a face: the share of heat on the face is unknown."
        return [unknown] if clip.explanation.maps.any() else []
    shares = ", ".join(_region_text(focus, region) for region in REGIONS)
    # A frame with little heat counts as much as the hottest, although the picture hardly shows its heat.
    mean = f": the mean over {counted} of {_frames(len(focus.heat_share['face']))}, however hot each is"
    return [f"Heat in {shares}{mean if focus.num_frames > 1 else ''}."]


def _region_text(focus: FaceFocus, region: str) -> str:
    found = focus.clip[region]
    if found["heat_share"] is None:
        return f"{_REGION_NAMES[region]}: unknown"
    ratio = "" if found["ratio"] is None else f" ({found['ratio']:.1f}×)"
    return f"{_REGION_NAMES[region]} {100 * found['heat_share']:.0f} %{ratio}"


def _cold_frames(explanation: Explanation) -> list[str]:
    """An explanation of "no heat" over panels, if there is any."""
    cold = [is_cold for clip in explanation.clips for is_cold in clip.explanation.zero_heat]
    if not any(cold):
        return []
    if len(explanation.clips) > 1:
        return [f"No heat: in {sum(cold)} of {len(cold)} faces there is no evidence for the label."]
    place = "it" if len(cold) == 1 else f"{'all' if all(cold) else f'{sum(cold)} of'} {_frames(len(cold))}"
    return [f"No heat: in {place} there is no evidence for {explanation.clips[0].explanation.label}."]


def _frames(count: int) -> str:
    return f"{count} frame{'s' if count != 1 else ''}"
