"""MTCNN's cascade (arXiv 1604.02878) around its three networks, independent of their implementation.

The first network searches the whole picture for faces at several reductions, the second and the third check the
remaining candidates, cropped at 24 and 48 px. The rules, and the order of the arithmetic, are facenet-pytorch 2.5.3's,
so that the same faces are found. The library crops and reduces candidates one by one; here those of all frames are
read from one table of sums, with identical results. The networks themselves are in `mtcnn_networks`.
"""

import math
from typing import NamedTuple, Protocol

import numpy as np

from .area_sums import AreaSums

_CELL_PX, _STRIDE_PX = 12, 2  # field of one output of the first network, and step to the next
_MOST_CANDIDATES = 256  # cropped at once: limits memory
_MOST_AT_ONCE = 512  # boxes of which all pairs are compared
_MOST_PAIRS = _MOST_AT_ONCE**2  # at once: limits memory


class Look(NamedTuple):
    """Settings of MTCNN's search in a frame."""

    min_face_size_px: int
    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7)  # of the three networks; the library's own by default
    scale_step: float = 0.709  # from one reduction of the frame to the next


class RawFaces(NamedTuple):
    """MTCNN's result for one picture, unsorted; pixels are counted from 1, as in the original MATLAB code."""

    boxes_xyxy_px: np.ndarray  # (num_faces, 4), float32
    probabilities: np.ndarray  # (num_faces,), float32
    landmarks_xy_px: np.ndarray  # (num_faces, 5, 2), float32


class MtcnnNetworks(Protocol):
    """Inputs are (value - 127.5) / 128, float32, channels last. The first number of every output is the logit of a
    face, the next four are offsets of the box's x1, y1, x2, y2, in widths and heights of the box."""

    def propose(self, pictures: np.ndarray) -> np.ndarray:
        """(num_frames, height, width, 3) -> (num_frames, rows, columns, 5)."""
        ...

    def refine(self, candidates: np.ndarray) -> np.ndarray:
        """(num_candidates, 24, 24, 3) -> (num_candidates, 5)."""
        ...

    def finish(self, candidates: np.ndarray) -> np.ndarray:
        """(num_candidates, 48, 48, 3) -> (num_candidates, 15): the last ten are five x and five y of the landmarks."""
        ...


class _Candidates(NamedTuple):
    boxes: np.ndarray  # (num_candidates, 4), float32, x1, y1, x2, y2
    scores: np.ndarray  # (num_candidates,), float32
    frames: np.ndarray  # (num_candidates,), the frame of each

    def chosen(self, which: np.ndarray) -> "_Candidates":
        return _Candidates(*(values[which] for values in self))


