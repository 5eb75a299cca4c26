"""The plain way from a video to a label, as in a first script: every frame to RGB, MTCNN with its defaults on each
sampled frame, a crop, the model as loaded. Our own code is compared with it.

`python -m engagement_recognition.studies.plain_way VIDEO MODEL` runs it as a complete script, to time a cold process.
"""

import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import torch

from ..inference.torch_engine import Model
from ..processor.clip_preparation import ClipPreparation
from ..processor.face_cropping import crop_faces
from ..processor.input_errors import NoFaceError
from ..processor.video_decoding import uniform_frame_indices

if TYPE_CHECKING:
    from facenet_pytorch import MTCNN


def decode_plainly(source: Path, num_frames: int) -> np.ndarray:
    """Every frame to RGB, then the sampled ones: (num_frames, height, width, 3) uint8."""
    with av.open(str(source)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack([frames[i] for i in uniform_frame_indices(len(frames), num_frames)])


def predict_plainly(source: Path, processor: ClipPreparation, model: Model) -> int:
    """The number of the label with the highest logit.

    Raises:
        NoFaceError: MTCNN finds no face.
    """
    frames = decode_plainly(source, processor.num_frames)
    found = [_default_mtcnn().detect(frame, landmarks=True) for frame in frames]
    seen = [i for i, (boxes, *_) in enumerate(found) if boxes is not None]
    if not seen:
        raise NoFaceError(f"The plain way found no face in {source}; pass a different video.")
    nearest = [found[min(seen, key=lambda j: abs(i - j))] for i in range(len(found))]
    boxes, landmarks = (np.stack([frame[part][0] for frame in nearest]).astype(np.float64) for part in (0, 2))
    size_px, margin_ratio = processor.face_crop_size_px, processor.face_margin_ratio
    crops, _ = crop_faces(frames, boxes, landmarks, size_px, margin_ratio, processor.face_framing)
    pixel_values = torch.as_tensor(processor.to_pixel_values(crops))
    with torch.no_grad():
        if "Video" in type(model).__name__:
            return int(model(pixel_values[None]).logits.argmax())
        return int(model(pixel_values).logits.mean(dim=0).argmax())


@cache
def _default_mtcnn() -> "MTCNN":
    from facenet_pytorch import MTCNN

    return MTCNN(keep_all=True)


def main() -> None:
    """Prints the label."""
    from ..inference.loading import load_model
    from ..inference.predictor import Predictor

    video, folder = sys.argv[1:]
    model, processor = load_model(folder)
    as_clips = Predictor(model, processor, device="cpu").video_processor
    print(model.config.label_names[predict_plainly(Path(video), as_clips, model)])


if __name__ == "__main__":
    main()
