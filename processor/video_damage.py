"""Finds what a damaged video file has lost, and which of the remaining frames are intact.

A gap in the times alone proves nothing: rates vary, sound may be longer than the pictures, recordings pause. Data is
lost if the container's own index names packets that are missing, or if the times (or the stated length) show a gap and
the chain of parts is broken too. Frames that depend on lost data are lost as well: decoders invent the missing
pictures, and most do not report it.
"""

from dataclasses import dataclass, field

import numpy as np

from .input_errors import NoDecodableFrameError, VideoReadError
from .video_packets import PacketScan, count_samples, frame_times_sec_of, order_frames
from .video_structure import ShortPart, count_edits, find_breaks, last_tag_sec

_FEW_BYTES = 64  # by which writers miscount the size of their own headers
_MOST_LOST = 0.5  # of the frames; if more are lost, the rest is not a fair sample of the film
_FLV_SLACK_SEC = 1.0  # servers round the stated length
_REORDERED = 8  # packets between a frame's place in the file and in display order
# Codecs in which a packet with one picture gives one frame.
_ONE_EACH = {"h264", "hevc", "vp8", "vp9", "av1", "mjpeg"}


@dataclass
class Damage:
    """Lost parts of a file."""

    gaps: set[int] = field(default_factory=set)  # packets before which something is lost
    bad_packets: set[int] = field(default_factory=set)
    is_unplaced: bool = False  # it is unknown where, and so also when the other frames are shown
    num_lost: int | None = 0  # frames without a packet; None: an unknown number
    notes: list[str] = field(default_factory=list)


@dataclass
class _Rhythm:
    """The times of a stream's frames."""

    ticks: np.ndarray  # (num_frames,), sorted
    step: float  # between two frames, in ticks
    is_steady: bool
    tick_sec: float

    @property
    def jumps(self) -> np.ndarray:
        """Numbers of the frames that are followed by a gap."""
        return np.flatnonzero(np.diff(self.ticks) > 1.75 * self.step)

    @property
    def end_sec(self) -> float:
        return float(self.ticks[-1] + self.step) * self.tick_sec

    def is_early(self, stated_sec: float) -> bool:
        """Whether more than half a frame is missing before the stated end."""
        return stated_sec - self.end_sec > 0.6 * self.step * self.tick_sec


def find_damage(scan: PacketScan) -> Damage:
    """Damage that the container reveals; sets `cut` for a file that ends early, and adds a note if sizes are slightly
    wrong."""
    damage = Damage()
    short = scan.short
    if short and scan.container == "flv" and not scan.stated_sec:
        short = None  # a live recording may simply end
    if short and not _has_all(scan, short):
        scan.cut = str(short)
    elif short:
        promised = f"{short.missing_bytes:,} byte{'s' * (short.missing_bytes != 1)} more than exist"
        damage.notes.append(f"the header promises {promised}; no frame is missing")
    if scan.cut or not scan.sizes:
        return damage
    num_left_out = len(scan.hidden) if scan.container.startswith("mov") else 0
    if scan.is_counted or scan.indexed:
        num_left_out += _find_unread(scan, damage)
    else:
        _find_broken(scan, damage)
    # A trimmed film is intact, but a flipped bit in an edit list, or in the times, hides frames in the same way.
    if num_left_out:
        num_all = max(scan.num_samples, len(scan.sizes))
        damage.notes.append(f"an edit list leaves out {num_left_out} of {num_all} frames")
    return damage


def _has_all(scan: PacketScan, short: ShortPart) -> bool:
    """Whether all packets named in the file exist, although its header counts more bytes."""
    if scan.cut:
        return False
    if scan.is_counted and scan.num_samples:
        return len(scan.sizes) >= max(scan.num_indexed, scan.num_samples)
    if short.missing_bytes > _FEW_BYTES:
        return False
    rhythm = _rhythm_of(scan)
    return scan.container.startswith("mov") or (rhythm is not None and not rhythm.is_early(scan.stated_sec))


