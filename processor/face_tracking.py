"""Joins the faces of single frames into one track per person, and chooses the person.

Frames may be adjacent or more than a second apart (eight in a ten-second clip), so a face is recognised by its position
and size, allowing a move of about its own size; appearance is not compared. The association step, `match_detections`,
is separate so that a live tracker can use it. Everything here is a pure function.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .face_detection import FaceDetections
from .input_errors import NoFaceError

MAX_MOVE_FACE_SIZES = 1.5  # beyond that, a neighbour on a bench is nearer than the person who moved
MAX_SIZE_RATIO = 2.0  # leaning forward or back; a printed face is often twice or half as large
# A detector's probability saturates: differences below a thousandth per frame are noise.
TIED_PROBABILITY = 1e-3


@dataclass(frozen=True)
class FaceTrack:
    """One person over the frames of a clip."""

    found: np.ndarray  # (num_frames,), bool
    boxes_xyxy_px: np.ndarray  # (num_frames, 4), float32; NaN where not found
    landmarks_xy_px: np.ndarray  # (num_frames, 5, 2), float32; NaN where not found
    probabilities: np.ndarray  # (num_frames,), float32; 0 where not found
    num_people: int = 1  # largest number of faces in one frame, of all people


def match_detections(previous_boxes_xyxy_px: np.ndarray, boxes_xyxy_px: np.ndarray) -> list[tuple[int, int]]:
    """Pair (num_previous, 4) with (num_boxes, 4) boxes: the cheapest pair first, each box at most once.

    The cost of a pair is the move of the centre in face sizes plus the log of the size ratio. Pairs beyond the limits
    are not made, so a box may stay unpaired.
    """
    previous, boxes = (np.asarray(b, dtype=np.float64).reshape(-1, 4) for b in (previous_boxes_xyxy_px, boxes_xyxy_px))
    sizes_before, sizes_now = _face_sizes_px(previous)[:, None], _face_sizes_px(boxes)[None, :]
    # (num_previous, 1, 2) - (1, num_boxes, 2) -> (num_previous, num_boxes)
    moves_px = np.linalg.norm(_centers(previous)[:, None] - _centers(boxes)[None, :], axis=2)
    moves = moves_px / np.sqrt(sizes_before * sizes_now)
    log_ratios = np.abs(np.log(sizes_now / sizes_before))
    allowed = (moves <= MAX_MOVE_FACE_SIZES) & (log_ratios <= np.log(MAX_SIZE_RATIO))
    return pair_cheapest_first(np.where(allowed, moves + log_ratios, np.inf))


def pair_cheapest_first(costs: np.ndarray) -> list[tuple[int, int]]:
    """(num_rows, num_columns), inf for impossible pairs -> pairs, each row and column at most once."""
    pairs: list[tuple[int, int]] = []
    for flat_index in np.argsort(costs, axis=None, kind="stable")[: int(np.isfinite(costs).sum())]:
        i, j = divmod(int(flat_index), costs.shape[1])
        if all(i != used_i and j != used_j for used_i, used_j in pairs):
            pairs.append((i, j))
    return pairs


def track_faces(detections: Sequence[FaceDetections]) -> list[FaceTrack]:
    """One entry of detections per frame, in order of time -> one track per person, in order of first appearance.

    A track without a face in a frame keeps its last position, however long, so it survives gaps.
    """
    members: list[dict[int, int]] = []  # for each track: frame -> index among that frame's faces
    last_boxes = np.empty((0, 4), dtype=np.float32)  # (num_tracks, 4), where each track was last seen
    for frame, faces in enumerate(detections):
        track_of_face = {j: i for i, j in match_detections(last_boxes, faces.boxes_xyxy_px)}
        for face, box in enumerate(faces.boxes_xyxy_px):
            track = track_of_face.get(face, len(members))
            if track == len(members):
                members.append({})
                last_boxes = np.concatenate([last_boxes, box[None]])
            members[track][frame] = face
            last_boxes[track] = box
    return [_build_track(detections, member) for member in members]


def choose_person(tracks: Sequence[FaceTrack]) -> FaceTrack:
    """The track with the highest probability summed over the frames: seen often and with certainty.

    The largest box is not reliable: in real clips it was the skull on a T-shirt. Size decides only between tracks of
    equal probability, such as two people who are always visible (the nearer one), and then position (the left-most).
    """
    if not tracks:
        raise NoFaceError(
            "Expected a face in at least one of the frames, found none; use a video in which the face is visible."
        )
    sums = np.array([track.probabilities.sum(dtype=np.float64) for track in tracks])
    tied = sums >= sums.max() - TIED_PROBABILITY * len(tracks[0].found)
    return max(
        (track for track, is_tied in zip(tracks, tied, strict=True) if is_tied),
        key=lambda track: (
            float(_face_sizes_px(track.boxes_xyxy_px[track.found]).mean()),
            -float(np.nanmean(track.boxes_xyxy_px[:, 0])),
        ),
    )


def fill_missing(track: FaceTrack) -> FaceTrack:
    """Give frames without the face the box and landmarks of the nearest frame with it (the earlier of two).

    `found` and the probabilities are unchanged, so that detected and filled frames can be distinguished.
    """
    found_frames = np.flatnonzero(track.found)
    if len(found_frames) == 0:
        raise NoFaceError("The track has a face in none of its frames, so there is no box to fill in.")
    distances = np.abs(np.arange(len(track.found))[:, None] - found_frames[None, :])  # (num_frames, num_found)
    source = found_frames[distances.argmin(axis=1)]
    return replace(track, boxes_xyxy_px=track.boxes_xyxy_px[source], landmarks_xy_px=track.landmarks_xy_px[source])


def _build_track(detections: Sequence[FaceDetections], faces: dict[int, int]) -> FaceTrack:
    """faces: frame -> index among that frame's faces."""
    num_frames = len(detections)
    found = np.zeros(num_frames, dtype=bool)
    boxes = np.full((num_frames, 4), np.nan, dtype=np.float32)
    landmarks = np.full((num_frames, 5, 2), np.nan, dtype=np.float32)
    probabilities = np.zeros(num_frames, dtype=np.float32)
    for frame, face in faces.items():
        found[frame] = True
        boxes[frame] = detections[frame].boxes_xyxy_px[face]
        landmarks[frame] = detections[frame].landmarks_xy_px[face]
        probabilities[frame] = detections[frame].probabilities[face]
    return FaceTrack(found, boxes, landmarks, probabilities)


def _centers(boxes_xyxy_px: np.ndarray) -> np.ndarray:
    """(num_boxes, 4) -> (num_boxes, 2)."""
    return (boxes_xyxy_px[:, :2] + boxes_xyxy_px[:, 2:]) / 2


def _face_sizes_px(boxes_xyxy_px: np.ndarray) -> np.ndarray:
    """The side of the square of equal area: (num_boxes, 4) -> (num_boxes,)."""
    return np.sqrt(np.prod(boxes_xyxy_px[:, 2:] - boxes_xyxy_px[:, :2], axis=1))