def find_faces(frames: np.ndarray, look: Look, networks: MtcnnNetworks) -> list[RawFaces]:
    """(num_frames, height, width, 3), uint8 RGB -> one entry per frame."""
    scales = _scales(min(frames.shape[1:3]), look)
    if not scales or not len(frames):  # the frame is smaller than the smallest face
        return [RawFaces(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32))] * len(
            frames
        )
    sums = AreaSums(frames, longest_block_px=min(frames.shape[1:3]) // _CELL_PX + 2)
    found = _propose(sums, frames.shape[1:3], scales, look, networks)
    found = _refine(found, sums, frames.shape[1:3], look, networks)
    found, landmarks = _finish(found, sums, frames.shape[1:3], look, networks)
    mine = [np.flatnonzero(found.frames == index) for index in range(len(frames))]
    return [RawFaces(found.boxes[which], found.scores[which], landmarks[which]) for which in mine]


def _scales(shorter_side_px: int, look: Look) -> list[float]:
    """Scales of the picture, from the one where the smallest face is 12 px wide to the one where the picture is."""
    scale = _CELL_PX / look.min_face_size_px
    shorter_side = shorter_side_px * scale
    scales = []
    while shorter_side >= _CELL_PX:
        scales.append(scale)
        scale, shorter_side = scale * look.scale_step, shorter_side * look.scale_step
    return scales


def _propose(
    sums: AreaSums, size: tuple[int, int], scales: list[float], look: Look, networks: MtcnnNetworks
) -> _Candidates:
    height, width = size
    least = math.log(look.thresholds[0] / (1 - look.thresholds[0]))  # of the logit
    parts, of_scale = [], []
    for number, scale in enumerate(scales):
        answers = networks.propose(_normalised(sums.reduced(int(height * scale + 1), int(width * scale + 1))))
        frames, rows, columns = np.nonzero(answers[..., 0] >= least)
        corners = _STRIDE_PX * np.stack([columns, rows], axis=1).astype(np.float32)
        first, last = (np.floor((corners + add) / np.float32(scale)) for add in (1, _CELL_PX))
        parts.append((np.concatenate([first, last], axis=1), answers[frames, rows, columns], frames))
        of_scale.append(np.full(len(frames), number))
    boxes, answers, frames = (np.concatenate(values) for values in zip(*parts, strict=True))
    found = _Candidates(boxes, _probability(answers[:, 0]), frames)
    kept = _without_doubles(found, 0.5, frames * len(scales) + np.concatenate(of_scale))
    kept = kept[_without_doubles(found.chosen(kept), 0.7)]
    boxes, moves = boxes[kept], answers[kept, 1:5]
    sides = boxes[:, 2:] - boxes[:, :2]
    return found.chosen(kept)._replace(boxes=_square(boxes + moves * np.tile(sides, 2)))


def _refine(
    found: _Candidates, sums: AreaSums, size: tuple[int, int], look: Look, networks: MtcnnNetworks
) -> _Candidates:
    found, answers = _looked_at(found, sums, size, 24, networks)
    passed = np.flatnonzero(found.scores > look.thresholds[1])
    kept = passed[_without_doubles(found.chosen(passed), 0.7)]
    return found.chosen(kept)._replace(boxes=_square(_moved(found.boxes[kept], answers[kept, 1:5])))


def _finish(
    found: _Candidates, sums: AreaSums, size: tuple[int, int], look: Look, networks: MtcnnNetworks
) -> tuple[_Candidates, np.ndarray]:
    """Returns the candidates and their landmarks, (num_candidates, 5, 2)."""
    found, answers = _looked_at(found, sums, size, 48, networks)
    passed = np.flatnonzero(found.scores > look.thresholds[2])
    found, answers = found.chosen(passed), answers[passed]
    corners, sides = found.boxes[:, None, :2], (found.boxes[:, 2:] - found.boxes[:, :2] + 1)[:, None]
    landmarks = sides * answers[:, 5:].reshape(-1, 2, 5).transpose(0, 2, 1) + corners - 1
    found = found._replace(boxes=_moved(found.boxes, answers[:, 1:5]))
    kept = _without_doubles(found, 0.7, of_smaller=True)
    return found.chosen(kept), landmarks[kept]


def _looked_at(
    found: _Candidates, sums: AreaSums, size: tuple[int, int], side: int, networks: MtcnnNetworks
) -> tuple[_Candidates, np.ndarray]:
    """The candidates inside the picture, with the scores of the second or third network, and its full output."""
    look_at, num_answers = (networks.refine, 5) if side == 24 else (networks.finish, 15)
    height, width = size
    corners = np.trunc(found.boxes).astype(int)
    corners[:, :2] = np.maximum(corners[:, :2], 1) - 1  # pixels are counted from 1, the last one included
    corners[:, 2:] = np.minimum(corners[:, 2:], (width, height))
    inside = np.flatnonzero((corners[:, 2:] > corners[:, :2]).all(axis=1))
    found, corners = found.chosen(inside), corners[inside]
    answers = [np.zeros((0, num_answers), np.float32)]
    for start in range(0, len(corners), _MOST_CANDIDATES):
        chosen = slice(start, start + _MOST_CANDIDATES)
        answers.append(look_at(_normalised(sums.parts(found.frames[chosen], corners[chosen], side))))
    joined = np.concatenate(answers)
    return found._replace(scores=_probability(joined[:, 0])), joined


def _normalised(pixels: np.ndarray) -> np.ndarray:
    pixels -= np.float32(127.5)
    pixels *= np.float32(1 / 128)
    return pixels


def _probability(logits: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # below about -88 the exponential is infinite, and the result 0
        return 1 / (1 + np.exp(-logits.astype(np.float32)))


def _moved(boxes: np.ndarray, moves: np.ndarray) -> np.ndarray:
    return boxes + moves * np.tile(boxes[:, 2:] - boxes[:, :2] + 1, 2)


def _square(boxes: np.ndarray) -> np.ndarray:
    """Boxes made square around the same centre."""
    sides = boxes[:, 2:] - boxes[:, :2]
    longer = sides.max(axis=1, keepdims=True)
    corners = boxes[:, :2] + sides * np.float32(0.5) - longer * np.float32(0.5)
    return np.concatenate([corners, corners + longer], axis=1)


def _without_doubles(
    found: _Candidates, threshold: float, groups: np.ndarray | None = None, of_smaller: bool = False
) -> np.ndarray:
    """Non-maximum suppression: the boxes to keep, none of which overlaps a better one of its group by more than the
    threshold.

    Args:
        groups: (num_candidates,), by default the frames they are in.
        of_smaller: the overlap is a share of the smaller box instead of intersection over union.
    """
    groups = found.frames if groups is None else groups
    order = np.lexsort((-found.scores, groups))
    groups = groups[order]
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    lengths = np.diff(starts, append=len(groups))
    keeps = np.ones(len(groups), bool)
    # Groups of similar size are processed together: there are a hundred small ones, and rarely a large one.
    wide = np.exp2(np.ceil(np.log2(np.maximum(lengths, 1)))).astype(int)
    for width in {*wide[wide > 1].tolist()}:
        at_once = max(1, _MOST_PAIRS // width**2)
        chosen = np.flatnonzero(wide == width)
        for some in np.split(chosen, range(at_once, len(chosen), at_once)):
            places = starts[some, None] + np.arange(width)
            is_there = np.arange(width) < lengths[some, None]
            boxes = found.boxes[order[np.where(is_there, places, 0)]]
            keeps[places[is_there]] = _best(boxes, is_there.copy(), threshold, of_smaller)[is_there]
    return order[keeps]


def _best(boxes: np.ndarray, free: np.ndarray, threshold: float, of_smaller: bool) -> np.ndarray:
    """boxes: (num_groups, width, 4), the best first; free: (num_groups, width), whether they exist -> which to keep."""
    width = boxes.shape[1]
    if width > _MOST_AT_ONCE:  # only the pairs that are needed
        for row in range(width):
            if free[0, row]:
                covers = _overlap(boxes[:, row : row + 1], boxes[:, row + 1 :], of_smaller) > threshold
                free[:, row + 1 :] &= ~covers[:, 0]
        return free
    covers = _overlap(boxes, boxes, of_smaller) > threshold
    for row in range(width - 1):
        free[:, row + 1 :] &= ~(covers[:, row, row + 1 :] & free[:, row, None])
    return free


def _overlap(boxes: np.ndarray, others: np.ndarray, of_smaller: bool) -> np.ndarray:
    """(num_groups, n, 4), (num_groups, m, 4) -> (num_groups, n, m)."""
    last = np.float32(of_smaller)  # this share counts the last pixel, the other does not, as in the library
    x1, y1, x2, y2 = np.moveaxis(boxes, -1, 0)[..., None]
    others_x1, others_y1, others_x2, others_y2 = np.moveaxis(others, -1, 0)[:, :, None]
    areas = (x2 - x1 + last) * (y2 - y1 + last)
    other_areas = (others_x2 - others_x1 + last) * (others_y2 - others_y1 + last)
    shared = np.maximum(np.minimum(x2, others_x2) - np.maximum(x1, others_x1) + last, 0)
    shared *= np.maximum(np.minimum(y2, others_y2) - np.maximum(y1, others_y1) + last, 0)
    with np.errstate(invalid="ignore", divide="ignore"):  # a box without area overlaps nothing
        if of_smaller:
            return shared / np.minimum(areas, other_areas)
        return shared / (areas + other_areas - shared)