def _find_unread(scan: PacketScan, damage: Damage) -> int:
    """Note packets in the index of MP4 or AVI that were not read; returns how many of them an edit list leaves out."""
    is_avi = scan.container == "avi"
    num_short = scan.num_samples - len(scan.sizes)
    lost: list[int] = []
    if scan.indexed:
        # AVI's index gives the position of a chunk's head, eight bytes before its contents.
        numbers = {position + 8 * is_avi: number for number, (position, _) in enumerate(scan.indexed)}
        places = [-1 if position is None else numbers.get(position, -1) for position in scan.positions]
        met, known = set(places), np.array([place for place in places if place >= 0], np.int64)
        lost = [number for number, (_, size) in enumerate(scan.indexed) if number not in met and (size or not is_avi)]
        damage.num_lost, damage.gaps = len(lost), set(np.searchsorted(known, lost).tolist())
        damage.is_unplaced = bool(lost) and (len(known) < 0.9 * len(places) or bool((np.diff(known) < 0).any()))
        if lost and is_avi and -1 not in met and scan.pts[0] is not None:
            scan.pts = [place - places[0] + scan.pts[0] for place in places]  # FFmpeg numbers AVI's packets as read
    # A single edit leaves out a beginning and an end.
    shown = np.flatnonzero(scan.shown)
    within = [n for n in scan.hidden if len(shown) and shown[0] + _REORDERED < n < shown[-1] - _REORDERED]
    if within and not is_avi and count_edits(scan.source, scan.name) <= 2:
        damage.num_lost = (damage.num_lost or 0) + len(within)
    if num_short <= len(lost):
        return 0
    # A count in the header alone may be wrong, and an edit list leaves packets out.
    if find_breaks(scan.source, scan.name, scan.track_id) if is_avi else count_samples(scan) < scan.num_samples:
        damage.is_unplaced, damage.num_lost = True, num_short
        return 0
    return 0 if is_avi else num_short - len(lost)


def _find_broken(scan: PacketScan, damage: Damage) -> None:
    rhythm = _rhythm_of(scan)
    if rhythm is not None and not _looks_odd(scan, rhythm):
        return
    breaks = find_breaks(scan.source, scan.name, scan.track_id)
    if scan.container == "flv" and rhythm is not None and scan.stated_sec - rhythm.end_sec > _FLV_SLACK_SEC:
        last_sec = last_tag_sec(scan.source, scan.name)  # the sound may be longer than the pictures
        if scan.stated_sec - last_sec > _FLV_SLACK_SEC:
            scan.cut = f"its header states {scan.stated_sec:.1f} s, but it ends after {last_sec:.1f} s"
            return
    positions = np.maximum.accumulate([-1 if position is None else position for position in scan.positions])
    gaps = set(np.searchsorted(positions, breaks, side="right").tolist()) | scan.overdue
    has_tail = len(scan.sizes) not in gaps
    gaps.discard(len(scan.sizes))
    if not has_tail and (rhythm is None or rhythm.is_early(scan.stated_sec) or scan.container.startswith("mov")):
        scan.cut = f"its data is damaged from byte {breaks[-1]:,} on"
    elif not has_tail and scan.container == "mpegts":
        damage.notes.append("the file is damaged at its end: frames may be missing there")
    if gaps and not scan.cut:
        damage.bad_packets |= scan.corrupt
        damage.num_lost = None
        # If a stream does not state its length, no gap shows that its last frames are missing.
        is_near_end = max(gaps) >= len(scan.sizes) - 1 and scan.container == "mpegts"
        if rhythm is None:
            damage.bad_packets |= {number for number, pts in enumerate(scan.pts) if pts is None}
        elif rhythm.is_steady and not is_near_end:
            gaps = {gap for gap in gaps if gap == 0 or _jumps_at(scan, rhythm, gap)}
            steps = np.diff(rhythm.ticks)[rhythm.jumps] / rhythm.step
            damage.num_lost = int((np.round(steps) - 1).sum()) if gaps else 0
        damage.gaps |= gaps


