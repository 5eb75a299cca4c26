"""Films for the rows about what a player shows: late, uneven, of several tracks, with other pixels; and a camera.

Their frames bear their numbers (`numbered_videos`), so that what was read can be told from its pixels.
"""

import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
from bench import face_frames
from numbered_videos import HEIGHT_PX, WIDTH_PX, numbered_picture
from PIL import Image

TICK = Fraction(1, 30)
BT2020_LUMA = np.array([0.2627, 0.6780, 0.0593])
_BT709_TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])


def picture(number: int, scale: int = 1) -> av.VideoFrame:
    """A numbered frame, larger by `scale`."""
    pixels = numbered_picture(number).repeat(scale, axis=0).repeat(scale, axis=1)
    return av.VideoFrame.from_ndarray(pixels, format="rgb24")


def film(
    path: Path,
    ticks: Sequence[int] = range(24),
    tick: Fraction = TICK,
    codec: str = "libx264",
    aspect: Fraction | None = None,
    rotation: int = 0,
    sound_sec: float = 0.0,
    scale: int = 1,
    mirrored: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """A numbered frame at each of `ticks`, with or without sound from 0 s on."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=round(1 / tick), options=options or {})
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX * scale, HEIGHT_PX * scale, "yuv420p"
        stream.codec_context.time_base = tick
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation or mirrored:
            stream.set_display_rotation(rotation, hflip=mirrored)
        sound = container.add_stream("aac", rate=16000) if sound_sec else None
        for number, at in enumerate(ticks):
            frame = picture(number, scale)
            frame.pts, frame.time_base = at, tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            for number in range(round(sound_sec * 10)):
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.float32), format="fltp", layout="mono")
                silence.sample_rate, silence.pts = 16000, number * 1600
                container.mux(sound.encode(silence))
            container.mux(sound.encode())
    return path


def late_film(path: Path, late_sec: int = 2) -> Path:
    """Six seconds of pictures, ten a second, that begin after the sound."""
    return film(path, range(10 * late_sec, 10 * late_sec + 60), Fraction(1, 10), sound_sec=late_sec + 6)


def two_tracks(path: Path, default: int = 1, filled: tuple[bool, ...] = (True, True)) -> Path:
    """Numbers from 0 on in the first track, from 100 on in the second."""
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=10) for _ in filled]
        for place, stream in enumerate(streams):
            stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
            stream.disposition = int(place == default)
        for place, stream in enumerate(streams):
            for number in range(8 if filled[place] else 0):
                container.mux(stream.encode(picture(100 * place + number)))
            if filled[place]:
                container.mux(stream.encode())
    return path


def face_tracks(path: Path, default: int) -> Path:
    """A numbered film and one of a drawn face, in this order."""
    faces = face_frames()
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=4) for _ in range(2)]
        for place, (stream, size) in enumerate(zip(streams, ((WIDTH_PX, HEIGHT_PX), (320, 240)), strict=True)):
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            stream.disposition = int(place == default)
        for number, face in enumerate(faces):
            container.mux(streams[0].encode(picture(number)))
            container.mux(streams[1].encode(av.VideoFrame.from_ndarray(face, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())
    return path


def sizes_film(path: Path) -> Path:
    """MPEG-TS whose pictures are larger from the ninth on, as that of a call when the network gets better."""
    parts = []
    for scale in (1, 2):
        with av.open(str(path), "w", format="mpegts") as container:
            stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
            stream.width, stream.height, stream.pix_fmt = WIDTH_PX * scale, HEIGHT_PX * scale, "yuv420p"
            for number in range(8):
                frame = picture(number + 8 * (scale - 1), scale)
                frame.pts, frame.time_base = number + 8 * (scale - 1), Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        parts.append(path.read_bytes())
    path.write_bytes(b"".join(parts))
    return path


def stretched_faces(path: Path, aspect: Fraction) -> Path:
    """The drawn face with its width divided by `aspect`, which the header says pixels have."""
    faces = face_frames()
    height, width = faces[0].shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=4)
        stream.width, stream.height, stream.pix_fmt = round(width / aspect), height, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        for face in faces:
            squeezed = np.asarray(Image.fromarray(face).resize((stream.width, height)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(squeezed, format="rgb24")))
        container.mux(stream.encode())
    return path


def hdr_film(path: Path, transfer: str) -> Path:
    """The drawn face as it would be in HDR, with SDR's white at 203 cd/m2: ITU-R BT.2100, 10 bits, narrow range."""
    number = {"PQ": 16, "HLG": 18}[transfer]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=4, options={"x265-params": "log-level=none", "crf": "8"})
        stream.height, stream.width = face_frames()[0].shape[:2]
        stream.pix_fmt, context = "yuv420p10le", stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace, context.color_range = number, 9, 9, 1
        for face in face_frames():
            frame = _yuv_frame(_coded(face, transfer))
            frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range = number, 9, 9, 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _coded(sdr: np.ndarray, transfer: str) -> np.ndarray:
    """(height, width, 3) uint8 of a BT.1886 display → HDR's signal, 0 to 1."""
    nits = 203 * (sdr / 255) ** 2.4 @ _BT709_TO_BT2020.T
    if transfer == "PQ":
        power = (nits / 10_000) ** (2610 / 16384)
        return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    shown = nits / 1000
    scene = shown * np.maximum(shown @ BT2020_LUMA, 1e-9)[..., None] ** ((1 - 1.2) / 1.2)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


def _yuv_frame(signal: np.ndarray) -> av.VideoFrame:
    luma = signal @ BT2020_LUMA
    height, width = luma.shape
    blue, red = (signal[..., 2] - luma) / 1.8814, (signal[..., 0] - luma) / 1.4746
    halved = [chroma.reshape(height // 2, 2, width // 2, 2).mean((1, 3)) for chroma in (blue, red)]
    planes = [64 + 876 * luma, *(512 + 896 * chroma for chroma in halved)]
    frame = av.VideoFrame(width, height, "yuv420p10le")
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((values.shape[0], plane.line_size // 2), np.uint16)
        rows[:, : values.shape[1]] = np.rint(values)
        plane.update(rows.tobytes())
    return frame


def _jpeg(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG")
    return content.getvalue()


class _Camera(BaseHTTPRequestHandler):
    """`/cam`: pictures without end, `/ends`: eight of them, `/silent`: nothing, anything else: 404."""

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        if self.path == "/silent":
            time.sleep(5)
            return
        if self.path not in ("/cam", "/ends"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        self.end_headers()
        pictures, number = [_jpeg(face) for face in face_frames()], 0
        try:
            while self.path == "/cam" or number < len(pictures):
                content = pictures[number % len(pictures)]
                head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content)}\r\n\r\n"
                self.wfile.write(head.encode() + content + b"\r\n")
                number += 1
                time.sleep(0.02)
        except OSError:
            return  # whoever watched has gone


@contextmanager
def camera() -> Iterator[Callable[[str], str]]:
    """A camera in this process; what is yielded turns a path into its address, with a password."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Camera)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield lambda path: f"http://somebody:secret@127.0.0.1:{server.server_port}{path}"  # not a secret
    finally:
        server.shutdown()
        server.server_close()
