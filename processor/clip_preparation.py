"""A face video → a clip's frames and face crops, without torch.

Decode only what is needed → MTCNN faces → one person over the frames → level, square crops. `prepare_clip` returns
frames, boxes, landmarks and in which frames the face was found; `prepare_spans` does so for many spans of one file.
The transformers video processor and that of an export inherit it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from .face_preparation import FacePreparation, PreparedClip
from .film_windows import FilmWindow, plan_windows
from .input_errors import EngagementInputError, NoFaceError, VideoReadError
from .media_files import MediaSource, fetch, is_file_like
from .media_inputs import DecoderFrames, as_file, stack_frames
from .video_decoding import (
    DecodedFrames,
    clip_frame_indices,
    consecutive_frame_indices,
    decode_video,
    frames_between,
    sampling_notes,
    uniform_frame_indices,
    window_start_frames,
)
from .video_index import VideoIndex


class ClipPreparation(FacePreparation):
    """Settings and steps of all readers of clips; the two fields below are saved in the processor's config."""

    num_frames = 8  # per clip
    # "uniform": the centres of as many equal segments of the clip; "consecutive": neighbouring frames.
    sampling = "uniform"

    def prepare_clip(
        self,
        video: object,
        num_frames: int | None = None,
        sampling: str | None = None,
        start_frame: int = 0,
        clip_start_sec: float | None = None,
        clip_end_sec: float | None = None,
        face_crop: bool | None = None,
        index: VideoIndex | None = None,
        video_track: int | None = None,
    ) -> PreparedClip:
        """One video → its sampled frames, and the person's boxes, landmarks, found flags and crops.

        Args:
            video: a path, URL, bytes, binary file, decoder, array or tensor of frames, or list of pictures.
            num_frames, sampling, face_crop: override the processor's own.
            start_frame: where a consecutive window starts, in frames.
            clip_start_sec, clip_end_sec: the labelled span within a file, in seconds as players show them.
            index: of the same file, if already known (`index_file`).
            video_track: counted from 1, for a file with several; None: the default one.

        Raises:
            EngagementInputError: the video is unreadable, or no sampled frame shows a face (`NoFaceError`).
        """
        num_frames = self.num_frames if num_frames is None else num_frames
        sampling = sampling or self.sampling
        video = as_file(video)
        if is_file_like(video):
            if sampling == "all":
                raise EngagementInputError("do_sample_frames=False needs frames as an array, got a video file.")
            index = self._as_read(index, video, video_track)
            span = (start_frame, clip_start_sec, clip_end_sec)
            decoded = decode_video(index.source, num_frames, sampling, *span, index=index, reader=self.reader)
            clip = _not_cropped(decoded, sampling)
        elif not (clip_start_sec is clip_end_sec is video_track is None):
            raise EngagementInputError("clip_start_sec, clip_end_sec and video_track need a video file, got frames.")
        else:
            clip = _sample_frames(stack_frames(video, self.load_picture), num_frames, sampling, start_frame)
        return self.finish_clip(clip, face_crop)

    def index_file(self, video: MediaSource, video_track: int | None = None, whole: bool = True) -> VideoIndex:
        """Index of a file's frames, with this processor's settings; arguments and errors as for `index_video`."""
        return self.reader.index_video(fetch(video), whole=whole, video_track=video_track, as_played=self.as_played)

    def _as_read(self, index: VideoIndex | None, video: MediaSource, video_track: int | None = None) -> VideoIndex:
        """The index, made again if it has a different `as_played` or track, and so different pictures."""
        if index is not None and index.as_played == self.as_played and video_track in (None, index.track + 1):
            return index
        return self.index_file(video if index is None else index.source, video_track)

    def windows_of(
        self, index: VideoIndex, clip_sec: float | None, step_sec: float | None = None, reads_clips: bool = True
    ) -> list[FilmWindow]:
        """The windows of a video to read, sorted by start; arguments as for `film_windows.plan_windows`."""
        clip_sec = clip_sec if self.sampling == "uniform" else None  # else windows are a few neighbouring frames
        return plan_windows(
            index.duration_sec, self.num_frames, clip_sec, step_sec, reads_clips, index.start_sec, index.path
        )

    def sample_windows(
        self,
        video: MediaSource,
        window_stride_frames: int,
        num_frames: int | None = None,
        clip_start_sec: float | None = None,
        clip_end_sec: float | None = None,
    ) -> Iterator[PreparedClip]:
        """Windows of `num_frames` consecutive frames, one every `window_stride_frames`, before face detection.

        The CNN + LSTM reference's windows. A clip shorter than one window gives one, with its last frame repeated. Pass
        each to `finish_clip`. Only overlapping windows are held in memory, however long the video.

        Raises:
            EngagementInputError: the video cannot be read.
        """
        num_frames = self.num_frames if num_frames is None else num_frames
        index = self.index_file(video)
        first, end = frames_between(index, clip_start_sec, clip_end_sec)
        starts = first + window_start_frames(end - first, num_frames, window_stride_frames)
        windows = np.minimum(starts[:, None] + np.arange(num_frames), end - 1)  # (windows, num_frames)
        for decoded in self.reader.decode_clips(index, list(windows)):
            if isinstance(decoded, VideoReadError):
                raise decoded
            yield _not_cropped(decoded, "consecutive")

    def prepare_spans(
        self, video: object, spans_sec: Sequence[tuple[float, float]], index: VideoIndex | None = None
    ) -> Iterator[PreparedClip | EngagementInputError]:
        """`prepare_clip` for many spans of one file, which is decoded once for all of them.

        One entry per span, in order: the result of `prepare_clip(video, clip_start_sec=..., clip_end_sec=...)`, or the
        `NoFaceError` of a span without a face, or the `VideoReadError` of a span with a frame that is missing or
        damaged. Only the frames of overlapping spans are held in memory, however long the file. Repeated frames are
        counted in each clip, but not logged. In damaged files, MPEG-2's decoder loses the picture before one that it
        refuses, so a span that ends there is refused too; and if packets do not tell which frame they contain, damage
        that the decoder reports more than 32 frames late goes unnoticed.

        Args:
            video: a path, URL, bytes or binary file.
            spans_sec: start and end of each, in seconds of the file's clock; sorted by start, may overlap.
            index: of the same file, if already known.

        Raises:
            EngagementInputError: not a video file, or a span outside it; raised before decoding.
            VideoReadError: not a complete, decodable video, or changed since it was indexed.
        """
        video = as_file(video)
        if not is_file_like(video):
            raise EngagementInputError(f"Spans can only be taken from a video file, got {type(video).__name__}.")
        index = self._as_read(index, video)
        clips = [
            clip_frame_indices(index, self.num_frames, self.sampling, 0, start_sec, end_sec)
            for start_sec, end_sec in spans_sec
        ]
        # With map, which does not keep a clip's frames in memory while the next clip's are decoded.
        return map(self._finish_span, self.reader.decode_clips(index, clips))

    def _finish_span(self, decoded: DecodedFrames | VideoReadError) -> PreparedClip | EngagementInputError:
        if isinstance(decoded, VideoReadError):
            return decoded
        try:
            return self.finish_clip(_not_cropped(decoded, self.sampling))
        except (NoFaceError, VideoReadError) as error:  # VideoReadError: of frames that are decoded on access
            return error.with_traceback(None)  # the traceback would keep the clip's frames alive

    def finish_clip(self, clip: PreparedClip, face_crop: bool | None = None) -> PreparedClip:
        """Sampled frames → the clip with face crops, or with whole frames at the crop's size.

        Raises:
            NoFaceError: no face in any of the frames.
        """
        if not (self.face_crop if face_crop is None else face_crop):
            return replace(clip, frames=self.shrink_whole_frames(clip.whole_frames))
        person = self.find_person(clip.whole_frames, clip.source)
        crops, crop_transforms = self.crop(clip.whole_frames, person.boxes_xyxy_px, person.landmarks_xy_px)
        return replace(
            clip,
            frames=crops,
            found=person.found,
            boxes_xyxy_px=person.boxes_xyxy_px,
            landmarks_xy_px=person.landmarks_xy_px,
            probabilities=person.probabilities,
            transforms=crop_transforms,
            num_people=person.num_people,
        )


