"""Tiny videos whose every frame bears its number, encoded here; what comes out is told by reading the number back.

What must hold: the frames asked for, bit for bit as a full decode has them, or an error that names file and reason.
"""

import io
import logging
import os
import struct
import time
from pathlib import Path

import av
import numpy as np
import pytest
from numbered_videos import (
    HEIGHT_PX,
    WIDTH_PX,
    decode_frames_at,
    decode_plainly,
    encode,
    numbered_picture,
    numbers_in,
    write_sound,
)
from places import REAL_DATA

from engagement_recognition.processor import video_container, video_pass
from engagement_recognition.processor.input_errors import (
    EngagementInputError,
    NoDecodableFrameError,
    NoVideoStreamError,
    TruncatedVideoError,
    VideoReadError,
    VideoTooLargeError,
)
from engagement_recognition.processor.video_decoding import (
    consecutive_frame_indices,
    decode_video,
    index_video,
    uniform_frame_indices,
)

X265_QUIET = "log-level=none:"
REAL_VIDEOS = sorted((REAL_DATA / "videos").glob("*.m*")) if REAL_DATA.is_dir() else []

# name: (codec, encoder options, muxer options)
STREAMS = {
    "h264.mp4": ("libx264", {}, {}),
    "h264_short_groups.mp4": ("libx264", {"g": "12", "sc_threshold": "0"}, {}),  # groups begin at 0, 12, 24 and 36
    "h264_no_b_frames.mp4": ("libx264", {"g": "12", "bf": "0"}, {}),
    "h264_open_groups.mp4": ("libx264", {"x264-params": "open-gop=1:keyint=12:bframes=4:b-pyramid=2"}, {}),
    "h264_open_groups.mkv": ("libx264", {"x264-params": "open-gop=1:keyint=12:bframes=4:b-pyramid=2"}, {}),
    "h264_intra_refresh.mp4": ("libx264", {"x264-params": "intra-refresh=1:keyint=12"}, {}),
    "h264_faststart.mp4": ("libx264", {"g": "12"}, {"movflags": "faststart"}),
    "h264_fragmented.mp4": ("libx264", {"g": "12"}, {"movflags": "frag_keyframe+empty_moov"}),
    "h264.mkv": ("libx264", {"g": "12"}, {}),
    "h264.avi": ("libx264", {"g": "12"}, {}),  # AVI's timestamps count packets: the order is known only by decoding
    "h264.ts": ("libx264", {"g": "12"}, {}),
    "hevc.mp4": ("libx265", {"x265-params": X265_QUIET + "keyint=12:open-gop=0"}, {}),
    "hevc_open_groups.mkv": ("libx265", {"x265-params": X265_QUIET + "keyint=12:open-gop=1"}, {}),
    "mpeg4.avi": ("mpeg4", {"g": "12"}, {}),
    "mpeg4_b_frames.avi": ("mpeg4", {"g": "12", "bf": "2"}, {}),
    "mpeg4_b_frames.mp4": ("mpeg4", {"g": "12", "bf": "2"}, {}),
    "mjpeg.avi": ("mjpeg", {}, {}),
    "vp8.webm": ("libvpx", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "16"}, {}),
    "vp8_live.webm": ("libvpx", {"g": "12"}, {"live": "1"}),
    "vp9.webm": ("libvpx-vp9", {"g": "12", "cpu-used": "5"}, {}),
    "av1.mp4": ("libsvtav1", {"g": "12", "preset": "11"}, {}),
    "av1_low_delay.webm": ("libsvtav1", {"g": "12", "preset": "11", "svtav1-params": "pred-struct=1"}, {}),
    "av1_one_group.ivf": ("libsvtav1", {"g": "999", "preset": "11"}, {}),
    "mpeg2.mpg": ("mpeg2video", {"bf": "2"}, {}),
    "wmv.wmv": ("wmv2", {}, {}),
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    for name, (codec, options, mux) in STREAMS.items():
        encode(folder / name, codec, options, mux)
    return {name: folder / name for name in STREAMS}


@pytest.mark.parametrize(
    ("num_available", "num_frames", "expected"),
    [
        (300, 8, [18, 56, 93, 131, 168, 206, 243, 281]),
        (8, 8, list(range(8))),
        (5, 8, [0, 0, 1, 2, 2, 3, 4, 4]),
        (1, 3, [0, 0, 0]),
    ],
)
def test_uniform_frames_are_centres_of_equal_segments(num_available, num_frames, expected):
    assert uniform_frame_indices(num_available, num_frames).tolist() == expected


@pytest.mark.parametrize(
    ("num_available", "num_frames", "start", "expected"), [(9, 3, 4, [4, 5, 6]), (5, 4, 3, [3, 4, 4, 4])]
)
def test_consecutive_frames_repeat_the_last(num_available, num_frames, start, expected):
    assert consecutive_frame_indices(num_available, num_frames, start).tolist() == expected


