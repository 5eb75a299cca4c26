"""How training pictures that are faces already lie about the face in them, so that served faces are cut out likewise.

Such pictures come from somebody else's detector and margin: FER2013's reach from the brows to the chin, where our own
crop has room on every side, and a net that learned the one reads the other badly. So our detector looks at some of
them, and where the picture's edge lies about the face it finds becomes a setting of the processor.
"""

import numpy as np
from PIL import Image

from ..processor.face_detection import FaceDetections, FaceDetector
from .training_sets import LabelledFrames

_NUM_PICTURES = 200  # FER2013's heights differ by a sixth, so that the median is known within about 1.5 %
_PICTURE_PX, _BORDER_PX = 120, 60  # without a border a face that fills its picture is often not found


def measure_framing(rows: LabelledFrames) -> list[float] | None:
    """The median over some pictures, as `framed_transform` takes it; None where half of them show no face.

    rows: single pictures. Which of them are looked at depends on their number alone.
    """
    chosen = np.random.default_rng(0).permutation(len(rows))[:_NUM_PICTURES]
    pictures, edges = zip(*(_within_border(rows[int(row)]["frames"][0]) for row in chosen), strict=True)
    faces = FaceDetector().detect_fast(np.stack(pictures))
    framings = [found for place in zip(faces, edges, strict=True) if (found := _framing_of(*place)) is not None]
    if 2 * len(framings) < len(chosen):
        print(f"face framing: none, a face was found in {len(framings)} of {len(chosen)} training pictures")
        return None
    framing = [round(float(value), 3) for value in np.median(framings, axis=0)]
    print(f"face framing: {framing}, of the faces in {len(framings)} of {len(chosen)} training pictures")
    return framing


def _within_border(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(height, width, 3) -> the picture in the middle of a square of its mean colour, and its edge there, (4,)."""
    side_px = _PICTURE_PX + 2 * _BORDER_PX
    height, width = picture.shape[:2]
    size_px = np.maximum(1, np.rint(np.array([width, height]) * (_PICTURE_PX / max(width, height)))).astype(int)
    left, top = (side_px - size_px) // 2
    canvas = Image.new("RGB", (side_px, side_px), tuple(picture.mean(axis=(0, 1)).astype(int).tolist()))
    canvas.paste(Image.fromarray(picture).resize(tuple(size_px), Image.Resampling.BICUBIC), (left, top))
    return np.asarray(canvas), np.array([left, top, left + size_px[0], top + size_px[1]])


def _framing_of(faces: FaceDetections, edge_xyxy_px: np.ndarray) -> list[float] | None:
    """Of the most probable face; None where there is none, or one that the picture's middle is not part of."""
    if len(faces) == 0:
        return None
    box, middle = faces.boxes_xyxy_px[0].astype(np.float64), (edge_xyxy_px[:2] + edge_xyxy_px[2:]) / 2
    if (middle < box[:2]).any() or (middle > box[2:]).any():
        return None
    size_px = np.sqrt(np.prod(box[2:] - box[:2]))
    offset = (middle - (box[:2] + box[2:]) / 2) / size_px
    return [*offset.tolist(), *((edge_xyxy_px[2:] - edge_xyxy_px[:2]) / size_px).tolist()]