def _looks_odd(scan: PacketScan, rhythm: _Rhythm) -> bool:
    """Whether to check the file's structure, which intact files with a constant rate do not need."""
    if scan.container == "mpegts":  # it does not state its length, and its clock starts anywhere
        last = [position for position in scan.positions[-_REORDERED:] if position is not None]
        is_at_odds = bool(find_breaks(scan.source, scan.name, scan.track_id, min(last, default=0)))
    else:
        begins_late = rhythm.ticks[0] > 2 * rhythm.step
        is_at_odds = begins_late or rhythm.is_early(scan.stated_sec) or scan.container.startswith("mov")
    return bool(scan.corrupt) or is_at_odds or not rhythm.is_steady or len(rhythm.jumps) > 0


def _rhythm_of(scan: PacketScan) -> _Rhythm | None:
    """The stream's rhythm; None if too few frames have their own times."""
    if not scan.pts or None in scan.pts or scan.time_base is None:
        return None
    ticks = np.sort(np.array(scan.pts)[np.array(scan.shown)])
    if len(ticks) < 2:
        return None
    steps, tick_sec = np.diff(ticks), float(scan.time_base)
    rounding = 1.1e-3 / tick_sec  # Matroska rounds to a millisecond
    shortest, longest = int(steps.min()), int(steps.max())
    if shortest > 0 and longest <= shortest + max(0.25 * shortest, rounding):
        return _Rhythm(ticks, (shortest + longest) / 2, True, tick_sec)
    ticks = np.unique(ticks)
    steps = np.diff(ticks)
    if not len(steps):
        return None
    step = float(np.median(steps))
    is_near = np.abs(steps - step) <= max(0.25 * step, rounding)
    return _Rhythm(ticks, step, bool(is_near.mean() >= 0.8), tick_sec)


def _jumps_at(scan: PacketScan, rhythm: _Rhythm, gap: int) -> bool:
    """Whether the frames around a position in the file are separated by a gap in time."""
    near = [pts for pts in scan.pts[max(gap - _REORDERED, 0) : gap + _REORDERED] if pts is not None]
    ticks, jumps = rhythm.ticks, rhythm.jumps
    return bool(((ticks[jumps] <= max(near)) & (ticks[jumps + 1] >= min(near))).any())


@dataclass(frozen=True)
class SoundFrames:
    """All frames that were read, and which of them are intact; arrays are (num_frames,), in presentation order."""

    packets: np.ndarray  # int64: packet of each frame; -1 if known only by counting
    starts: np.ndarray  # int64: packet to decode from
    times_sec: np.ndarray  # float64
    is_sound: np.ndarray  # bool: neither lost nor dependent on lost data


def order_sound_frames(scan: PacketScan, damage: Damage) -> SoundFrames:
    """Like `video_packets.order_frames`; adds damage that is visible only in decoding to `damage`."""
    for number in damage.bad_packets:
        scan.shown[number] = False
    packets, starts = order_frames(scan)
    if scan.refused and scan.unclear <= scan.refused | damage.bad_packets and not scan.has_new_tables:
        # Only damaged packets were unclear: the others need not be counted, and their bits state all dependencies.
        for number in scan.unclear:
            scan.shown[number] = False
        scan.understood = True
        packets, starts = order_frames(scan)
    if not len(packets):
        raise NoDecodableFrameError(
            f"Expected at least 1 decodable frame, got {len(scan.sizes)} damaged packets of {scan.codec}, in "
            f"{scan.name}; record it again."
        )
    damage.bad_packets |= scan.refused
    _find_silent(scan, damage, packets)
    return SoundFrames(packets, starts, frame_times_sec_of(scan, packets), _is_sound(scan, damage, packets, starts))


def _find_silent(scan: PacketScan, damage: Damage, packets: np.ndarray) -> None:
    """Note packets that gave no frame, without a decoder error, although they are pictures or the index says so."""
    if scan.codec not in _ONE_EACH or scan.first_fields:
        return
    if packets.min(initial=0) < 0:  # the decoder does not report their packets
        num_shown = sum(scan.shown)
        if scan.is_counted and scan.starts[0] and len(packets) < num_shown and damage.num_lost is not None:
            damage.num_lost += num_shown - len(packets)
        return
    silent = np.setdiff1d(np.flatnonzero(scan.shown), packets)
    # A recording that begins in the middle of a group shows nothing until the next one.
    silent = silent[silent > (0 if scan.starts[0] else next(iter(np.flatnonzero(scan.starts)), len(scan.starts)))]
    is_clear = np.array([number not in scan.unclear for number in silent.tolist()], bool)
    damage.bad_packets |= set(silent[is_clear].tolist())
    if scan.is_counted and damage.num_lost is not None:
        damage.num_lost += int((~is_clear).sum())


