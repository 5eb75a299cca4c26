"""How a source becomes frames: the user's options, and the settings that follow for the kind of source."""

from dataclasses import asdict, dataclass, replace
from typing import Annotated

from pydantic import Field, with_config

from ...processor.input_errors import RecipeError
from ..json_records import Record
from ..schema import Media

REFERENCE_STRIDE_FRAMES = 16  # the CNN + LSTM reference's
_SMALL_SIDE_PX = 112  # for frames from the reference's files, and for frames that come as pictures
SAMPLINGS = ("uniform", "consecutive")

# Shown for values that were edited by hand in a file; options are checked below.
_AtLeastOne = Annotated[int, Field(ge=1)]
_Sampling = Annotated[str, Field(pattern=f"^({'|'.join(SAMPLINGS)})$")]


@dataclass(frozen=True)
class FrameOptions:
    """Options for the frames; None: the default for the source."""

    num_frames: int | None = None
    sampling: str | None = None
    window_stride_frames: int | None = None
    face_crop: bool | None = None
    face_crop_size_px: int | None = None
    as_played: bool | None = None


@with_config(Record.model_config)
@dataclass(frozen=True)
class PreparationSettings:
    """Settings that change the stored pictures. Size, mean and deviation of the model's input apply later."""

    num_frames: _AtLeastOne
    sampling: _Sampling
    face_crop: bool  # False: whole frames, squeezed to a square; pictures stay unchanged
    face_margin_ratio: float
    face_crop_size_px: _AtLeastOne
    window_stride_frames: _AtLeastOne | None = None  # consecutive only: frames from one window's start to the next
    # Films as a player shows them, see `FacePreparation.as_played`. False for pictures, and for data that is older than
    # this setting.
    as_played: bool = False

    def __post_init__(self) -> None:
        if self.sampling not in SAMPLINGS or (self.window_stride_frames is None) != (self.sampling == "uniform"):
            raise RecipeError(
                "Expected sampling uniform without a stride, or consecutive with a window stride in frames, got "
                f"{self.sampling} with stride {self.window_stride_frames}."
            )
        for name in ("num_frames", "face_crop_size_px", "window_stride_frames"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise RecipeError(f"Expected {name} of at least 1, got {count}.")


_OF_VIDEOS = PreparationSettings(
    num_frames=8, sampling="uniform", face_crop=True, face_margin_ratio=0.2, face_crop_size_px=224, as_played=True
)


def settings_for(media: Media, given: FrameOptions) -> PreparationSettings:
    """Default settings for a kind of source, with the given options in their place.

    Videos: uniform windows of face crops, as a player shows them. Pictures: already faces, unchanged. The reference's
    HDF5 windows: whole frames of 112 pixels, unchanged. Frames that come as pictures: already faces, resized to that
    size, in windows of consecutive frames that do not overlap.

    Raises:
        RecipeError: the options do not fit together.
    """
    chosen = {name: value for name, value in asdict(given).items() if value is not None}
    if media == "picture":  # settings of windows do not apply to them
        chosen = {name: chosen[name] for name in ("face_crop", "face_crop_size_px") if name in chosen}
    if media != "video":
        chosen = {"face_crop": False} | chosen | {"as_played": False}
    if media == "windows":
        chosen = {"face_crop_size_px": _SMALL_SIDE_PX, "sampling": "consecutive"} | chosen
    if media == "frames":
        stride = chosen.get("num_frames", _OF_VIDEOS.num_frames)
        chosen = {"face_crop_size_px": _SMALL_SIDE_PX, "window_stride_frames": stride} | chosen
        chosen["sampling"] = "consecutive"
    if chosen.get("sampling") == "consecutive":
        chosen = {"window_stride_frames": REFERENCE_STRIDE_FRAMES} | chosen
    return replace(_OF_VIDEOS, **chosen)
