"""What people send to an endpoint: files good and bad, addresses that answer slowly or lead elsewhere."""

import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from numbered_videos import HEIGHT_PX, WIDTH_PX, encode, write_sound
from PIL import Image

from engagement_recognition.data.drawn.faces import FacePose, draw_frame, draw_subject

PRIVATE = {"allow_private_addresses": True}


class Files(BaseHTTPRequestHandler):
    """What an address may answer: a file, a redirect, or one byte at a time, in the head or in the body."""

    def do_GET(self) -> None:
        if self.path == "/slow-head":
            self.drip(b"HTTP/1.0 200 OK\r\nX-Filler: ")
        elif self.path == "/slow-body":
            self.send_response(200)
            self.end_headers()
            self.drip(b"")
        elif self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
        elif self.path == "/video":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.server.video)
        else:
            self.send_error(404)

    def drip(self, begin: bytes) -> None:
        try:
            self.wfile.write(begin)
            for _ in range(100):
                self.wfile.write(b"a")
                time.sleep(0.1)
        except OSError:
            pass  # the client has gone, as it should

    def log_message(self, *args: object) -> None:
        """Silent."""


@contextmanager
def serving(video: Path) -> Iterator[str]:
    """The address of `Files`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    server.daemon_threads, server.video = True, video.read_bytes()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def draw_files(folder: Path, video: Path) -> dict[str, str]:
    """Files good and bad, by name."""
    face = draw_frame(draw_subject(0), FacePose(roll_deg=8))
    Image.fromarray(face).save(folder / "face.jpg", quality=95)
    Image.fromarray(np.full((120, 160, 3), 90, np.uint8)).save(folder / "grey.png")
    (folder / "cut.jpg").write_bytes((folder / "face.jpg").read_bytes()[:4000])
    Image.fromarray(face).save(folder / "whole.png")
    (folder / "cut.png").write_bytes((folder / "whole.png").read_bytes()[:4000])
    (folder / "cut.mp4").write_bytes(video.read_bytes()[:-20_000])
    (folder / "page.mp4").write_text("<!doctype html><title>Not a video</title>" * 20)
    (folder / "empty.mp4").write_bytes(b"")
    encode(folder / "bars.mp4", num_frames=8)
    write_sound(folder / "sound.mp4")
    small = encode(folder / "16k.avi", "ffv1", num_frames=3)
    huge = small.replace(struct.pack("<II", WIDTH_PX, HEIGHT_PX), struct.pack("<II", 15360, 8640))
    (folder / "16k.avi").write_bytes(huge)
    return {path.name: str(path) for path in folder.iterdir()} | {"video": str(video)}


def good_requests(files: dict[str, str], address: str) -> dict[str, list]:
    kinds = ("bytes", "base64", "lines", "data", "DATA", "quoted")
    requests = {kind: ["video", kind, files["video"], {}] for kind in kinds}
    for name in ("/video", f"/to/{address}/video"):
        requests[f"URL {name[:5]}"] = ["video", "json", {"inputs": address + name}, PRIVATE]
    requests["whole frame"] = ["frame", "bytes", files["face.jpg"], {}]
    return requests | {f"face {kind}": ["image", kind, files["face.jpg"], {}] for kind in ("bytes", "picture", "lazy")}


def as_inputs(value: object, **limits: object) -> list:
    return ["video", "json", {"inputs": value}, limits]


# name: (request, status, what the message says); files and the address are filled in.
def refused_requests(files: dict[str, str], address: str) -> dict[str, tuple[list, int, str]]:
    url = {"allow_private_addresses": True, "download_timeout_sec": 0.5}
    port = address.rpartition(":")[2]
    return {
        "no inputs": (["video", "json", {"text": "hello"}, {}], 400, 'Expected {"inputs": ...}'),
        "no dictionary": (["video", "json", ["hello"], {}], 400, "got none"),
        "a list": (as_inputs(["a", "b"]), 400, "got list"),
        "nothing": (["video", "bytes", files["empty.mp4"], {}], 400, "0 bytes"),
        "a path": (as_inputs(files["video"]), 400, "Expected base64"),
        "a file address": (as_inputs(f"file://{files['video']}"), 400, "Expected base64"),
        "a data URL in text": (as_inputs("data:text/plain,hello"), 400, "data URL in base64"),
        "a data URL without a comma": (as_inputs("data:video/mp4;base64"), 400, "got 'data:video/mp4;base64' without"),
        "this machine": (as_inputs(f"{address}/video"), 400, "127.0.0.1 is in a private network"),
        "this machine as a number": (as_inputs(f"http://2130706433:{port}/video"), 400, "private network"),
        "this machine in IPv6": (as_inputs(f"http://[::ffff:127.0.0.1]:{port}/video"), 400, "private network"),
        "a cloud's metadata": (as_inputs("http://169.254.169.254/latest/meta-data/"), 400, "private network"),
        "a redirect to a file": (as_inputs(f"{address}/to/file://{files['video']}", **PRIVATE), 400, "downloaded"),
        "no such address": (as_inputs(f"{address}/missing", **PRIVATE), 400, "HTTP Error 404"),
        "a slow head": (as_inputs(f"{address}/slow-head", **url), 400, "took longer than 0.5 s"),
        "a slow body": (as_inputs(f"{address}/slow-body", **url), 400, "took longer than 0.5 s"),
        "a large download": (as_inputs(f"{address}/video", **PRIVATE, max_bytes=1000), 413, "more than 1000 bytes"),
        "many bytes": (["video", "bytes", files["video"], {"max_bytes": 1000}], 413, "At most 1000 bytes"),
        "long base64": (["video", "base64", files["video"], {"max_bytes": 1000}], 413, "At most 1000 bytes in base64"),
        "a long video": (["video", "bytes", files["video"], {"max_duration_sec": 1}], 413, "at most 1 s and"),
        "many frames": (["video", "bytes", files["video"], {"max_frames": 7}], 413, "and 7 frames, got 2.0 s and 8"),
        "a large picture": (["image", "bytes", files["face.jpg"], {"max_picture_pixels": 9}], 413, "at most 9 pixels"),
        "16K": (["video", "bytes", files["16k.avi"], {}], 413, "pixels per frame, got 15360x8640"),
        "a picture for clips": (["video", "bytes", files["face.jpg"], {}], 415, "got a picture"),
        "a PIL picture for it": (["video", "picture", files["face.jpg"], {}], 415, "got a picture"),
        "a video for a face model": (["image", "bytes", files["video"], {}], 415, "Expected a picture (JPEG"),
        "a page": (["video", "bytes", files["page.mp4"], {}], 422, "Expected a video"),
        "a cut video": (["video", "bytes", files["cut.mp4"], {}], 422, "Expected"),
        "sound alone": (["video", "bytes", files["sound.mp4"], {}], 422, "Expected a video stream, got audio"),
        "nobody in a video": (["video", "bytes", files["bars.mp4"], {}], 422, "Expected a face"),
        "nobody in a picture": (["image", "bytes", files["grey.png"], {}], 422, "Expected a face"),
        "a cut picture": (["image", "bytes", files["cut.jpg"], {}], 422, "got image file is truncated"),
        "a cut PIL picture": (["image", "lazy", files["cut.png"], {}], 422, "cannot be decoded (image file"),
        "a cut PIL frame": (["frame", "lazy", files["cut.jpg"], {}], 422, "cannot be decoded (image file"),
        "a PIL picture of nothing": (["image", "blank", [0, 0], {}], 422, "no pixels (0x0)"),
        "a large PIL picture": (["image", "lazy", files["cut.png"], {"max_picture_pixels": 9}], 413, "most 9 pixels"),
    }  # fmt: skip