def _not_cropped(decoded: DecodedFrames, sampling: str) -> PreparedClip:
    frames = cast("np.ndarray", decoded.frames)  # until `finish_clip`; very large frames are decoded on access
    notes = decoded.index.notes + sampling_notes(decoded.index, len(decoded.frame_indices), sampling)
    return PreparedClip(
        decoded.index.path, frames, decoded.frames, decoded.frame_indices, decoded.frame_times_sec,
        decoded.num_repeated_frames, notes=notes,
    )  # fmt: skip


def _sample_frames(
    frames: np.ndarray | DecoderFrames, num_frames: int, sampling: str, start_frame: int
) -> PreparedClip:
    """The same sampling for frames given as arrays; `"all"` takes every frame."""
    if sampling == "all":
        indices = np.arange(len(frames))
    elif sampling == "uniform" and start_frame == 0:
        indices = uniform_frame_indices(len(frames), num_frames)
    elif sampling == "consecutive":
        indices = consecutive_frame_indices(len(frames), num_frames, start_frame)
    else:
        expected = 'sampling "consecutive", or "uniform" with start_frame 0'  # the same message as decode_video's
        raise EngagementInputError(f"Expected {expected}, got {sampling!r} with start_frame {start_frame}.")
    sampled = frames[indices]
    times_sec = np.full(len(indices), np.nan)
    return PreparedClip("<frames>", sampled, sampled, indices, times_sec, len(indices) - len(np.unique(indices)))
