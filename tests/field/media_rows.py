"""Files on their way: downloads, what the datasets library hands out, names, output, disks that are full."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import patch

import av
import numpy as np
from bench import Bench, Said, face_frames, write_film
from endpoint_inputs import reads
from picture_inputs import as_file, at, face, saved
from PIL import Image
from rows import Comes, Refused, Row
from table_inputs import splits

from engagement_recognition.data.worker_processes import spawned, usable_cpus
from engagement_recognition.inference.predictions import Span, VideoPrediction
from engagement_recognition.inference.timeline import draw_in_terminal
from engagement_recognition.inference.timeline import in_terminal as in_any_terminal
from engagement_recognition.processor.input_errors import DataError, VideoReadError
from engagement_recognition.processor.media_files import fetch
from engagement_recognition.processor.media_inputs import load_picture

CONTENT = bytes(range(256)) * 8


class _Answers(BaseHTTPRequestHandler):
    """What odd hosts answer, by path."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/short":
            return self.say(200, CONTENT[:1000], {"Content-Length": str(len(CONTENT))})
        if path == "/chunk":
            return self.say(200, b"800\r\nabc", {"Transfer-Encoding": "chunked"})
        if path == "/agent" and "urllib" in self.headers["User-Agent"]:
            return self.say(403)
        if path.startswith("/status/"):
            return self.say(int(path.rpartition("/")[2]))
        if path.startswith("/to/"):
            return self.say(302, headers={"Location": path[4:]})
        if path in ("/agent", "/a%20b/%C3%BC.mp4", "/whole"):
            return self.say(200, CONTENT, {"Content-Length": str(len(CONTENT))})
        return self.say(404)

    def say(self, code: int, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in (headers or {"Content-Length": "0"}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextlib.contextmanager
def host() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def fetched(path: str) -> Callable[[Bench, object], object]:
    def run(bench: Bench, _: object) -> object:
        with host() as address:
            return fetch(f"{address}/{path}")

    return run


def by_the_endpoint(path: str) -> Callable[[Bench, object], object]:
    def run(bench: Bench, _: object) -> object:
        with host() as address:
            return reads(f"{address}/{path}", allow_private_addresses=True)

    return run


def as_row(make: Callable[[Path], object]) -> Callable[[Bench, Path], VideoPrediction | np.ndarray]:
    """A clip model's frames of what the datasets library would hand out of a film."""
    return lambda bench, film: bench.engagement.video_processor.prepare_clip(make(film))


class Decoder:
    """The part of torchcodec's that is documented and asked for."""

    def __init__(self, film: Path, fails: bool = False) -> None:
        self.frames, self.fails, self.asked = np.stack(face_frames()).transpose(0, 3, 1, 2), fails, list[int]()

    def __len__(self) -> int:
        return len(self.frames)

    def get_frames_at(self, indices: list[int]) -> object:
        if self.fails:
            raise RuntimeError("no frame\nthere")
        self.asked += indices

        class Batch:
            data = self.frames[indices]

        return Batch


def is_as_the_film(bench: Bench, film: Path) -> bool:
    both = [
        bench.engagement.video_processor(video)["pixel_values"] for video in (film, {"path": str(film), "bytes": None})
    ]
    return bool((both[0] == both[1]).all())


class _NoFile:
    """Somebody's decoder without an API that is known."""


def in_terminal(encoding: str, *options: str) -> Callable[[Bench, Path], Said]:
    """A command whose output goes to a stream of that encoding, strict as a terminal's is."""

    def run(bench: Bench, path: Path) -> Said:
        from engagement_recognition.cli import main as cli

        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
        command, code = ["engagement", "predict", *options, str(path)], 0
        with patch.multiple(sys, argv=command, stdout=streams[0], stderr=streams[1]):
            try:
                cli.main()
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 0
        texts = []
        for stream in streams:
            stream.flush()
            texts.append(stream.buffer.getvalue().decode(encoding if encoding != "ascii" else "utf-8"))  # type: ignore[attr-defined]
        return Said(code, *texts)

    return run


def odd_name(name: bytes) -> Callable[[Path], Path]:
    return lambda folder: at(folder, name.decode("utf-8", "surrogateescape"), saved("PNG"))


def into_table(suffix: str) -> Callable[[Bench, Path], object]:
    """Twice: the second time there is nothing left to do."""

    def run(bench: Bench, path: Path) -> Said:
        command = ("predict", "--faces", path, "--output", path.parent / f"answers{suffix}")
        first = bench.command(*command)
        assert first.code == 0, first
        return bench.command(*command)

    return run


def timeline_in(encoding: str) -> Callable[[Bench, Path], Said]:
    def run(bench: Bench, film: Path) -> Said:
        return in_terminal(encoding, "--timeline", "1", "--plot-dir", str(film.parent))(bench, film)

    return run


def drawn_in(encoding: str) -> Callable[[Bench, object], str]:
    """A timeline of three scores and a span without a face."""
    scores = [{"bored": 1 - score, "engaged": score} for score in (0.15, 0.5, 0.85)]
    spans = [Span(at, at + 1, "engaged", row, 1.0) for at, row in enumerate(scores)] + [Span(3, 4, None, None, 0.0)]
    prediction = VideoPrediction("a.mp4", "engaged", scores[2], 1.0, 0, spans)
    return lambda bench, _: in_any_terminal(draw_in_terminal(prediction, width_chars=40), encoding)


def full_disk(writes: int) -> Callable[[Bench, Path], object]:
    """Room for so many rows of prepared data; then room for all."""

    def run(bench: Bench, folder: Path) -> Said:
        from datasets.arrow_writer import ArrowWriter

        really_write, written = ArrowWriter.write, list[int]()

        def write(self: ArrowWriter, *arguments: object, **options: object) -> None:
            written.append(1)
            if len(written) > writes:
                raise OSError(28, "No space left on device")
            really_write(self, *arguments, **options)

        command = ("prepare", "images", folder, "--output", folder.parent / "prepared")
        with patch.object(ArrowWriter, "write", write):
            said = bench.command(*command)
        assert bench.command(*command).code == 0  # the same command goes on, once there is room
        return said

    return run


def full_disk_at_the_end(bench: Bench, folder: Path) -> Said:
    command = ("prepare", "images", folder, "--output", folder.parent / "prepared")
    with patch("datasets.DatasetDict.save_to_disk", side_effect=OSError(28, "No space left on device")):
        said = bench.command(*command)
    assert bench.command(*command).code == 0
    return said


def cut_part(bench: Bench, folder: Path) -> Said:
    """A preparation that was stopped, of which somebody cut a table; the same command goes on once that is deleted."""
    output = folder.parent / "prepared"
    command = ("prepare", "images", folder, "--output", output)
    with patch("datasets.DatasetDict.save_to_disk", side_effect=OSError(28, "No space left on device")):
        assert bench.command(*command).code == 2
    (part,) = (output / "parts").glob("*.arrow")
    part.write_bytes(part.read_bytes()[:100])
    said = bench.command(*command)
    part.with_suffix(".rejects.json").unlink()
    assert bench.command(*command).code == 0
    return said


def draw_within(limit_bytes: int, format: str) -> Callable[[Bench, Path], object]:
    """No file may become larger, as on a disk that fills up; without the limit the same command goes on."""

    def run(bench: Bench, folder: Path) -> Said:
        code = (
            "import resource, sys; limit = int(sys.argv.pop(1)); "
            "limit and resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)); "
            "from engagement_recognition.cli.main import main; main()"
        )
        options = ("draw", "--output", str(folder / "drawn"), "--format", format, "--subjects", "3",
                   "--clips-per-subject", "1", "--duration-sec", "0.5", "--height-px", "120")  # fmt: skip
        if format != "daisee":
            options = options[:-4]
        done = []
        for limit in (limit_bytes, 0):
            command = [sys.executable, "-c", code, str(limit), *options]
            found = subprocess.run(command, capture_output=True, text=True, check=False)
            done.append(Said(found.returncode, found.stdout, found.stderr))
        assert done[1].code == 0, done[1]
        return done[0]

    return run


def killed_worker(bench: Bench, _: object) -> object:
    with spawned(_kill_itself, [1, 2], 2, _nothing) as futures:
        return [future.result() for future in futures]


def broken_pool(bench: Bench, _: object) -> object:
    """The same without processes, which take long to start."""
    threads = partial(ThreadPoolExecutor, 2)
    with (
        patch("engagement_recognition.data.worker_processes.ProcessPoolExecutor", lambda *_: threads()),
        spawned(abs, [1, 2], 2, _nothing),
    ):
        raise BrokenProcessPool("A process in the process pool was terminated abruptly")


def _kill_itself(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _nothing() -> None:
    """A worker's start."""


def bound_to(number: int) -> Callable[[Bench, object], int]:
    def run(bench: Bench, _: object) -> int:
        with patch("os.sched_getaffinity", return_value=set(range(number)), create=True):
            return usable_cpus()

    return run


def no_input(folder: Path) -> Path:
    return folder


def three_splits(folder: Path) -> Path:
    return splits("train", "validation", "test")(folder / "set")


FACES = {"says": ("1 face",)}
ROWS = [
    Row("a download that ends early", no_input, fetched("short"),
        Refused(("broke off after 1,000 of 2,048 bytes", "try again"), VideoReadError), 11),
    Row("a download that ends early, in chunks", no_input, fetched("chunk"),
        Refused(("broke off", "try again"), VideoReadError), 11),
    Row("an address with a blank and an umlaut", no_input, fetched("a b/ü.mp4"),
        Comes(that=lambda content: content == CONTENT), 11),
    Row("an address that is quoted already", no_input, fetched("a%20b/%C3%BC.mp4?x=a%2Fb"),
        Comes(that=lambda content: content == CONTENT), 11),
    Row("a host that refuses Python", no_input, fetched("agent"), Comes(that=lambda content: content == CONTENT), 11),
    Row("a host that refuses all", no_input, fetched("status/403"),
        Refused(("403", "Forbidden", "browser"), VideoReadError), 11),
    Row("an address of nothing", no_input, fetched("gone"), Refused(("404", "check the address"), VideoReadError), 11),
    Row("a host that is busy", no_input, fetched("status/429"), Refused(("429",), VideoReadError), 11),
    Row("a redirect to a file", no_input, fetched("to/file:///etc/passwd"),
        Refused(("file:///etc/passwd", "not allowed"), VideoReadError), 11),
    Row("a redirect to FTP", no_input, fetched("to/ftp://127.0.0.1/a"), Refused(("ftp",), VideoReadError), 11),
    Row("a redirect to itself", no_input, fetched("to//to/x"), Refused(("x",), VideoReadError), 11),
    Row("an address that is none", no_input, lambda bench, _: fetch("http://[::1/a"),
        Refused(("http://[::1/a", "no answer"), VideoReadError), 11),
    Row("an endpoint's download that ends early", no_input, by_the_endpoint("short"),
        Refused(("broke off after 1000 of 2048 bytes",)), 11),
    Row("an endpoint's address with a blank", no_input, by_the_endpoint("a b/ü.mp4"), Comes(), 11),
    Row("an endpoint's host that refuses Python", no_input, by_the_endpoint("agent"), Comes(), 11),
    Row("an endpoint's host that refuses all", no_input, by_the_endpoint("status/403"),
        Refused(("403", "send the file itself")), 11),
    Row("a video as path and bytes, path", lambda folder: write_film(folder / "a.mp4"), is_as_the_film,
        Comes(that=lambda same: same is True), 20),
    Row("a video as path and bytes, bytes", lambda folder: write_film(folder / "a.mp4"),
        as_row(lambda film: {"path": "gone.mp4", "bytes": film.read_bytes()}),
        Comes(that=lambda clip: clip.found.all()), 20),
    Row("a video as neither", lambda folder: folder, as_row(lambda film: {"path": None, "bytes": None}),
        Refused(("neither a path nor bytes", "keys path, bytes")), 20),
    Row("a decoder of torchcodec's", lambda folder: folder, as_row(Decoder),
        Comes(that=lambda clip: clip.found.all()), 20),
    Row("a decoder that fails", lambda folder: folder, as_row(partial(Decoder, fails=True)),
        Refused(("Decoder", "no frame there", "Video(decode=False)"), VideoReadError), 20),
    Row("a container of PyAV's", lambda folder: write_film(folder / "a.mp4"), as_row(lambda film: av.open(str(film))),
        Comes(that=lambda clip: clip.found.all()), 20),
    Row("a container of PyAV's of no file", lambda folder: write_film(folder / "a.mp4"),
        as_row(lambda film: av.open(io.BytesIO(film.read_bytes()))),
        Refused(("PyAV", "pass what it was opened from")), 20),
    Row("a decoder of nobody's", lambda folder: folder, as_row(lambda film: _NoFile()), Refused(("_NoFile", "pass")),
        20),
    Row("a picture as path and bytes", as_file("a.png", lambda: saved("PNG")),
        lambda bench, path: load_picture({"path": "gone.png", "bytes": path.read_bytes()}),
        Comes(that=lambda pixels: (pixels == np.asarray(face())).all()), 20),
    Row("pictures of every kind before an image processor", as_file("a.png", lambda: saved("PNG")),
        lambda bench,
        path: bench.expression.processor([{"path": str(path), "bytes": None}, Image.open(path),
        bytearray(path.read_bytes())]),
        Comes(that=lambda batch: len(batch["pixel_values"]) == 3), 20),
    Row("a name that is not UTF-8", odd_name(b"caf\xe9.png"), in_terminal("utf-8", "--faces"),
        Comes(("caf\\udce9.png",)), 30),
    Row("a name with a line break", odd_name(b"a\nb.png"), in_terminal("utf-8", "--faces"),
        Comes(("a\\nb.png: 1 face",)), 30),
    Row("a name of Chinese letters in cp1252", odd_name("表情.png".encode()), in_terminal("cp1252", "--faces"),
        Comes(("\\u8868\\u60c5.png",)), 30),
    Row("a name that is not UTF-8, as JSON", odd_name(b"caf\xe9.png"), in_terminal("utf-8", "--faces", "--json"),
        Comes(("caf\\udce9.png",)), 30),
    Row("emoji in cp1252, as JSON", odd_name("🙂.png".encode()), in_terminal("cp1252", "--faces", "--json"),
        Comes(("\\ud83d\\ude42.png",)), 30),
    Row("a refusal of a name with a line break", lambda folder: at(folder, "a\nb.mp4", b"no film"),
        in_terminal("ascii"), Refused(("a b.mp4",)), 30),
    Row("a table of a name that is not UTF-8", odd_name(b"caf\xe9.png"), into_table(".csv"),
        Comes(("skips 1 files",)), 30),
    Row("a table of a name with a line break", odd_name(b"a\nb.png"), into_table(".csv"), Comes(("skips 1 files",)),
        30),
    Row("JSON lines of a name that is not UTF-8", odd_name(b"caf\xe9\n.png"), into_table(".jsonl"),
        Comes(("skips 1 files",)), 30),
    Row("Parquet of a name that is not UTF-8", odd_name(b"caf\xe9\n.png"), into_table(".parquet"),
        Comes(("skips 1 files",)), 30),
    Row("a timeline in cp1252", no_input, drawn_in("cp1252"), Comes(that=lambda drawing: "|147.|" in drawing), 30),
    Row("a timeline in UTF-8", no_input, drawn_in("utf-8"), Comes(that=lambda drawing: "|▁▄▇·|" in drawing), 30),
    Row("a timeline in ASCII, by the command", lambda folder: write_film(folder / "a.mp4", face_frames(16)),
        timeline_in("ascii"), Comes(that=lambda said: said.code == 0 and "▁" not in said.out), 30, slow=True),
    Row("a disk that is full while preparing", three_splits, full_disk(2),
        Refused(("No space left", "make room", "same command again")), 32),
    Row("a disk that is full at the end", three_splits, full_disk_at_the_end,
        Refused(("No space left", "make room", "same command again")), 32),
    Row("a part of prepared data that was cut", three_splits, cut_part,
        Refused(("00000000.arrow", "delete", "repeats this part")), 33),
    Row("a disk that is full while drawing pictures", no_input, draw_within(2000, "expressions"),
        Refused(("could not", "make room")), 32, slow=True),
    Row("a disk that is full while drawing clips", no_input, draw_within(3000, "daisee"),
        Refused(("could not", "make room")), 32, slow=True),
    Row("a pool that lost a worker", no_input, broken_pool,
        Refused(("was killed", "same command", "fewer processes"), DataError), 43),
    Row("a worker that is killed", no_input, killed_worker,
        Refused(("was killed", "same command", "fewer processes"), DataError), 43, slow=True),
    Row("a process bound to one processor", no_input, bound_to(1), Comes(that=lambda number: number == 1), 43),
]  # fmt: skip
