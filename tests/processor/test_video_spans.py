"""Many clips of one film in one pass: each is what it is by itself, no packet is decoded twice, few frames are held."""

import gc
import logging
import weakref
from dataclasses import fields, replace
from pathlib import Path

import av
import numpy as np
import pytest
from numbered_videos import decode_frames_at, encode, numbers_in

from engagement_recognition import EngagementVideoProcessor
from engagement_recognition.data.drawn.datasets import encode_video
from engagement_recognition.data.drawn.faces import FacePose, draw_frame, draw_people, draw_subject
from engagement_recognition.processor import video_bitstream, video_packets, video_pass
from engagement_recognition.processor.face_preparation import PreparedClip
from engagement_recognition.processor.input_errors import EngagementInputError, NoFaceError, VideoReadError
from engagement_recognition.processor.video_decoding import DecodedFrames, decode_clips
from engagement_recognition.processor.video_index import VideoIndex, index_video

NUM_FRAMES = 120
X265 = "log-level=none:"
# name: (codec, encoder options)
FILMS = {
    "h264_groups.mp4": ("libx264", {"g": "12", "sc_threshold": "0"}),
    "h264_one_group.mp4": ("libx264", {"g": "9999", "sc_threshold": "0"}),
    "hevc_open_groups.mkv": ("libx265", {"x265-params": f"{X265}keyint=12:open-gop=1"}),
    "hevc_one_group.mp4": ("libx265", {"x265-params": f"{X265}keyint=9999:scenecut=0"}),
    "vp8_one_group.webm": ("libvpx", {"g": "9999"}),  # as WebRTC records
    "mpeg2.mp4": ("mpeg2video", {"bf": "2"}),
    "av1.mp4": ("libsvtav1", {"g": "24", "preset": "11"}),
    "wmv.wmv": ("wmv2", {}),
}
SPANS = [np.arange(first, first + 24, 5) for first in range(0, 90, 9)]  # each overlaps the next two


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("films")
    for name, (codec, options) in FILMS.items():
        encode(folder / name, codec, options, num_frames=NUM_FRAMES)
    return {name: folder / name for name in FILMS}


def alone(index: VideoIndex, clip: np.ndarray) -> DecodedFrames | VideoReadError:
    try:
        return decode_frames_at(index, clip)
    except VideoReadError as error:
        return error


def packets_of(path: Path) -> list[tuple[int, int]]:
    """(position, size) in the file."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the packets that the decoder is given."""
    numbers: list[int] = []
    decode = video_pass.decode_packet

    def decode_packet(context, packet, number, refused):
        numbers.extend([] if packet is None else [number])
        return decode(context, packet, number, refused)

    monkeypatch.setattr(video_pass, "decode_packet", decode_packet)
    return numbers


@pytest.mark.parametrize("name", FILMS)
def test_clips_come_out_as_each_by_itself_and_no_packet_is_decoded_twice(films, fed, name):
    index = index_video(films[name])
    expected = [alone(index, clip) for clip in SPANS]
    fed.clear()
    for clip, want, got in zip(SPANS, expected, decode_clips(index, SPANS), strict=True):
        assert numbers_in(got.frames) == clip.tolist()
        np.testing.assert_array_equal(got.frames, want.frames)
        np.testing.assert_array_equal(got.frame_times_sec, want.frame_times_sec)
    assert len(fed) == len(set(fed)) <= NUM_FRAMES


def test_groups_that_no_clip_wants_are_not_decoded(films, fed):
    index = index_video(films["h264_groups.mp4"])
    clips = [np.array([13, 14]), np.array([100, 98])]
    assert [numbers_in(clip.frames) for clip in decode_clips(index, clips)] == [[13, 14], [100, 98]]
    assert len(fed) <= 2 * 12


@pytest.mark.parametrize("name", ["h264_groups.mp4", "vp8_one_group.webm", "mpeg2.mp4"])
def test_memory_holds_the_frames_of_open_clips_however_long_the_film(films, monkeypatch, name):
    alive: list[weakref.ref] = []
    convert = video_pass.to_shown

    def upright_rgb(*args):
        picture = convert(*args)
        alive.append(weakref.ref(picture))
        return picture

    monkeypatch.setattr(video_pass, "to_shown", upright_rgb)
    index = index_video(films[name])
    most = 0
    for _ in decode_clips(index, [np.arange(first, first + 8, 2) for first in range(0, NUM_FRAMES - 8, 4)]):
        most = max(most, sum(picture() is not None for picture in alive))
    gc.collect()
    # Clips of 4 frames, two of them the next clip's; what is decoded while a frame settles comes on top.
    assert most <= 4 + 4 + video_pass.SETTLING_FRAMES // 2 < len(alive) // 2
    assert not any(picture() is not None for picture in alive)