@pytest.mark.parametrize("start_frame", [-1, 5])
def test_consecutive_start_outside_the_video_is_refused(start_frame):
    with pytest.raises(EngagementInputError, match="from 0 to 4"):
        consecutive_frame_indices(5, 3, start_frame)


@pytest.mark.parametrize("name", STREAMS)
def test_any_frame_of_any_stream_is_exactly_what_a_full_decode_gives(videos, name):
    # Frame by frame and in odd company, since a shortcut goes wrong only for some starting points.
    plain = decode_plainly(videos[name])
    index = index_video(videos[name])
    assert index.num_frames == len(plain) == 40
    assert index.fps == pytest.approx(30, abs=0.02)
    alone = [[k] for k in (0, 1, 10, 11, 12, 13, 23, 24, 25, 38, 39)]
    for frame_indices in [*alone, uniform_frame_indices(40, 8), [39, 3, 3, 20], range(40), [13, 14, 15]]:
        decoded = decode_frames_at(index, frame_indices)
        np.testing.assert_array_equal(decoded.frames, plain[list(frame_indices)], err_msg=f"{name} {frame_indices}")
        assert numbers_in(decoded.frames) == list(frame_indices)


def test_only_groups_that_hold_a_wanted_frame_are_fed(videos, monkeypatch):
    # The point of the module: without this test it could decode everything and pass all the others.
    fed = []
    decode_packet = video_pass.decode_packet
    index = index_video(videos["h264_short_groups.mp4"])
    monkeypatch.setattr(video_pass, "decode_packet", lambda *args: fed.append(args[2]) or decode_packet(*args))
    decode_frames_at(index, [25])
    assert min(fed) >= 24
    assert len(fed) <= 12