def _is_sound(scan: PacketScan, damage: Damage, packets: np.ndarray, starts: np.ndarray) -> np.ndarray:
    if not damage.gaps and not damage.bad_packets:
        return np.ones(len(packets), bool)
    if not scan.understood and scan.keys:  # the container's key frames are the best information
        keys = np.array(scan.keys)
        nearest = keys[np.maximum(np.searchsorted(keys, packets, side="right") - 1, 0)]
        starts = np.where(nearest <= packets, np.maximum(starts, nearest), starts)
    is_start = np.array(scan.starts)
    is_start[np.array(scan.keys, np.int64)] = True
    starts = np.where(is_start[starts], starts, 0)  # else it depends on everything before
    gaps, bad = np.array(sorted(damage.gaps), np.int64), np.array(sorted(damage.bad_packets), np.int64)
    after_gap = np.searchsorted(gaps, starts, side="right") < np.searchsorted(gaps, packets, side="right")
    on_bad = np.searchsorted(bad, starts, side="left") < np.searchsorted(bad, packets, side="right")
    return ~(after_gap | on_bad) | (packets < 0)


def tell_damage(scan: PacketScan, damage: Damage, frames: SoundFrames, whole: bool) -> tuple[str, ...]:
    """Notes on a file's damage.

    Args:
        whole: refuse a file of which most is lost, or whose beginning is lost, since all times are then unknown.

    Raises:
        VideoReadError: nothing is left, or too little.
    """
    num_met = len(frames.packets)
    gone = damage.bad_packets.difference(frames.packets.tolist(), scan.first_fields)
    num_gone = len(gone) + (damage.num_lost or 0)
    num_bad = num_gone + num_met - int(frames.is_sound.sum())
    if not damage.gaps and not num_bad and damage.num_lost == 0:
        return tuple(damage.notes)
    if damage.is_unplaced and whole:
        raise VideoReadError(
            f"Expected a whole video, got one whose index is damaged: {damage.num_lost} frames are missing, it is "
            f"unknown which, in {scan.name}; copy or record it again."
        )
    first = min(damage.gaps | damage.bad_packets, default=len(scan.sizes))
    before = frames.times_sec[frames.is_sound & (frames.packets < first)]
    since = f"from {before.max():.1f} s on" if len(before) < len(frames.packets) and len(before) else ""
    if damage.num_lost is None:
        found, share = f"frames are missing or damaged {since}", _lost_share(damage, frames)
    else:
        found = f"{num_bad} of {num_met + num_gone} frames are missing or damaged {since}"
        share = num_bad / (num_met + num_gone)
    if not frames.is_sound.any() or (whole and (share > _MOST_LOST or 0 in damage.gaps)):
        found = "its beginning is missing" if 0 in damage.gaps and share <= _MOST_LOST else found
        raise VideoReadError(f"Expected a whole video, got one where {found}, in {scan.name}; copy or record it again.")
    return (*damage.notes, f"the file is damaged: {found}")


def _lost_share(damage: Damage, frames: SoundFrames) -> float:
    """Lost share of the time, used if the number of frames is unknown."""
    times_sec, packets = frames.times_sec[frames.is_sound], frames.packets[frames.is_sound]
    holes = set()
    for place in damage.gaps | damage.bad_packets:
        before, after = times_sec[packets < place], times_sec[packets >= place]
        holes.add((before.max() if len(before) else 0.0, after.min() if len(after) else frames.times_sec[-1]))
    return sum(max(end - start, 0.0) for start, end in holes) / max(frames.times_sec[-1], 1e-9)
