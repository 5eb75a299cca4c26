"""Which of a file's video tracks is read: the one that a player shows, or the one that was asked for."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import av
from av.stream import Disposition

from .input_errors import NoVideoStreamError


@dataclass(frozen=True)
class ChosenTrack:
    """A track by its place among a file's video tracks, from 0, and what to say of the choice."""

    place: int = 0
    notes: tuple[str, ...] = ()


def video_tracks(container: av.container.InputContainer) -> list[av.VideoStream]:
    """Those that are no cover picture."""
    return [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]


def choose_track(
    container: av.container.InputContainer,
    open_again: Callable[[], av.container.InputContainer],
    name: str,
    video_track: int | None = None,
    as_played: bool = True,
    on_packet: Callable[[], None] = lambda: None,
) -> ChosenTrack:
    """
    Args:
        open_again: the same file, to look for tracks without a picture; not called where there is one track.
        video_track: from 1, as people count; None: the default track, else the first. One without pictures, or of an
            unknown codec, is passed over.
        as_played: False: the first, whatever the file says is its default.
        on_packet: called for each packet that is read; of a track without a picture all of the file is.

    Raises:
        NoVideoStreamError: there is no such track, or no picture in it.
    """
    tracks = video_tracks(container)
    if video_track is not None:
        if not 1 <= video_track <= len(tracks):
            there = "1" if len(tracks) == 1 else f"1 to {len(tracks)}" if tracks else "0 (there is none)"
            raise NoVideoStreamError(f"Expected a video track from {there}, got {video_track}, in {name}; correct it.")
        if len(tracks) > 1 and not _places_with_packets(open_again, [video_track - 1], on_packet):
            raise NoVideoStreamError(
                f"Expected pictures in video track {video_track}, got an empty one of {len(tracks)}, in {name}; take "
                "another."
            )
        return ChosenTrack(video_track - 1)
    if len(tracks) < 2:
        return ChosenTrack()
    known = [place for place, track in enumerate(tracks) if track.codec_context is not None]
    filled = _places_with_packets(open_again, known, on_packet)
    defaults = [place for place in filled if tracks[place].disposition & Disposition.default]
    # Where nothing is left, the first says what is wrong with it.
    chosen = next(iter((defaults if as_played else []) or filled or known), 0)
    notes = [
        f"video track {place + 1} is {'empty' if place in known else 'of an unknown codec'} and passed over"
        for place in range(len(tracks))
        if filled and place not in filled
    ]
    if len(filled) > 1:
        which = "default" if as_played and defaults else "first"
        shown = f"; a player shows track {defaults[0] + 1}" if defaults and chosen != defaults[0] else ""
        notes.append(f"{len(tracks)} video tracks, the {which} one taken (track {chosen + 1}){shown}")
    return ChosenTrack(chosen, tuple(notes))


def _places_with_packets(
    open_again: Callable[[], av.container.InputContainer], places: list[int], on_packet: Callable[[], None]
) -> list[int]:
    """Of these tracks, those with at least one picture; of a file that is whole this is known after a few packets."""
    seen: set[int] = set()
    with open_again() as container:
        tracks = [video_tracks(container)[place] for place in places]
        numbers = {track.index: place for track, place in zip(tracks, places, strict=True)}
        with suppress(av.FFmpegError, IndexError):  # damage is told by whoever reads the pictures; see numbered_packets
            for packet in container.demux(tracks):
                on_packet()
                if packet.size:
                    seen.add(numbers[packet.stream.index])
                if len(seen) == len(places):
                    break
    return sorted(seen)