@pytest.mark.parametrize("num_frames", [1, 2, 5, 7, 8, 9])
@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "libx264"), ("avi", "libx264"), ("webm", "libvpx")])
def test_a_short_video_gives_the_frames_asked_for_and_says_so(tmp_path, caplog, num_frames, suffix, codec):
    path = tmp_path / f"clip.{suffix}"
    encode(path, codec, num_frames=num_frames)
    with caplog.at_level(logging.WARNING):
        decoded = decode_video(path, 8)
    expected = [(2 * k + 1) * num_frames // 16 for k in range(8)]
    assert numbers_in(decoded.frames) == decoded.frame_indices.tolist() == expected
    assert decoded.num_repeated_frames == max(0, 8 - num_frames)
    assert len(caplog.records) == (num_frames < 8)
    if num_frames == 5:
        assert all(words in caplog.text for words in ("clip.", "5 frames", "8 were", "3 are repeats"))


@pytest.mark.parametrize("fps", [1, 240])
def test_frame_rate_gives_times_and_clips(tmp_path, fps):
    encode(tmp_path / "clip.mp4", fps=fps, num_frames=24)
    index = index_video(tmp_path / "clip.mp4")
    np.testing.assert_allclose(index.frame_times_sec, np.arange(24) / fps, atol=1e-9)
    assert index.duration_sec == pytest.approx(24 / fps)
    clip = decode_video(index.path, 4, "consecutive", 1, clip_start_sec=10 / fps, clip_end_sec=20 / fps, index=index)
    assert numbers_in(clip.frames) == [11, 12, 13, 14]
    assert decode_video(index.path, 1, clip_start_sec=10.2 / fps, clip_end_sec=10.8 / fps).frame_indices == [10]


@pytest.mark.parametrize(
    "arguments",
    [{"clip_start_sec": 99}, {"clip_start_sec": 1, "clip_end_sec": 0.5}, {"sampling": "random"}, {"start_frame": 2}],
)
def test_clips_and_options_that_make_no_sense_are_refused(videos, arguments):
    with pytest.raises(EngagementInputError, match="Expected"):
        decode_video(videos["h264.mkv"], **arguments)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_frame_rate_and_a_late_start(tmp_path, suffix):
    pts = [100 + k + k * k // 8 for k in range(24)]
    encode(tmp_path / f"clip.{suffix}", options={"g": "6"}, num_frames=24, pts=pts)
    decoded = decode_frames_at(tmp_path / f"clip.{suffix}", range(24))
    assert numbers_in(decoded.frames) == list(range(24))
    np.testing.assert_allclose(decoded.frame_times_sec, (np.array(pts) - 100) / 30, atol=1.1e-3)


def test_frames_an_edit_list_hides_stay_hidden(tmp_path):
    # MP4 keeps frames before time zero for the decoder's sake alone.
    encode(tmp_path / "clip.mp4", num_frames=24, pts=[k - 7 for k in range(24)])
    decoded = decode_frames_at(tmp_path / "clip.mp4", range(17))
    assert decoded.index.num_frames == 17
    assert numbers_in(decoded.frames) == list(range(7, 24))


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_is_applied(tmp_path, rotation):
    encode(tmp_path / "turned.mp4", num_frames=9, rotation=rotation)
    decoded = decode_frames_at(tmp_path / "turned.mp4", [3, 8])
    assert decoded.frames.shape[1:3] == (decoded.index.height_px, decoded.index.width_px)
    assert numbers_in(np.rot90(decoded.frames, -rotation // 90, axes=(1, 2))) == [3, 8]
    assert (decoded.index.width_px > decoded.index.height_px) == (rotation == 180)


def test_a_mirror_in_the_display_matrix_is_applied(tmp_path):
    with av.open(str(tmp_path / "mirror.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=30, width=WIDTH_PX, height=HEIGHT_PX, pix_fmt="yuv420p")
        stream.set_display_rotation(0, hflip=True)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered_picture(11), format="rgb24")))
        container.mux(stream.encode())
    assert numbers_in(decode_frames_at(tmp_path / "mirror.mp4", [0]).frames[:, :, ::-1]) == [11]


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("grey.mkv", "ffv1", "gray"),
        ("grey10.mkv", "ffv1", "gray10le"),
        ("10bit.mp4", "libx264", "yuv420p10le"),
        ("alpha.mov", "png", "rgba"),
        ("alpha.webm", "libvpx-vp9", "yuva420p"),
    ],
)
def test_grey_ten_bit_and_alpha_come_out_as_rgb(tmp_path, name, codec, pixel_format):
    encode(tmp_path / name, codec, num_frames=9, pixel_format=pixel_format)
    decoded = decode_frames_at(tmp_path / name, [8, 2])
    assert decoded.frames.dtype == np.uint8 and decoded.frames.shape == (2, HEIGHT_PX, WIDTH_PX, 3)
    assert numbers_in(decoded.frames) == [8, 2]


def test_bytes_and_file_objects_are_read_like_files(videos):
    data = videos["vp8.webm"].read_bytes()
    expected = decode_video(videos["vp8.webm"]).frames
    np.testing.assert_array_equal(decode_video(data).frames, expected)
    np.testing.assert_array_equal(decode_video(io.BytesIO(data)).frames, expected)
    with pytest.raises(VideoReadError, match="<bytes>"):
        decode_video(b"no video")


@pytest.mark.parametrize(
    "name", ["two  blanks.mp4", "vidéo 学生 😀.mp4", "a%03d:b#?.mp4", "wrong_suffix.avi", "no_suffix"]
)
def test_names_do_not_matter(videos, tmp_path, name):
    (tmp_path / name).write_bytes(videos["h264.mp4"].read_bytes())
    assert numbers_in(decode_video(tmp_path / name, 2).frames) == [10, 30]


@pytest.mark.parametrize(
    ("write", "error", "reason"),
    [
        (lambda path: None, VideoReadError, "no such file"),
        (lambda path: path.mkdir(), VideoReadError, "directory"),
        (lambda path: os.mkfifo(path), VideoReadError, "device or pipe"),
        (lambda path: path.write_bytes(b""), VideoReadError, "0 bytes"),
        (lambda path: path.write_text("lecture notes\n" * 99), VideoReadError, "no known container"),
        (lambda path: path.write_text("#EXTM3U\n#EXTINF:1,\nhttp://localhost/a.ts\n"), VideoReadError, "no known"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99)), VideoReadError, "PNG.*single-face model"),
        (lambda path: path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(99)), VideoReadError, "JPEG.*single-face model"),
        (write_sound, NoVideoStreamError, "audio only"),
    ],
)
def test_what_is_no_video_is_refused_in_one_line(tmp_path, capfd, write, error, reason):
    write(tmp_path / "lecture.mp4")
    with pytest.raises(error, match=reason) as caught:
        decode_video(tmp_path / "lecture.mp4")
    assert type(caught.value) is error
    assert "lecture.mp4" in str(caught.value) and "\n" not in str(caught.value)
    assert capfd.readouterr().err == "", "FFmpeg's own messages must not reach the user"


def test_an_unreadable_file_is_refused(videos, monkeypatch):
    # By a stand-in, because to root, who runs many a container, every file is readable.
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(VideoReadError, match=r"Permission denied.*h264\.mp4"):
        decode_video(videos["h264.mp4"])


def test_an_address_is_refused():
    with pytest.raises(VideoReadError, match="download it first"):
        decode_video("https://localhost/clip.mp4")


