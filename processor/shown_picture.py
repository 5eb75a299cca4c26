"""A decoded frame → the picture that a player shows: upright, with square pixels, HDR mapped to SDR.

`ShownPictures` contains the decisions for a whole film, based on its header and first frame. Without `as_played` a
frame is only rotated upright, as for models that are older than this setting.
"""

import threading
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import av
import numpy as np
from av.video.reformatter import VideoReformatter

_HELD = threading.local()
_SQUARE_TOLERANCE = 0.005  # cameras write 959:960 for square pixels
_MOST_STRETCHED = 4  # no camera or disc has more; beyond that the header is wrong
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}  # by their codes in ITU-T H.273

# Light is relative to HDR's reference white (ITU-R BT.2408: 203 cd/m2), which is white in SDR.
_WHITE_NITS = 203.0
_PEAK_NITS = 1000.0  # of the nominal HLG display of BT.2100, and of most masters in PQ
_HLG_SYSTEM_GAMMA = 1.2  # at that peak
_SDR_GAMMA = 2.4  # of the display that BT.1886 describes
_BT2020_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)
_BT2020_TO_BT709 = np.array(  # BT.2087
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
_BT2020_PRIMARIES = 9
_KNEE = 0.3  # the tone curve leaves light below this unchanged, which includes most of a face
_ROWS_AT_ONCE = 128  # keeps intermediate arrays small, however large the picture


@dataclass(frozen=True)
class ShownPictures:
    """How the frames of a film are shown."""

    width_px: int
    height_px: int
    transfer: str | None = None  # "PQ" or "HLG": frames are tone-mapped
    notes: tuple[str, ...] = ()  # remarks for the user on what was done or omitted


def shown_pictures(first: av.VideoFrame, stream: av.VideoStream, as_played: bool, max_pixels: int) -> ShownPictures:
    """
    Args:
        first: first frame of the film; others are scaled to its size.
    """
    aspect, codes = _pixel_aspect(stream), (first.color_trc, stream.codec_context.color_trc)
    transfer = next((_HDR_TRANSFERS[code] for code in codes if code in _HDR_TRANSFERS), None)
    width, height = first.width, first.height
    notes = []
    if aspect is not None and not 1 / _MOST_STRETCHED <= aspect <= _MOST_STRETCHED:
        notes.append(f"its header's pixels of {aspect.numerator}:{aspect.denominator} are wrong, and count as square")
    elif aspect is not None:
        shape = f"pixels of {aspect.numerator}:{aspect.denominator}"
        notes.append(f"{shape} made square" if as_played else f"{shape} are taken as square")
        if as_played:
            # The width is scaled, as players do, or the height if the picture would exceed the limit.
            wider = max(1, round(width * aspect))
            fits = wider * height <= max(max_pixels, width * height)
            width, height = (wider, height) if fits else (width, round(height / aspect))
    if transfer is not None and as_played:
        notes.append(f"HDR ({transfer}): tone-mapped")
    elif transfer is not None:
        notes.append(f"HDR ({transfer}): shown without tone mapping; colours are washed out")
    if display_matrix(first)[0, 0] == 0:
        width, height = height, width
    return ShownPictures(width, height, transfer if as_played else None, tuple(notes))


def _pixel_aspect(stream: av.VideoStream) -> Fraction | None:
    """Width by height of a pixel; None if it is square or unknown."""
    aspect = stream.sample_aspect_ratio  # the container's takes precedence over the codec's, as in FFmpeg's own player
    if not aspect:
        return None
    known = Fraction(aspect.numerator, aspect.denominator)  # PyAV 19 has its own class
    return known if abs(known - 1) > _SQUARE_TOLERANCE else None


def display_matrix(frame: av.VideoFrame) -> np.ndarray:
    """(2, 2), each entry -1, 0 or 1: where the frame's x and y axes point when shown, to the nearest right angle."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return np.eye(2)
    # PyAV's stub declares no side data except motion vectors.
    matrix = np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2].astype(np.float64)  # type: ignore[call-overload]
    is_main = np.abs(matrix) >= np.abs(matrix).max() * 0.71  # just above cos 45 degrees
    return np.sign(matrix) * is_main


def to_shown(frame: av.VideoFrame, shown: ShownPictures) -> np.ndarray:
    """(height, width, 3), uint8 RGB. A frame of another size than the film's first is scaled to it, as players do."""
    (right_x, right_y), (down_x, down_y) = display_matrix(frame)
    is_turned = right_x == 0  # rows become columns
    size = (shown.height_px, shown.width_px) if is_turned else (shown.width_px, shown.height_px)
    kind = "rgb24" if shown.transfer is None else "rgb48"
    if not hasattr(_HELD, "converter"):  # one per thread: a frame's own would start threads for each, and keep them
        _HELD.converter = VideoReformatter()
    rgb = _HELD.converter.reformat(frame, *size, format=kind, threads=1).to_ndarray()
    if shown.transfer is not None:
        rgb = tone_mapped(rgb, shown.transfer, frame.color_primaries == _BT2020_PRIMARIES)
    rgb = rgb.transpose(1, 0, 2) if is_turned else rgb
    return rgb[:: -1 if right_y + down_y < 0 else 1, :: -1 if right_x + down_x < 0 else 1]


def tone_mapped(rgb: np.ndarray, transfer: str, has_wide_gamut: bool = True) -> np.ndarray:
    """HDR → SDR: (height, width, 3), uint16 HDR codes → uint8 for BT.709.

    Light up to about the middle keeps its level; brighter light, up to a peak of 1000 cd/m2, is compressed by FFmpeg's
    curve "mobius" on the strongest channel, so that hues are preserved.
    """
    to_light, to_code, tone_curve = _light_of_codes(transfer), _codes_of_light(), _tone_curve()
    mapped = np.empty(rgb.shape, np.uint8)
    for top in range(0, len(rgb), _ROWS_AT_ONCE):
        light = to_light[rgb[top : top + _ROWS_AT_ONCE]]  # (rows, width, 3), 1.0: reference white
        if transfer == "HLG":  # from the scene's light to the display's
            luma = np.maximum(light @ _BT2020_LUMA, 1e-6)
            light *= (np.power(luma, _HLG_SYSTEM_GAMMA - 1) * (_PEAK_NITS / _WHITE_NITS))[..., None]
        if has_wide_gamut:
            light = np.maximum(light @ _BT2020_TO_BT709.T, 0)
        strongest = light.max(axis=-1)
        last = len(tone_curve) - 1
        gain = tone_curve[np.minimum(strongest * (last * _WHITE_NITS / _PEAK_NITS), last).astype(np.int32)]
        light *= gain[..., None]
        last = len(to_code) - 1
        mapped[top : top + _ROWS_AT_ONCE] = to_code[np.minimum(light * last, last).astype(np.int32)]
    return mapped


@cache
def _light_of_codes(transfer: str) -> np.ndarray:
    """(65536,) float32. PQ: the display's light, 1.0 for reference white; HLG: the scene's, 0 to 1 (both BT.2100)."""
    code = np.arange(1 << 16) / 65535
    if transfer == "PQ":
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        root = code ** (1 / m2)
        light = 10_000 / _WHITE_NITS * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    else:
        a = 0.17883277
        b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
        light = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
    return light.astype(np.float32)


@cache
def _tone_curve() -> np.ndarray:
    """(4096,) float32: factors for light from 0 to the peak."""
    light, peak, knee = np.linspace(1e-6, _PEAK_NITS / _WHITE_NITS, 4096), _PEAK_NITS / _WHITE_NITS, _KNEE
    a = -(knee**2) * (peak - 1) / (knee**2 - 2 * knee + peak)
    b = (knee**2 - 2 * knee * peak + peak) / (peak - 1)
    rolled = (b**2 + 2 * b * knee + knee**2) / (b - a) * (light + a) / (light + b)
    return np.where(light <= knee, 1.0, rolled / light).astype(np.float32)


@cache
def _codes_of_light() -> np.ndarray:
    """(65536,) uint8: SDR codes for light from 0 to reference white."""
    return np.rint(255 * np.linspace(0, 1, 1 << 16) ** (1 / _SDR_GAMMA)).astype(np.uint8)
