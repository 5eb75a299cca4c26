"""An explained file as a figure: its frames in a row with the heat over each, and what the numbers say of the face.

Pictures are drawn grey, so that colour means heat and nothing else; heat is drawn with the picture's own proportions,
a whole frame's squeezed map stretched back. One scale serves all frames of a clip, since they share one logit, and each
face of a photo has its own. The same input gives the same bytes. matplotlib is imported late, and only as objects.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .explain import ExplainedClip, Explanation
from .face_focus import FINE_MAP, REGIONS, FaceFocus
from .predict import best_label
from .processor.face_cropping import invert_transform, map_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

_MAX_COLUMNS = 8
_TEXT_PT, _SMALL_TEXT_PT = 13, 11
_PNG_DPI = 200
_PICTURE_INCHES = (1.45, 2.6)  # the width of one frame among eight, and alone
_LINE_INCHES = 0.21
_CAPTION_INCHES = 5.6  # the width of its longest line
_BOX_COLOR = "#56B4E9"  # Okabe and Ito's light blue, which no heat has
_METHOD_NAMES = {"gradcam": "Grad-CAM", "hirescam": "HiResCAM"}
_REGION_NAMES = {"face": "face box", "eyes": "eyes and brows", "mouth": "mouth"}


def save_explanation(explanation: Explanation, path: Path) -> Path:
    """Write the figure as PNG; returns the file written (the path's suffix becomes .png)."""
    from matplotlib.figure import Figure

    panels = [(clip, i) for clip in explanation.clips for i in range(len(clip.pictures))]
    columns = min(len(panels), _MAX_COLUMNS)
    rows = math.ceil(len(panels) / columns)
    height, width = panels[0][0].pictures.shape[1:3]
    caption = _caption(explanation)
    titles = [_panel_title(explanation, clip, i) for clip, i in panels]
    picture_inches = float(np.clip(_CAPTION_INCHES / columns, *_PICTURE_INCHES))
    row_inches = picture_inches * height / width + _LINE_INCHES * (max(title.count("\n") for title in titles) + 1)
    text_inches = _LINE_INCHES * (caption.count("\n") + 3)
    size = (max(columns * picture_inches, _CAPTION_INCHES) + 0.9, rows * row_inches + text_inches)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, (clip, i), title in zip(grid, panels, titles, strict=False):
        draw_frame_heat(axes, clip, i)
        axes.set_title(title, fontsize=_SMALL_TEXT_PT, pad=3)
    add_heat_scale(figure, grid)
    figure.suptitle(_title(explanation), fontsize=_TEXT_PT)
    figure.supxlabel(caption, fontsize=_SMALL_TEXT_PT)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".png"), dpi=_PNG_DPI)
    return path.with_suffix(".png")


def draw_frame_heat(axes: "Axes", clip: ExplainedClip, index: int) -> None:
    """One frame of a clip in grey, with its heat as a share of the clip's peak, and the face box."""
    picture, maps = clip.pictures[index], clip.explanation.maps
    height, width = picture.shape[:2]
    extent = (0, width, height, 0)
    grey = picture @ np.array([0.299, 0.587, 0.114])
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=extent)
    heat = maps[index] / (maps.max() or 1.0)
    axes.imshow(heat, cmap=_heat_colors(), vmin=0, vmax=1, extent=extent, interpolation="bilinear")
    if clip.boxes_xyxy_px is not None and clip.found[index]:
        axes.plot(*_box_outline(clip, index).T, color=_BOX_COLOR, linewidth=1.4)
    axes.set(xlim=(0, width), ylim=(height, 0))  # a box may reach over the edge