def spoil(film: Path, number: int) -> bytes:
    """The film with noise in the second half of one packet."""
    data = bytearray(film.read_bytes())
    position, size = packets_of(film)[number]
    data[position + size // 2 : position + size] = np.random.default_rng(0).bytes(size - size // 2)
    return bytes(data)


def hide(film: Path, number: int) -> bytes:
    """The film with one packet's picture marked as a NAL unit of a kind that decoders pass over."""
    data = bytearray(film.read_bytes())
    data[packets_of(film)[number][0] + 4] = 48 << 1 if film.name.startswith("hevc") else 3 << 5 | 30
    return bytes(data)


def decode_both_ways(index: VideoIndex) -> str:
    """A letter per clip, "g" for good, "x" for an error; each must be as the clip is by itself."""
    letters = ""
    for clip, got in zip(SPANS, decode_clips(index, SPANS), strict=True):
        want = alone(index, clip)
        if isinstance(want, VideoReadError):
            assert (type(got), str(got)) == (type(want), str(want))
        else:
            np.testing.assert_array_equal(got.frames, want.frames)
        letters += "x" if isinstance(want, VideoReadError) else "g"
    return letters


@pytest.mark.parametrize(
    ("name", "number", "letters"),
    [
        # The sixth clip is the first with a frame from 60 on. In one group all that follow lean on the damaged packet.
        ("h264_groups.mp4", 60, "gggggxxxgg"),
        ("h264_one_group.mp4", 62, "gggggxxxxx"),
        ("hevc_one_group.mp4", 62, "gggggxxxxx"),
    ],
)
def test_a_picture_that_goes_missing_costs_the_clips_that_lean_on_it(films, name, number, letters):
    index = replace(index_video(films[name]), source=hide(films[name], number))
    assert decode_both_ways(index) == letters


@pytest.mark.parametrize("name", ["h264_one_group.mp4", "mpeg2.mp4"])
def test_damage_that_the_decoder_tells_of_late_is_not_missed(films, name):
    # A picture that is flagged as damaged may be shown after others that lean on it. No clip ends just before these
    # packets: MPEG-2's decoder loses the picture that it holds back when it refuses the next.
    index = index_video(films[name])
    found = {decode_both_ways(replace(index, source=spoil(films[name], number))) for number in range(59, 67)}
    assert any("x" in letters for letters in found)
    assert all(letters.startswith("gggg") for letters in found)


# AV1


def test_av1_is_indexed_without_decoding_it(films, monkeypatch):
    decoded = []
    decode = video_packets.decode_packet
    monkeypatch.setattr(video_packets, "decode_packet", lambda *args: decoded.append(args[2]) or decode(*args))
    index = index_video(films["av1.mp4"])
    assert len(decoded) <= 2, "the first frame, for its size, and no more"
    assert index.frame_packets.tolist() == list(range(NUM_FRAMES))
    assert set(index.start_packets.tolist()) == set(range(0, NUM_FRAMES, 24))


SEQUENCE, KEY, INTER, HIDDEN, REPEAT = b"\x0a\1\0", b"\x32\1\x10", b"\x32\1\x30", b"\x32\1\x20", b"\x1a\1\x80"


@pytest.mark.parametrize(
    ("unit", "described"),
    [
        (SEQUENCE + KEY, (True, True, True)),
        (b"\x12\0" + SEQUENCE + KEY, (True, True, True)),  # with a temporal delimiter
        (SEQUENCE + b"\x30\x10", (True, True, True)),  # the last unit need not say how long it is
        (KEY, (False, True, False)),  # a decoder that begins here knows no sequence header
        (SEQUENCE + b"\x32\1\x00" + INTER, (False, True, True)),  # a key frame that is not shown at once
        (SEQUENCE + HIDDEN + KEY, (False, True, True)),
        (HIDDEN + INTER, (False, True, False)),
        (REPEAT, (False, True, False)),
        (HIDDEN, None),  # no frame comes out
        (INTER + INTER, None),
        (INTER + REPEAT, None),
        (SEQUENCE + b"\x36\0\1\x10", None),  # layers
        (b"\x0a\1\x08" + KEY, None),  # a still picture
        (SEQUENCE + b"\x32\2\x10", None),  # cut
        (SEQUENCE + b"\x32", None),
        (b"\x32\0", None),
    ],
)
def test_what_is_not_clear_of_av1_is_left_to_the_decoder(unit, described):
    assert video_bitstream.describe_packet("av1", unit, b"") == described


# Spans of a film, with faces

WIDTH_PX, HEIGHT_PX, FPS = 320, 240, 4


@pytest.fixture(scope="module")
def lecture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds; nobody is there from 4 to 8 s."""
    subject = draw_subject(3)
    frames = [draw_frame(subject, FacePose(yaw_deg=k - 24.0), WIDTH_PX, HEIGHT_PX) for k in range(12 * FPS)]
    frames[4 * FPS : 8 * FPS] = [draw_people([], WIDTH_PX, HEIGHT_PX)] * (4 * FPS)
    path = tmp_path_factory.mktemp("lecture") / "lecture.mp4"
    encode_video(path, iter(np.stack(frames)), FPS, WIDTH_PX, HEIGHT_PX, "mp4")
    return path


def small_processor(**settings: object) -> EngagementVideoProcessor:
    size = {"height": 32, "width": 32}
    return EngagementVideoProcessor(**{"size": size, "face_crop_size_px": 64, "num_frames": 4, **settings})


@pytest.mark.parametrize("sampling", ["uniform", "consecutive"])
def test_spans_come_out_as_prepare_clip_has_them(lecture: Path, sampling: str, caplog: pytest.LogCaptureFixture):
    processor = small_processor(sampling=sampling)
    spans = [(0.0, 4.0), (1.0, 5.0), (5.0, 7.0), (8.0, 10.0), (8.5, 9.0), (10.0, 12.0)]
    with caplog.at_level(logging.WARNING):
        got = list(processor.prepare_spans(lecture, spans))
    assert not caplog.records, "a line per span would be a flood"
    assert [isinstance(entry, NoFaceError) for entry in got] == [False, False, True, False, False, False]
    assert [entry.num_repeated_frames for entry in got if isinstance(entry, PreparedClip)] == [0, 0, 0, 2, 0]
    for (start_sec, end_sec), entry in zip(spans, got, strict=True):
        try:
            want = processor.prepare_clip(lecture, clip_start_sec=start_sec, clip_end_sec=end_sec)
        except NoFaceError as error:
            # A traceback would hold the frames of every span without a face.
            assert str(entry) == str(error) and entry.__traceback__ is entry.__context__ is None
        else:
            for field in fields(PreparedClip):
                np.testing.assert_array_equal(getattr(entry, field.name), getattr(want, field.name), field.name)


def test_a_damaged_span_is_an_entry_and_others_still_come_out(lecture: Path):
    index = replace(index_video(lecture), source=hide(lecture, 46))
    *good, last = small_processor(face_crop=False).prepare_spans(lecture, [(0, 4), (4, 8), (8, 12)], index)
    assert [isinstance(entry, PreparedClip) for entry in good] == [True, True]
    assert isinstance(last, VideoReadError) and "lecture.mp4" in str(last)


@pytest.mark.parametrize("spans", [[(0, 4), (13, 14)], [(3, 3)], [(-1, 2)]])
def test_a_span_outside_the_film_is_refused_before_anything_is_decoded(lecture: Path, fed: list[int], spans):
    index = index_video(lecture)
    with pytest.raises(EngagementInputError, match=r"within 0 to 12 s.*lecture\.mp4"):
        next(small_processor().prepare_spans(lecture, spans, index))
    assert not fed


def test_spans_are_of_files(lecture: Path):
    assert list(small_processor().prepare_spans(lecture.read_bytes(), [])) == []
    with pytest.raises(EngagementInputError, match="from a video file, got"):
        list(small_processor().prepare_spans(np.zeros((9, 8, 8, 3), np.uint8), [(0, 1)]))
