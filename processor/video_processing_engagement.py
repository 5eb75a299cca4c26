"""`EngagementVideoProcessor`: a face video → `pixel_values` (batch, num_frames, channels, height, width).

Training, evaluation, the pipeline, the app and the endpoint all use this class. A call returns only the arguments of
the model's forward, since pipelines pass on everything; its methods from `clip_preparation` return frames, boxes,
landmarks and found flags.
"""

from collections.abc import Sized
from typing import Any, Self, Unpack

import torch
from transformers import BatchFeature
from transformers.processing_utils import VideosKwargs
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata

from .call_settings import to_batch, to_channels_last, with_settings
from .clip_preparation import ClipPreparation
from .face_preparation import PreparedClip
from .film_windows import answer_film, answer_window  # an endpoint imports them from this module
from .input_errors import EngagementInputError  # likewise
from .media_files import is_file_like
from .media_inputs import as_batch, as_file
from .processor_settings import require_sound
from .tensor_preparation import TensorPreparation
from .video_index import VideoIndex

_OF_PICTURES = {"auto_map", "image_processor_type", "pictures_are_frames"}  # additional settings of a single-face model


class EngagementVideosKwargs(VideosKwargs, total=False):
    """Settings in addition to transformers' own; `FacePreparation` explains them."""

    face_crop: bool
    face_margin_ratio: float
    face_framing: list[float] | None
    face_crop_size_px: int
    do_grayscale: bool
    picture_norm: float | None
    sampling: str
    as_played: bool


class EngagementVideoProcessor(TensorPreparation, ClipPreparation, BaseVideoProcessor):
    """Samples frames of a video, finds and follows one face, and makes its crops into `pixel_values`.

    Args:
        num_frames: number of frames sampled from a clip.
        sampling: `"uniform"`, the centres of `num_frames` equal segments of the clip (`as_played`: of its time), or
            `"consecutive"`, neighbouring frames from `start_frame` on (the CNN + LSTM reference's windows).
        size: `{"height": ..., "width": ...}` of the model's input, in pixels.
        face_crop, face_margin_ratio, face_framing, face_crop_size_px, do_grayscale, picture_norm, as_played: see
            `FacePreparation`.
    """

    valid_kwargs = EngagementVideosKwargs  # type: ignore[assignment]  # transformers declares it for image processors
    model_input_names = ["pixel_values"]
    do_sample_frames = True
    clip_arguments = (  # arguments of a call for `prepare_clip`
        "sampling", "start_frame", "clip_start_sec", "clip_end_sec", "face_crop", "index", "video_track",
    )  # fmt: skip

    def __init__(self, **settings: Unpack[EngagementVideosKwargs]) -> None:
        super().__init__(**settings)  # type: ignore[misc]  # accepts valid_kwargs, but declares only its own
        require_sound(self)

    @classmethod
    def from_dict(  # type: ignore[override]  # transformers uses two names for the first argument
        cls, video_processor_dict: EngagementVideosKwargs, **kwargs: object
    ) -> Self:
        """Like transformers' own. Settings of a single-face model give a processor of clips, whose frames that model
        scores one by one: as in `predict`, the face is detected in them, unless the model reads whole frames."""
        settings: dict[str, object] = {**video_processor_dict}
        if "image_processor_type" in settings:
            reads_frames = settings.get("pictures_are_frames") and not settings.get("face_crop", cls.face_crop)
            settings = {name: value for name, value in settings.items() if name not in _OF_PICTURES}
            settings["face_crop"] = not reads_frames
        return super().from_dict(settings, **kwargs)

    def preprocess(
        self,
        videos: object,
        num_frames: int | None = None,
        do_sample_frames: bool | None = True,
        return_tensors: str | None = "pt",
        device: torch.device | str | None = None,
        data_format: str | None = None,
        input_data_format: str | None = None,
        return_metadata: bool | None = False,
        **arguments: Any,  # those of prepare_clip, and transformers' VideosKwargs
    ) -> BatchFeature:
        """One video or a list of them → `pixel_values` (batch, num_frames, channels, height, width), float32.

        Args:
            videos: paths, URLs, bytes or binary files; the datasets library's `{"path", "bytes"}`, its decoders
                (torchcodec) and PyAV's containers; arrays or tensors of frames (num_frames, height, width, channels) or
                (num_frames, channels, height, width); lists of pictures; or a list (or a 5-D array) of any of these, a
                batch.
            num_frames, device: override the processor's own; faces are detected, pixel values placed, on the device.
            do_sample_frames: False takes all frames given as arrays, unchanged.
            data_format, input_data_format: "channels_first" or "channels_last", for the result and for input arrays.
            return_metadata: also "video_metadata", transformers' `VideoMetadata` of each video: the sampled frames and
                the total number; for files also frames per second, duration in seconds, width and height as shown.
            arguments: as for `prepare_clip`, and settings for this call, as with transformers' own processors.

        Raises:
            EngagementInputError: a video cannot be read, or shows no face; the message names it and the reason. Or an
                argument of transformers' is not supported here, and named.
            TypeError: an unknown argument.
        """
        clip_arguments = {name: arguments.pop(name) for name in self.clip_arguments if name in arguments}
        called = with_settings(self, num_frames=num_frames, **arguments)
        if device is not None:
            called = called.on_device(device)
        if do_sample_frames is False:
            clip_arguments["sampling"] = "all"
        batch = as_batch(to_channels_last(videos, input_data_format))
        if not return_metadata:
            clips = [called.prepare_clip(video, **clip_arguments) for video in batch]
            return to_batch([called.to_pixel_values(clip.frames) for clip in clips], data_format, return_tensors)
        told = [called._clip_and_metadata(video, **clip_arguments) for video in batch]
        pixel_values = [called.to_pixel_values(clip.frames) for clip, _ in told]
        features = to_batch(pixel_values, data_format, return_tensors)
        features["video_metadata"] = [metadata for _, metadata in told]
        return features

    def _clip_and_metadata(
        self,
        video: object,
        index: VideoIndex | None = None,
        video_track: int | None = None,
        **arguments: Any,  # its own
    ) -> tuple[PreparedClip, VideoMetadata]:
        source = as_file(video)
        if not is_file_like(source):
            clip = self.prepare_clip(source, **arguments)
            num_frames = len(source) if isinstance(source, Sized) else len(clip.frame_indices)
            return clip, VideoMetadata(num_frames, frames_indices=clip.frame_indices.tolist())
        index = self._as_read(index, source, video_track)
        clip = self.prepare_clip(source, index=index, video_track=video_track, **arguments)
        metadata = VideoMetadata(index.num_frames, index.fps, index.width_px, index.height_px, index.duration_sec)
        metadata.video_backend, metadata.frames_indices = "pyav", clip.frame_indices.tolist()
        return clip, metadata


__all__ = ["EngagementInputError", "EngagementVideoProcessor", "EngagementVideosKwargs", "answer_film", "answer_window"]
