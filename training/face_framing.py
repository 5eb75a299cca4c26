"""How training pictures that are already face crops are framed, so that served faces are cropped in the same way.

Such pictures come from a different detector and margin: FER2013's reach from the brows to the chin, while our own
crop leaves a margin on every side, and a model trained on one performs badly on the other. So our detector runs on some
of them, and the position of the picture's edges relative to the detected face becomes a setting of the processor.
"""

import numpy as np
from PIL import Image

from ..processor.face_detection import FaceDetections, FaceDetector
from .training_sets import LabelledFrames

_NUM_PICTURES = 200  # FER2013's heights vary by a sixth, so the median is known within about 1.5 %
_PICTURE_PX, _BORDER_PX = 120, 60  # without a border a face that fills its picture is often not found


def measure_framing(rows: LabelledFrames) -> list[float] | None:
    """The median over some pictures, as `framed_transform` takes it; None where a face is found in less than half.

    rows: single pictures. Which of them are used depends only on their number.
    """
    chosen = np.random.default_rng(0).permutation(len(rows))[:_NUM_PICTURES]
    pictures, edges = zip(*(_within_border(rows[int(row)]["frames"][0]) for row in chosen), strict=True)
    faces = FaceDetector().detect_fast(np.stack(pictures))
    framings = [found for place in zip(faces, edges, strict=True) if (found := _framing_of(*place)) is not None]
    if 2 * len(framings) < len(chosen):
        print(f"face framing: none; a face was found in only {len(framings)} of {len(chosen)} training pictures")
        return None
    framing = [round(float(value), 3) for value in np.median(framings, axis=0)]
    print(f"face framing: {framing}, from the faces in {len(framings)} of {len(chosen)} training pictures")
    return framing


def _within_border(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(height, width, 3) -> the picture centred in a square of its mean colour, and its box (4,) in that square."""
    side_px = _PICTURE_PX + 2 * _BORDER_PX
    height, width = picture.shape[:2]
    size_px = np.maximum(1, np.rint(np.array([width, height]) * (_PICTURE_PX / max(width, height)))).astype(int)
    left, top = (side_px - size_px) // 2
    canvas = Image.new("RGB", (side_px, side_px), tuple(picture.mean(axis=(0, 1)).astype(int).tolist()))
    canvas.paste(Image.fromarray(picture).resize(tuple(size_px), Image.Resampling.BICUBIC), (left, top))
    return np.asarray(canvas), np.array([left, top, left + size_px[0], top + size_px[1]])


def _framing_of(faces: FaceDetections, edge_xyxy_px: np.ndarray) -> list[float] | None:
    """From the most probable face; None where there is none, or the picture's centre lies outside it."""
    if len(faces) == 0:
        return None
    box, middle = faces.boxes_xyxy_px[0].astype(np.float64), (edge_xyxy_px[:2] + edge_xyxy_px[2:]) / 2
    if (middle < box[:2]).any() or (middle > box[2:]).any():
        return None
    size_px = np.sqrt(np.prod(box[2:] - box[:2]))
    offset = (middle - (box[:2] + box[2:]) / 2) / size_px
    return [*offset.tolist(), *((edge_xyxy_px[2:] - edge_xyxy_px[:2]) / size_px).tolist()]