def _heat_colors() -> "Colormap":
    """Inferno, told apart by colour-blind eyes and in grey print; the less heat, the more of the picture is seen."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    colors = matplotlib.colormaps["inferno"](np.linspace(0.15, 0.95, 256))
    colors[:, 3] = 0.8 * np.linspace(0, 1, 256) ** 0.7
    return ListedColormap(colors)


def _box_outline(clip: ExplainedClip, index: int) -> np.ndarray:
    """(5, 2): the box's corners in pixels of the picture, the first once more at the end."""
    left, top, right, bottom = clip.boxes_xyxy_px[index]
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)])
    return corners if clip.transforms is None else map_points(corners, invert_transform(clip.transforms[index]))


def add_heat_scale(figure: object, grid: np.ndarray) -> None:
    """The colours of `draw_frame_heat`, as a bar beside these axes."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap

    colors = _heat_colors().colors
    over_grey = ListedColormap(colors[:, 3:] * colors[:, :3] + (1 - colors[:, 3:]) * 0.5)
    place = {"ax": list(grid), "fraction": 0.05, "pad": 0.01, "aspect": 14, "panchor": False}
    bar = figure.colorbar(ScalarMappable(cmap=over_grey), **place)
    bar.set_ticks([0, 0.5, 1], labels=["0", "0.5", "1"])
    bar.ax.tick_params(labelsize=_SMALL_TEXT_PT)
    bar.set_label("share of peak heat", fontsize=_SMALL_TEXT_PT)


def _title(explanation: Explanation) -> str:
    name = Path(explanation.source).name
    if len(explanation.clips) > 1:
        return f"{name}: {len(explanation.clips)} faces"
    return f"{name}: {_heading(explanation.clips[0])}"


def _heading(clip: ExplainedClip) -> str:
    """What the heat speaks for and, if that is another class, what was predicted."""
    label, scores = clip.explanation.label, clip.explanation.scores
    best = best_label(scores)
    asked = f"{label}, score {scores[label]:.2f}"
    return f"predicted {asked}" if label == best else f"heat for {asked}; predicted {best}, {scores[best]:.2f}"


def _panel_title(explanation: Explanation, clip: ExplainedClip, index: int) -> str:
    notes = ["no heat"] if clip.explanation.zero_heat[index] else []
    if not np.isnan(clip.frame_times_sec[index]):
        notes.insert(0, f"{clip.frame_times_sec[index]:.1f} s")
    if len(explanation.clips) == 1:
        return ", ".join(notes)
    label = clip.explanation.label
    return "\n".join([f"{label} {clip.explanation.scores[label]:.2f}", *notes, _region_text(clip, "face")])


def _caption(explanation: Explanation) -> str:
    """What the heat is and, of a single clip, how much of it lies where."""
    first = explanation.clips[0].explanation
    rows, columns = first.map_size
    coarse = ", too coarse to tell a face from what is around it" if min(rows, columns) < FINE_MAP else ""
    method = f"{_METHOD_NAMES[first.method]} of a {rows}×{columns} map{coarse}"
    focused = [clip.focus for clip in explanation.clips if clip.focus is not None]
    if not focused:
        return f"{method}. No face was found to measure it against."
    scale = f"{method}; (×): against an even spread. Blue: face box."
    if len(explanation.clips) > 1:
        return scale
    shares = ", ".join(_region_text(explanation.clips[0], region) for region in REGIONS)
    return f"Heat in {shares}{_left_out(focused[0])}.\n{scale}"


def _region_text(clip: ExplainedClip, region: str) -> str:
    focus = clip.focus.clip[region]
    if focus["heat_share"] is None:
        return f"{_REGION_NAMES[region]}: unknown"
    ratio = "" if focus["ratio"] is None else f" ({focus['ratio']:.1f}×)"
    return f"{_REGION_NAMES[region]} {100 * focus['heat_share']:.0f} %{ratio}"


def _left_out(focus: FaceFocus) -> str:
    reasons = {"no heat": focus.num_without_heat, "no face": focus.num_without_face}
    said = [f"{reason} in {count} of {focus.num_frames} frames" for reason, count in reasons.items() if count]
    return f"; {', '.join(said)}" if said else ""