def test_a_16k_header_is_refused_before_a_frame_is_decoded(tmp_path):
    data = encode(tmp_path / "clip.avi", "ffv1", num_frames=3)
    huge = data.replace(struct.pack("<II", WIDTH_PX, HEIGHT_PX), struct.pack("<II", 15360, 8640))
    assert huge != data
    start = time.perf_counter()
    with pytest.raises(VideoTooLargeError, match="15360x8640"):
        decode_video(huge)
    assert time.perf_counter() - start < 1
    with pytest.raises(VideoTooLargeError, match="96x72"):
        decode_video(data, max_pixels=95 * 72)
    assert video_container.DEFAULT_MAX_PIXELS >= 8192 * 4320, "8K must pass"


# A live WebM or a transport stream does not say how long it is; its end is wherever it ends.
KNOWS_ITS_LENGTH = [name for name in STREAMS if name.endswith((".mp4", ".mkv", ".avi", "vp8.webm", "vp9.webm"))]


@pytest.mark.parametrize("kept", [0.5, 0.9])
@pytest.mark.parametrize("name", KNOWS_ITS_LENGTH)
def test_a_file_cut_short_is_called_truncated(videos, tmp_path, name, kept):
    data = videos[name].read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(TruncatedVideoError, match=rf"truncated after frame \d+.*{name}"):
        decode_video(tmp_path / name)


def test_truncation_says_how_much_is_left(videos, tmp_path):
    data = videos["h264_faststart.mp4"].read_bytes()
    with pytest.raises(TruncatedVideoError, match=r"frame (1\d|2\d) of about 40"):
        decode_video(data[: len(data) * 2 // 3])


def test_a_live_recording_may_just_end(videos):
    data = videos["vp8_live.webm"].read_bytes()
    decoded = decode_video(data[: len(data) // 2], 4)
    assert 5 < decoded.index.num_frames < 40
    assert numbers_in(decoded.frames) == uniform_frame_indices(decoded.index.num_frames, 4).tolist()


def test_a_frame_count_that_lies_changes_nothing(videos):
    data = videos["mpeg4.avi"].read_bytes()
    at = data.index(b"avih") + 8 + 16  # dwTotalFrames
    lying = data[:at] + struct.pack("<I", 300) + data[at + 4 :]
    assert index_video(lying).num_frames == 40


def test_a_missing_head_is_refused(videos):
    for name in ("h264.mp4", "h264.mkv", "mpeg4.avi"):
        data = videos[name].read_bytes()
        with pytest.raises(VideoReadError, match="<bytes>"):
            decode_video(data[len(data) // 20 :])


def test_a_damaged_frame_is_named_and_the_others_still_come(videos):
    path = videos["h264_short_groups.mp4"]
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    position, size = packets[24]  # the third group's first picture, on which all of that group lean
    data[position + size // 2 : position + size] = np.random.default_rng(0).bytes(size - size // 2)
    with pytest.raises(NoDecodableFrameError, match=r"frame 25 of 40.*<bytes>"):
        decode_frames_at(bytes(data), [2, 25])
    assert numbers_in(decode_frames_at(bytes(data), [2, 38]).frames) == [2, 38]


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "h264.avi", "h264.ts", "hevc.mp4", "mpeg4.avi", "vp8.webm"])
def test_flipped_bits_give_frames_or_a_typed_error(videos, name):
    random = np.random.default_rng(7)
    data = videos[name].read_bytes()
    for _ in range(12):
        damaged = bytearray(data)
        for position in random.integers(len(data), size=3):
            damaged[position] ^= 1 << random.integers(8)
        try:
            decoded = decode_video(bytes(damaged))
        except EngagementInputError as error:
            assert "<bytes>" in str(error) and "\n" not in str(error)
        else:
            assert len(decoded.frames) == len(decoded.frame_indices) == 8


def test_an_index_of_a_file_that_changed_is_not_trusted(videos, tmp_path):
    path = tmp_path / "clip.mp4"
    encode(path, num_frames=12)
    index = index_video(path)
    encode(path, "mpeg4", num_frames=12)
    with pytest.raises(VideoReadError, match=r"clip\.mp4 has changed"):
        decode_frames_at(index, [5])


def test_frame_numbers_outside_the_video_are_refused(videos):
    for frame_indices in ([], [-1], [40]):
        with pytest.raises(EngagementInputError, match="from 0 to 39"):
            decode_frames_at(videos["h264.mp4"], frame_indices)


@pytest.mark.real_data
@pytest.mark.skipif(not REAL_VIDEOS, reason="no real videos in ../shared/data (or ENGAGEMENT_REAL_DATA)")
@pytest.mark.parametrize("path", REAL_VIDEOS, ids=lambda path: path.name)
def test_real_videos_come_out_as_from_a_full_decode(path):
    decoded = decode_video(path)
    with av.open(str(path)) as container:
        wanted = set(decoded.frame_indices.tolist())
        plain = [f.to_ndarray(format="rgb24") for k, f in enumerate(container.decode(video=0)) if k in wanted]
    np.testing.assert_array_equal(decoded.frames, np.stack(plain))
