"""A picture → crops of all its faces, without torch; shared by the transformers image processor and that of exports."""

import numpy as np

from .face_preparation import FacePreparation, PreparedFaces
from .input_errors import NoFaceError


class PicturePreparation(FacePreparation):
    """Steps of all readers of pictures."""

    def prepare_faces(self, picture: object, thorough: bool = True) -> PreparedFaces:
        """All faces of one picture, from left to right: crops, boxes, landmarks, transforms.

        Args:
            thorough: also look for small faces. The fast setting, used for videos, finds the people in front, and looks
                closer only if it finds nobody.

        Raises:
            NoFaceError: no face was found.
        """
        opened = self.open_picture(picture)
        source, pixels = _name_of(picture), opened.pixels
        (found,) = (self.face_detector.detect_thorough if thorough else self.detect_faces)(pixels[None])
        if len(found) == 0:
            found = next(iter(self.look_again(pixels[None])), found)
        if len(found) == 0:
            raise NoFaceError(f"Expected a face in {source}, found none; pass a picture in which a face is visible.")
        order = np.argsort(found.boxes_xyxy_px[:, 0], kind="stable")
        boxes, landmarks = found.boxes_xyxy_px[order], found.landmarks_xy_px[order]
        repeated = np.broadcast_to(pixels, (len(order), *pixels.shape))  # one crop per box, all from this picture
        crops, crop_transforms = self.crop(repeated, boxes, landmarks)
        return PreparedFaces(source, crops, boxes, landmarks, found.probabilities[order], crop_transforms, opened.notes)

    def take_as_face(self, picture: object) -> PreparedFaces:
        """Take a picture that is already a face unchanged: its box is its edge, its landmarks are unknown."""
        opened = self.open_picture(picture)
        height, width = opened.pixels.shape[:2]
        box, landmarks = np.array([[0, 0, width, height]], np.float32), np.full((1, 5, 2), np.nan, np.float32)
        return PreparedFaces(
            _name_of(picture), opened.pixels[None], box, landmarks, np.full(1, np.nan), np.eye(2, 3)[None], opened.notes
        )

    def largest_face(self, picture: object) -> np.ndarray:
        """(crop, crop, 3) uint8 RGB; raises NoFaceError."""
        # Not thorough: at full size a print on a shirt can be the largest "face".
        faces = self.prepare_faces(picture, thorough=False)
        return faces.frames[faces.largest]


def _name_of(picture: object) -> str:
    return str(picture) if isinstance(picture, str) or hasattr(picture, "__fspath__") else "<picture>"
