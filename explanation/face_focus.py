"""The share of an explanation's heat on the face, on eyes and brows and on the mouth, compared with chance.

The face is a detector's box; the other two regions are rectangles around its five landmarks. They are measured in eye
distances `d`, along the line through the eyes and perpendicular to it, so that they scale and tilt with the face (and
become narrower when it turns aside). Chance is a region's share of the picture's area, which evenly spread heat would
give. `heat_maps` computes the heat; nothing here depends on a model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import numpy as np

from ..evaluation.bca import bca_intervals, effective_number
from ..evaluation.bootstrap import MIN_PEOPLE_IN_A_CELL
from ..processor.face_cropping import map_points
from ..processor.input_errors import DataError

# Margins beyond two landmarks along the eyes' line, above the line between them, and below it; in eye distances.
_EYES_AND_BROWS = (0.4, 0.5, 0.25)
_MOUTH = (0.15, 0.3, 0.4)  # more below than above, for the open jaw of a yawn
REGIONS = ("face", "eyes", "mouth")


class RegionFocus(TypedDict):
    """One region in a clip: means over frames with heat and a face; None if there are none."""

    heat_share: float | None  # of the heat
    area_share: float | None  # of the area: chance
    ratio: float | None  # heat by area, 1 for evenly spread heat


class PersonFocus(NamedTuple):
    """One person's clips."""

    person_id: str
    mean: float
    num_clips: int


@dataclass(frozen=True)
class PeopleFocus:
    """A share over people. It identifies some, who must not be published."""

    mean: float  # over clips
    lower: float | None  # 95 % interval over people (BCa); None if all people are equal
    upper: float | None
    num_clips: int
    num_without_share: int  # clips excluded from all else
    num_people: int
    lowest_people: list[PersonFocus]  # lowest first


@dataclass(frozen=True)
class FaceFocus:
    """Shares by region ("face", "eyes" with brows, "mouth") and frame; None: the frame has no heat or no face."""

    heat_share: dict[str, list[float | None]]  # of the frame's heat
    area_share: dict[str, list[float | None]]  # of the frame's area: chance
    num_frames: int
    num_without_heat: int
    num_without_face: int

    @property
    def clip(self) -> dict[str, RegionFocus]:
        """By region."""
        return {region: _clip_focus(self.heat_share[region], self.area_share[region]) for region in REGIONS}


def face_focus(
    maps: np.ndarray,
    boxes_xyxy_px: np.ndarray,
    landmarks_xy_px: np.ndarray,
    transforms: np.ndarray | None = None,
    found: np.ndarray | None = None,
) -> FaceFocus:
    """The share of each frame's heat inside the face's regions.

    Args:
        maps: (num_frames, height, width), heat >= 0.
        boxes_xyxy_px, landmarks_xy_px: (num_frames, 4) and (num_frames, 5, 2), in pixels of the whole frame; with
            NaN landmarks only the box is used.
        transforms: (num_frames, 2, 3) from pixels of the maps to pixels of the whole frame (`input_transforms`); None
            if they are the same.
        found: (num_frames,), False if the box is another frame's; None: all were found.
    """
    no_heat = maps.sum(axis=(1, 2)) <= 0
    no_face = ~np.isfinite(boxes_xyxy_px).all(axis=1)
    if found is not None:
        no_face |= ~np.asarray(found, dtype=bool)
    heat_share: dict[str, list[float | None]] = {region: [] for region in REGIONS}
    area_share: dict[str, list[float | None]] = {region: [] for region in REGIONS}
    for index, heat in enumerate(maps):
        masks: dict[str, np.ndarray] = {}
        if not (no_heat[index] or no_face[index]):
            points = _pixel_centres(heat.shape, None if transforms is None else transforms[index])
            masks = _region_masks(points, boxes_xyxy_px[index], landmarks_xy_px[index])
        for region in REGIONS:
            mask = masks.get(region)
            inside = None if mask is None else float(heat[mask].sum(dtype=float) / heat.sum(dtype=float))
            heat_share[region].append(inside)
            area_share[region].append(None if mask is None else float(mask.mean()))
    return FaceFocus(heat_share, area_share, len(maps), int(no_heat.sum()), int(no_face.sum()))


def input_transforms(
    transforms: np.ndarray | None, picture_size_px: tuple[int, ...], input_size_px: tuple[int, ...], num_frames: int
) -> np.ndarray:
    """(num_frames, 2, 3) from pixels of the model's input to pixels of the whole frame.

    Args:
        transforms: (num_frames, 2, 3) from pixels of the picture (a face crop) to those of the whole frame; None for
            whole frames, resized to the model's input.
        picture_size_px, input_size_px: height and width of the picture, and of the model's input.
    """
    if transforms is None:
        transforms = np.tile(np.eye(2, 3), (num_frames, 1, 1))
    (height, width), (input_height, input_width) = picture_size_px, input_size_px
    return transforms * np.array([width / input_width, height / input_height, 1.0])


