"""Damaged films: what is lost is said, or the film is refused; healthy ones that look odd are neither."""

from pathlib import Path

import numpy as np
from damaged_films import (
    FPS,
    avi_of_two_minds,
    fillers_in_mkv,
    film,
    longer_segment,
    lost,
    mutations,
    over_fragment,
    over_packet,
    resize,
    row,
    shows,
    shrink,
    silent,
    whole,
    with_sound,
    within,
    without_packets,
    written,
    zeros_within_ts,
)  # fmt: skip
from rows import Comes, Expected, Refused, Row

from engagement_recognition.processor.input_errors import TruncatedVideoError, VideoReadError

REFUSED = Refused(("<bytes>", "Expected", "record it again"), VideoReadError)
CUT = Refused(
    ("<bytes>", "truncated after frame", "its data is damaged from byte", "record it again"), TruncatedVideoError
)
NO_FILM = Refused(("<bytes>", "Expected a", "in <bytes>"), VideoReadError)
EMPTY = Refused(("<bytes>", "got more than 10,000 empty boxes"), VideoReadError)
# Flipped bits in the tables of MP4 move a frame beyond its end, where a trimmed film has frames too.
FEW = Comes(that=lambda names: len(names) <= 12)
# What decodes a film without its box decodes it with a broken one.
WITHIN_TS = Comes(("8 of 48 frames are missing or damaged",), shows([*range(28), 29, *range(37, 48)]))
AT_END = Comes(("the file is damaged at its end",), shows(range(48)))
SHRUNK: list[tuple[str, str, int, Expected]] = [
    ("h264.mp4", "avcC", 2, REFUSED),
    ("hevc.mp4", "hvcC", 4, REFUSED),
    ("vp9.mp4", "vpcC", 1, NO_FILM),
    ("av1.mp4", "av1C", 2, whole()),
    ("mpeg4.mp4", "esds", 3, REFUSED),
]
ONES = b"\xff" * 7

# A screen recording: a burst, a pause, some frames now and then; in milliseconds.
SCREEN_MS = [*range(0, 800, 33), 2000, 5000, 5033, 9000, *range(12_000, 12_500, 50), 18_000]
# A camera at 30 frames a second that leaves out one now and then.
SKIPPING = [number for number in range(60) if number % 13 != 7]


def off(by: str) -> Comes:
    """Every frame, and a word on the size that is wrong."""
    return Comes((f"header promises {by} more", "no frame is missing"), shows(range(48)))


def hurried(name: str) -> bytes:
    """A second of the film's header is fifty of its edit list, which then shows the first frame alone."""
    data, clock = bytearray(film(name)), film(name).index(b"mvhd") + 16
    data[clock : clock + 4] = (50_000).to_bytes(4, "big")
    return bytes(data)


def screen(name: str, codec: str = "libx264") -> Row:
    options = {"num_frames": len(SCREEN_MS), "pts": SCREEN_MS, "fps": 1000, "options": {"g": "250"}}
    expect = whole(len(SCREEN_MS), np.array(SCREEN_MS) / 1000)
    return row(f"{Path(name).suffix[1:]} of a screen, at a rate that varies", written(name, codec, **options), expect)


def skipping(name: str, codec: str = "libx264") -> Row:
    expect = whole(len(SKIPPING), np.array(SKIPPING) / FPS)
    make = written(name, codec, num_frames=len(SKIPPING), pts=SKIPPING)
    return row(f"{Path(name).suffix[1:]} of a camera that leaves frames out", make, expect)


