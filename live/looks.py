"""How a person looks in one picture: colours and shades around the face, to distinguish tracks within one video.

A look contains hair, skin, clothes and background, and no measurement of the face itself. It shows that the tile of a
call contains another person now, or that a person returning to a seat has the same clothes and place as the one who
left. It is meaningless outside one video, and two people dressed alike before the same wall look alike.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

COLOR_BINS = 8  # per channel
_SIDE_PX, _SHADES_PX = 32, 16
_CHANGED_LEVELS = 20  # of 255
_QUARTERS = 2  # in each direction
_SHADES_WEIGHT = 0.3
# Switching on a lamp changes all colours, so mean and contrast are normalised before colours are counted.
_MEAN, _CONTRAST, _LEAST_CONTRAST = 128.0, 50.0, 5.0


@dataclass(frozen=True)
class Look:
    """The surroundings of one face: colours from the hair to the upper clothes, and the head as a small picture."""

    colors: np.ndarray  # (COLOR_BINS ** 3,): frequency of each colour outside other faces' surroundings; sum 1
    quarters: np.ndarray  # (4 * COLOR_BINS ** 3,): the same for each quarter of the head, normalised
    shades: np.ndarray  # (256,): the head as a grey picture, mean 0, length 1; all 0 if flat
    is_shared: bool  # another person is partly in it


@dataclass(frozen=True)
class Scene:
    """The region around a person, as a small picture, to compare with the same region later."""

    place: tuple[int, int, int, int]  # left, top, right, bottom, in pixels of the frame
    pixels: np.ndarray  # (32, 32, 3) uint8 RGB

    @classmethod
    def about(cls, frame: np.ndarray, box_xyxy_px: np.ndarray) -> "Scene":
        """The region around a face: twice its width, with some background."""
        height = box_xyxy_px[3] - box_xyxy_px[1]
        place = _within(box_xyxy_px + np.array([-0.5, -0.4, 0.5, 0.7]) * height, frame)
        return cls(place, _cut(frame, place))

    def change_to(self, frame: np.ndarray) -> float:
        """Share of the region that differs in another frame of the same size: a moving head leaves the background
        unchanged, a different picture in a call's tile changes everything."""
        moved = np.abs(_cut(frame, self.place).astype(np.int16) - self.pixels).max(axis=2)
        return float((moved > _CHANGED_LEVELS).mean())


def looks_about(frame: np.ndarray, boxes_xyxy_px: np.ndarray) -> list[Look]:
    """One look per face.

    frame: (height, width, 3) uint8 RGB; boxes: (num_faces, 4), which may extend beyond the frame.
    """
    places = [_within(surroundings(box), frame) for box in boxes_xyxy_px]
    looks = []
    for i, (left, top, right, bottom) in enumerate(places):
        own = np.ones((bottom - top, right - left), np.uint8)
        for other in places[:i] + places[i + 1 :]:
            own[max(0, other[1] - top) : max(0, other[3] - top), max(0, other[0] - left) : max(0, other[2] - left)] = 0
        mask = cv2.resize(own, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_NEAREST)
        colors = _count_colors(_cut(frame, places[i]), mask if mask.any() else None)
        head = head_about(boxes_xyxy_px[i])
        part = _cut(frame, _within(head, frame))
        is_shared = any(reaches_into(other, head) for other in np.delete(boxes_xyxy_px, i, axis=0))
        looks.append(Look(colors, _quarters_of(part), _shades_of(part), is_shared))
    return looks


def distance_of_colors(first: np.ndarray, second: np.ndarray) -> float:
    """Hellinger distance between two histograms that sum to 1: from 0 for equal colours to 1 for none in common."""
    return math.sqrt(max(0.0, 1.0 - float(np.sqrt(first * second).sum())))


def distance_of_looks(first: Look, second: Look) -> float:
    """0 for the same picture, rarely above 1, at most 1.6."""
    likeness_of_shades = float((first.shades * second.shades).sum())
    return distance_of_colors(first.quarters, second.quarters) + _SHADES_WEIGHT * (1 - likeness_of_shades)


def surroundings(box_xyxy: np.ndarray) -> np.ndarray:
    """A face's box -> (4,), with the hair and the upper clothes."""
    height = box_xyxy[3] - box_xyxy[1]
    return box_xyxy + np.array([0.0, -0.25, 0.0, 0.75]) * height


def head_about(box_xyxy: np.ndarray) -> np.ndarray:
    """A face's box -> (4,), with hair, collar and a narrow margin: in a call whose tiles faces nearly fill, a wider one
    would include the neighbour."""
    height = box_xyxy[3] - box_xyxy[1]
    return box_xyxy + np.array([-0.1, -0.3, 0.1, 0.35]) * height


def reaches_into(box_xyxy: np.ndarray, head_xyxy: np.ndarray) -> bool:
    """Whether a person with this face box overlaps another's head, with the face or the body next to it."""
    width = box_xyxy[2] - box_xyxy[0]
    return overlap(box_xyxy + np.array([-0.2, 0.0, 0.2, 0.0]) * width, head_xyxy)


def overlap(first_xyxy: np.ndarray, second_xyxy: np.ndarray) -> bool:
    """Whether two boxes, (4,) each, overlap."""
    return bool((np.maximum(first_xyxy[:2], second_xyxy[:2]) < np.minimum(first_xyxy[2:], second_xyxy[2:])).all())


def _within(box_xyxy: np.ndarray, frame: np.ndarray) -> tuple[int, int, int, int]:
    """The part of a box inside a frame, at least one pixel."""
    height_px, width_px = frame.shape[:2]
    left, top, right, bottom = box_xyxy.astype(int).tolist()
    left, top = min(max(left, 0), width_px - 1), min(max(top, 0), height_px - 1)
    return left, top, max(min(right, width_px), left + 1), max(min(bottom, height_px), top + 1)


def _cut(frame: np.ndarray, place: tuple[int, int, int, int]) -> np.ndarray:
    left, top, right, bottom = place
    return cv2.resize(frame[top:bottom, left:right], (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA)


def _count_colors(part: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    counts = cv2.calcHist([part], [0, 1, 2], mask, [COLOR_BINS] * 3, [0, 256] * 3)
    return counts.reshape(-1) / counts.sum()


def _quarters_of(part: np.ndarray) -> np.ndarray:
    pixels = part.astype(np.float32)
    evened = (pixels - pixels.mean()) / (pixels.std() + _LEAST_CONTRAST) * _CONTRAST + _MEAN
    evened = np.clip(evened, 0, 255).astype(np.uint8)
    rows = np.split(evened, _QUARTERS)
    quarters = [np.ascontiguousarray(quarter) for row in rows for quarter in np.split(row, _QUARTERS, axis=1)]
    return np.concatenate([_count_colors(quarter) for quarter in quarters]) / len(quarters)


def _shades_of(part: np.ndarray) -> np.ndarray:
    size = (_SHADES_PX, _SHADES_PX)
    grey = cv2.resize(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA).astype(np.float32)
    shades = (grey - grey.mean()).reshape(-1)
    length = float(np.linalg.norm(shades))
    return shades / length if length > _SHADES_PX else np.zeros_like(shades)