def focus_over_people(
    clip_shares: Sequence[float | None],
    person_ids: Sequence[str],
    num_resamples: int = 2000,
    num_lowest: int = 5,
    seed: int = 0,
) -> PeopleFocus | None:
    """The mean share over clips, its 95 % interval by resampling people, and the people with the lowest means.

    Args:
        clip_shares: a clip's `FaceFocus.clip[region]["heat_share"]` (or ratio); those with None are only counted.
        person_ids: of the same clips.

    Returns:
        None for fewer than five people, since the numbers would describe individuals.

    Raises:
        DataError: a clip has no person.
    """
    if len(clip_shares) != len(person_ids) or None in person_ids:
        raise DataError(
            f"Each of {len(clip_shares)} clips needs a known person, got {len(person_ids)} names; name them all."
        )
    known = [(person, share) for person, share in zip(person_ids, clip_shares, strict=True) if share is not None]
    people, of_clip = np.unique([str(person) for person, _ in known], return_inverse=True)
    if len(people) < MIN_PEOPLE_IN_A_CELL:
        return None
    counts = np.bincount(of_clip).astype(float)
    sums = np.bincount(of_clip, weights=[share for _, share in known])
    means = sums / counts
    lower, upper = _interval(sums, counts, num_resamples, seed)
    return PeopleFocus(
        mean=float(sums.sum() / counts.sum()),
        lower=lower,
        upper=upper,
        num_clips=len(known),
        num_without_share=len(clip_shares) - len(known),
        num_people=len(people),
        lowest_people=[
            PersonFocus(str(people[i]), float(means[i]), int(counts[i]))
            for i in np.argsort(means, kind="stable")[:num_lowest]
        ],
    )


def _interval(sums: np.ndarray, counts: np.ndarray, num_resamples: int, seed: int) -> tuple[float | None, float | None]:
    """People are resampled with all their clips: the mean over clips is a ratio of two sums over people."""
    if np.ptp(sums / counts) == 0:  # nothing to resample
        return None, None

    def mean(drawn: np.ndarray) -> dict[str, np.ndarray]:
        return {"mean": (drawn @ sums) / (drawn @ counts)}

    row = bca_intervals(mean, {"mean": effective_number(counts)}, len(counts), num_resamples, seed)["mean"]
    return row.lower, row.upper


def _pixel_centres(size_px: tuple[int, ...], transform: np.ndarray | None) -> np.ndarray:
    """size_px: height and width -> (height, width, 2): each pixel's centre in the whole frame."""
    rows, columns = np.indices(size_px)
    centres = np.stack([columns, rows], axis=-1) + 0.5
    return centres if transform is None else map_points(centres, transform)


def _region_masks(points: np.ndarray, box_xyxy_px: np.ndarray, landmarks_xy_px: np.ndarray) -> dict[str, np.ndarray]:
    """points: (height, width, 2) -> by region, (height, width) bool; only the box without landmarks."""
    inside: np.ndarray = (points >= box_xyxy_px[:2]) & (points < box_xyxy_px[2:])
    masks: dict[str, np.ndarray] = {"face": np.all(inside, axis=-1)}
    left_eye, right_eye, _, left_mouth, right_mouth = np.asarray(landmarks_xy_px, dtype=float)
    eye_distance_px = np.linalg.norm(right_eye - left_eye)
    if np.isfinite(landmarks_xy_px).all() and eye_distance_px > 0:
        along = (right_eye - left_eye) / eye_distance_px
        axes = np.array([along, [-along[1], along[0]]]).T / eye_distance_px  # pixels -> eye distances along and down
        masks["eyes"] = _about(points @ axes, left_eye @ axes, right_eye @ axes, *_EYES_AND_BROWS)
        masks["mouth"] = _about(points @ axes, left_mouth @ axes, right_mouth @ axes, *_MOUTH)
    return masks


def _about(
    points: np.ndarray, first: np.ndarray, second: np.ndarray, beyond: float, above: float, below: float
) -> np.ndarray:
    """A rectangle around two landmarks -> (height, width) bool; all in eye distances."""
    aside, down = np.moveaxis(points - (first + second) / 2, -1, 0)
    half_width = abs(second[0] - first[0]) / 2 + beyond
    return (abs(aside) <= half_width) & (down >= -above) & (down <= below)


def _clip_focus(heat_shares: list[float | None], area_shares: list[float | None]) -> RegionFocus:
    heat, area = ([share for share in shares if share is not None] for shares in (heat_shares, area_shares))
    if not heat:
        return {"heat_share": None, "area_share": None, "ratio": None}
    heat_share, area_share = float(np.mean(heat)), float(np.mean(area))
    return {
        "heat_share": heat_share,
        "area_share": area_share,
        "ratio": heat_share / area_share if area_share else None,
    }
