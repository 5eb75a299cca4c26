"""Chooses which of a file's video tracks is read: the one that a player shows, or the requested one."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import av
from av.stream import Disposition

from .input_errors import NoVideoStreamError


@dataclass(frozen=True)
class ChosenTrack:
    """A track by its place among a file's video tracks, from 0, and notes on the choice."""

    place: int = 0
    notes: tuple[str, ...] = ()


def video_tracks(container: av.container.InputContainer) -> list[av.VideoStream]:
    """The video tracks that are not cover pictures."""
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
        open_again: opens the same file, to find tracks without pictures; not called if there is one track.
        video_track: counted from 1; None: the default track, else the first. Tracks without pictures, or with an
            unknown codec, are skipped.
        as_played: False: the first track, whichever is the file's default.
        on_packet: called for each packet that is read; for a track without pictures the whole file is read.

    Raises:
        NoVideoStreamError: the track does not exist, or has no pictures.
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
    # If no track remains, reading the first one reports the problem.
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
    """The tracks with at least one picture; in an intact file this is known after a few packets."""
    seen: set[int] = set()
    with open_again() as container:
        tracks = [video_tracks(container)[place] for place in places]
        numbers = {track.index: place for track, place in zip(tracks, places, strict=True)}
        with suppress(av.FFmpegError, IndexError):  # damage is reported when pictures are read; see numbered_packets
            for packet in container.demux(tracks):
                on_packet()
                if packet.size:
                    seen.add(numbers[packet.stream.index])
                if len(seen) == len(places):
                    break
    return sorted(seen)
