"""How a source becomes frames: what somebody asks for, and the settings that follow for what the source holds."""

from dataclasses import asdict, dataclass, replace
from typing import Annotated, TypedDict

from pydantic import Field, with_config

from ...processor.input_errors import RecipeError
from ..json_records import Record
from ..schema import Media

REFERENCE_STRIDE_FRAMES = 16  # of the CNN + LSTM reference
_SMALL_SIDE_PX = 112  # of frames from the reference's files, and of those that come as pictures
SAMPLINGS = ("uniform", "consecutive")

# What is told of a value that somebody wrote into a file by hand; options are checked below.
_AtLeastOne = Annotated[int, Field(ge=1)]
_Sampling = Annotated[str, Field(pattern=f"^({'|'.join(SAMPLINGS)})$")]


@dataclass(frozen=True)
class FrameOptions:
    """What may be asked of the frames; None: what suits the source."""

    num_frames: int | None = None
    sampling: str | None = None
    window_stride_frames: int | None = None
    face_crop: bool | None = None
    face_crop_size_px: int | None = None
    as_played: bool | None = None


class ProcessorSettings(TypedDict):
    """Those of the processors' own arguments that preparation settles."""

    num_frames: int
    sampling: str
    face_crop: bool
    face_margin_ratio: float
    face_crop_size_px: int
    as_played: bool


@with_config(Record.model_config)
@dataclass(frozen=True)
class PreparationSettings:
    """What changes the stored pictures. Size, mean and deviation of the model's input apply later."""

    num_frames: _AtLeastOne
    sampling: _Sampling
    face_crop: bool  # False: whole frames, squeezed to a square; pictures stay as they are
    face_margin_ratio: float
    face_crop_size_px: _AtLeastOne
    window_stride_frames: _AtLeastOne | None = None  # consecutive only: windows start this far apart
    # Films as a player shows them, see `FacePreparation.as_played`. Data from before there was this setting is not; of
    # pictures it says nothing, and is False.
    as_played: bool = False

    def __post_init__(self) -> None:
        if self.sampling not in SAMPLINGS or (self.window_stride_frames is None) != (self.sampling == "uniform"):
            raise RecipeError(
                "Expected sampling uniform, or consecutive with a window stride in frames, got "
                f"{self.sampling} with stride {self.window_stride_frames}."
            )
        for name in ("num_frames", "face_crop_size_px", "window_stride_frames"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise RecipeError(f"Expected {name} of at least 1, got {count}.")

    def processor_settings(self) -> ProcessorSettings:
        """What the processors take."""
        return {
            "num_frames": self.num_frames,
            "sampling": self.sampling,
            "face_crop": self.face_crop,
            "face_margin_ratio": self.face_margin_ratio,
            "face_crop_size_px": self.face_crop_size_px,
            "as_played": self.as_played,
        }


_OF_VIDEOS = PreparationSettings(
    num_frames=8, sampling="uniform", face_crop=True, face_margin_ratio=0.2, face_crop_size_px=224, as_played=True
)


def settings_for(media: Media, given: FrameOptions) -> PreparationSettings:
    """Settings that suit what a source holds, with those given in their place.

    Videos: uniform windows of face crops, as a player shows them. Pictures: faces already, kept as they are. The
    reference's HDF5 windows: whole frames of 112 pixels, as they are. Frames that come as pictures: faces already,
    squeezed to that size, in windows of consecutive ones that do not overlap.

    Raises:
        RecipeError: the options do not fit together.
    """
    chosen = {name: value for name, value in asdict(given).items() if value is not None}
    if media == "picture":  # what concerns windows does not concern them
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