ROWS = [
    # Lost from the middle, up to the next group or cluster: a note, and the rest at its own times.
    row("mkv with a block's head overwritten", over_packet("h264.mkv", 30, ONES, -4), lost(30, 37)),
    row("mkv of mpeg4 with a block overwritten", over_packet("mpeg4.mkv", 36, ONES, -4), CUT),
    row("ts with packets overwritten by noise", over_packet("h264.ts", 30, bytes(range(256)), -4), lost(28, 37)),
    row("ts with packets taken out", without_packets("h264.ts", 18, 21), lost(16, 25)),
    row("flv with a tag's head overwritten", over_packet("h264.flv", 30, ONES, -6), lost(30, 37)),
    row("avi of h264 with a chunk's head overwritten", over_packet("h264.avi", 18, ONES, -8), lost(18, 25)),
    row("avi of mpeg4 with a run of zeros", over_packet("mpeg4.avi", 30, bytes(300), -8), lost(30, 36)),
    row("avi of mjpeg with one picture lost", over_packet("mjpeg.avi", 18, ONES, -8), lost(18, 19)),
    row("mp4 with a picture of zeros", over_packet("mpeg4.mp4", 25, bytes(140)), Comes(("of 48 frames are missing",))),
    # Left out by an edit list, as of a trimmed film.
    row(
        "mp4 of mpeg4 whose clock has a flipped bit",
        lambda folder: hurried("mpeg4.mp4"),
        Comes(("an edit list leaves out 47 of 48 frames",)),
    ),
    row(
        "mp4 of h264 whose clock has a flipped bit",
        lambda folder: hurried("h264.mp4"),
        Comes(("an edit list leaves out",)),
    ),
    # Lost up to the end, or most of it: refused.
    row("mkv of hevc with seven bytes overwritten", over_packet("hevc.mkv", 16, ONES, -4), CUT),
    row("webm of vp8 with seven bytes overwritten", over_packet("vp8.webm", 16, ONES, -4), CUT),
    row("webm of vp9 with zeros at its end", over_packet("vp9.webm", 46, bytes(60), -6), CUT),
    row("mkv with four kilobytes of zeros", over_packet("hevc.mkv", 20, bytes(2000), -6), REFUSED),
    row("mp4 in fragments, the last overwritten", over_fragment(3), CUT),
    row("mp4 in fragments, one in the middle overwritten", over_fragment(1), CUT),
    row("avi whose chunks and index contradict each other", avi_of_two_minds, REFUSED),
    row("webm whose first picture's head is lost", over_packet("vp8.webm", 0, ONES, -4), REFUSED),
    # Healthy, whatever they look like.
    screen("screen.mkv"),
    screen("screen.mp4"),
    screen("screen.webm", "libvpx"),
    screen("screen.flv"),
    screen("screen.ts"),
    skipping("camera.mkv"),
    skipping("camera.mp4"),
    skipping("camera.ts"),
    row("mkv whose sound outlasts the pictures", with_sound, whole(FPS)),
    row("webm of a live stream", written("live.webm", "libvpx", num_frames=48, mux={"live": "1"}), whole()),
    row("ts with zeros after its end", lambda folder: film("h264.ts") + bytes(188 * 4000), AT_END),
    row("ts with a megabyte of zeros within", zeros_within_ts, WITHIN_TS),
    row("mp4 with a maker's notes after its end", lambda folder: film("h264.mp4") + b"SEFT" * 999, whole()),
    # Sizes that are off by a few bytes.
    row("mp4 whose mdat promises too much", resize("h264_front.mp4", b"mdat", -4, 12, "big"), off("12 bytes"), 16),
    row(
        "mp4 whose mdat promises one byte too much", resize("h264_front.mp4", b"mdat", -4, 1, "big"), off("1 byte"), 16
    ),
    row("avi whose RIFF promises too much", resize("mpeg4.avi", b"RIFF", 4, 8, "little"), off("8 bytes"), 16),
    row("mkv whose segment promises too much", longer_segment, off("20 bytes"), 16),
    row("mp4 that is cut within its last picture", lambda folder: film("h264_front.mp4")[:-9], REFUSED, 16),
    # Heads cut short, and what is no head at all.
    row("mkv of four bytes", lambda folder: film("h264.mkv")[:4], NO_FILM, 25),
    row("mkv cut after the segment's name", lambda folder: film("h264.mkv")[:44], NO_FILM, 25),
    row("mkv whose sizes are nonsense", lambda folder: b"\x1a\x45\xdf\xa3" + b"\0" * 99, NO_FILM, 25),
    row("webm whose sizes are huge", lambda folder: b"\x1a\x45\xdf\xa3" + b"\1" + b"\xfe" * 99, NO_FILM, 25),
    row("flv of a head alone", lambda folder: b"FLV\1\5\0\0\0\x09", NO_FILM, 25),
    row("avi of a head alone", lambda folder: b"RIFF\xff\0\0\0AVI LIST", NO_FILM, 25),
    row("ogg of a head alone", lambda folder: b"OggS" + bytes(30), NO_FILM, 25),
    *(
        row(f"mp4 whose {box} is of {size} bytes", shrink(name, box.encode(), size), expect, 25)
        for name, box, size, expect in SHRUNK
    ),
    Row("10 MB of empty boxes", lambda folder: b"\0\0\0\x08free" * 1_310_720, within(2), EMPTY, 1),
    Row("10 MB of fillers in mkv", fillers_in_mkv, within(4), NO_FILM, 1),
    Row(
        "147 mutated films",
        lambda folder: list(mutations.mutants(147)),
        silent,
        Comes(that=lambda names: names == []),
        1,
    ),
    Row("2,000 mutated films", lambda folder: list(mutations.mutants(2000, 3)), silent, FEW, 1, slow=True),
]
