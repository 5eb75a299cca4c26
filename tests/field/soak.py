"""`make soak`: half an hour of what goes on for weeks elsewhere: `python tests/field/soak.py --minutes 30`.

A film is watched live, over and over; four visitors come to the page and go; twenty clients ask the endpoint at once,
with good files and bad ones. In the end: every question has an answer, memory is level, and no file was left behind.
Exit code 1 where one of these does not hold.
"""

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

sys.path += [str(Path(__file__).parents[1] / "helpers"), str(Path(__file__).parent)]
_NUM_CLIENTS, _NUM_VISITORS = 20, 4
_SAMPLE_SEC = 5
_MOST_GROWTH = 0.15  # of the memory held after the first third, by the last


@dataclass
class Counts:
    """What was asked and what came of it, by kind."""

    asked: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, ask: Callable[[], str]) -> None:
        """`ask` gives the kind of the answer; what it raises is a lost one."""
        with self.lock:
            self.asked += 1
        try:
            kind = ask()
        except Exception as error:
            with self.lock:
                self.lost.append(f"{type(error).__name__}: {error}"[:200])
            return
        with self.lock:
            self.answers[kind] += 1


def make_inputs(folder: Path) -> dict[str, bytes]:
    """Good and bad films and photos, by name."""
    from bench import face_frames, write_film
    from spoilt import archive, picture

    film = write_film(folder / "good.mp4").read_bytes()
    empty = write_film(folder / "nobody.mkv", [frame * 0 + 90 for frame in face_frames()]).read_bytes()
    return {
        "good.mp4": film,
        "long.webm": write_film(folder / "long.webm", face_frames(40), "libvpx").read_bytes(),
        "nobody.mkv": empty,
        "cut.mp4": film[: len(film) // 2],
        "noise.mp4": bytes(random.Random(0).randbytes(20_000)),
        "empty.mp4": b"",
        "text.avi": b"no film",
        "zip.mov": archive("zip"),
        "photo.jpg": picture("jpg"),
        "photo.png": picture("png"),
        "cut.webp": picture("webp")[:200],
    }


def ask_endpoint(folder: str, minutes: float) -> dict[str, Any]:
    """Twenty threads before one handler, as a server's are; what was asked, answered and lost."""
    from engagement_recognition.hub.endpoint.handler import EndpointHandler

    with tempfile.TemporaryDirectory() as films:
        inputs = list(make_inputs(Path(films)).values())
    handler, counts, end = EndpointHandler(folder), Counts(), time.monotonic() + 60 * minutes

    def ask(data: bytes) -> str:
        answer = handler({"inputs": data})
        json.dumps(answer)
        return f"refused with {answer['status']}" if "error" in answer else "predicted"

    def client(number: int) -> None:
        choice = random.Random(number)
        while time.monotonic() < end:
            counts.count(lambda: ask(choice.choice(inputs)))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(_NUM_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"asked": counts.asked, "answers": counts.answers, "lost": counts.lost}


class Visitor:
    """One browser's session of the page, by Gradio's protocol."""

    def __init__(self, address: str) -> None:
        self.address, self.hash = address.rstrip("/"), f"{random.getrandbits(48):x}"
        self.config = json.loads(self._open("/config").read())
        self.parts = {part["id"]: part for part in self.config["components"]}

    def _open(self, path: str, body: bytes | None = None, kind: str = "application/json"):
        request = urllib.request.Request(self.address + path, body, {"Content-Type": kind} if body else {})
        return urllib.request.urlopen(request, timeout=300)

    def upload(self, name: str, data: bytes) -> dict[str, Any]:
        """What a file part of the page holds afterwards."""
        edge = "edge-of-part"
        head = f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + data + f"\r\n--{edge}--\r\n".encode()
        (path,) = json.loads(self._open("/gradio_api/upload", body, f"multipart/form-data; boundary={edge}").read())
        return {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}

    def press(self, event: str, values: list[Any], **named: str) -> list[Any]:
        """What an event of the part with this `elem_id`, or `value`, gives."""
        ((key, wanted),) = named.items()
        ids = [number for number, part in self.parts.items() if part["props"].get(key) == wanted]
        events = self.config["dependencies"]
        chosen = next(one for one in events if [ids[0], event] in one["targets"])
        return self.call(chosen["id"], values)

    def call(self, number: int, values: list[Any]) -> list[Any]:
        """The answer of a function of the page."""
        question = {"data": values, "fn_index": number, "session_hash": self.hash, "event_data": None}
        self._open("/gradio_api/queue/join", json.dumps(question).encode()).read()
        with self._open(f"/gradio_api/queue/data?session_hash={self.hash}") as lines:
            for line in lines:
                if not line.startswith(b"data:"):
                    continue
                message = json.loads(line[5:])
                if message["msg"] == "process_completed":
                    if not message["success"]:
                        raise RuntimeError(f"the page failed: {message['output']}")
                    return message["output"]["data"]
        raise RuntimeError("the page closed the line without an answer")


def visit(address: str, model: str, inputs: dict[str, bytes], choice: random.Random, counts: Counts) -> None:
    """A visitor comes, looks at a film or a photo, starts the camera, and goes, with or without stopping it."""
    visitor = Visitor(address)
    name = choice.choice(list(inputs))
    kind = "photo" if name.startswith(("photo", "cut.w")) else "video"

    def look() -> str:
        file = visitor.upload(name, inputs[name] or b"\0")
        options = [5] if kind == "video" else []
        (html,) = visitor.press("click", [file, model, *options], value=f"Look at the {kind}")
        return "refused" if "refusal" in html else "answered"

    counts.count(look)

    def film() -> str:
        visitor.press("click", [True, model, "granted"], value="Start the camera")
        for _ in range(8):
            frame = visitor.upload("frame.jpg", inputs["photo.jpg"])
            visitor.press("stream", [frame, model, None], elem_id="camera")
        if choice.random() < 0.5:
            visitor.press("click", [None], elem_id="stop")
        return "camera"

    counts.count(film)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _megabytes(pid: int) -> float:
    """Of a process and its children."""
    try:
        whole = psutil.Process(pid)
        return sum(one.memory_info().rss for one in [whole, *whole.children(recursive=True)]) / 2**20
    except psutil.Error:
        return 0.0


def main(arguments: list[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description="What goes on for weeks elsewhere, in half an hour.")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--endpoint", help=argparse.SUPPRESS)  # this process is to be it, of this folder
    options = parser.parse_args(arguments)
    if options.endpoint:
        print(json.dumps(ask_endpoint(options.endpoint, options.minutes)))
        return 0
    with tempfile.TemporaryDirectory(prefix="soak_") as folder:
        return _soak(Path(folder), options.minutes)


class Servers:
    """What runs beside this process, each with a log."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.scratch = folder, folder / "scratch"
        self.scratch.mkdir()
        self._environment = os.environ | {"TMPDIR": str(self.scratch), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

    def start(self, name: str, *command: str) -> subprocess.Popen[str]:
        """Its output goes to a log; what it prints last may be read there."""
        with (self.folder / f"{name}.log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, *command], stdout=log, stderr=log, env=self._environment, text=True
            )

    def start_command(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        """`engagement ARGUMENTS...`"""
        return self.start(name, "-c", "from engagement_recognition.cli.main import main; main()", *arguments)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()


def _soak(folder: Path, minutes: float) -> int:
    from bench import face_frames, write_film
    from spoilt import write_model

    model, films, servers = folder / "model", folder / "films", Servers(folder)
    films.mkdir()
    write_model(model)
    inputs, film = make_inputs(films), write_film(films / "film.mp4", face_frames() * 60)
    port, page, live = _free_port(), Counts(), Counts()
    address, site = f"http://127.0.0.1:{port}", servers.start_command("page", "app", str(model), "--port", str(port))
    while site.poll() is None:
        with suppress(OSError):
            urllib.request.urlopen(f"{address}/config", timeout=10).close()
            break
        time.sleep(0.5)
    asking = servers.start("endpoint", __file__, "--endpoint", str(model), "--minutes", str(minutes))
    end = time.monotonic() + 60 * minutes

    def visitor(number: int) -> None:
        choice = random.Random(number)
        while time.monotonic() < end:
            visit(address, model.name, inputs, choice, page)

    def watch_film() -> str:
        watching = ("live", "--model", str(model), "--source", str(film), "--no-window", "--json")
        if (code := servers.start_command("live", *watching).wait()) != 0:
            raise RuntimeError(f"live ended with exit code {code}")
        return "watched to its end"

    def watcher() -> None:
        while time.monotonic() < end:
            live.count(watch_film)

    threads = [threading.Thread(target=visitor, args=(number,)) for number in range(_NUM_VISITORS)]
    threads.append(threading.Thread(target=watcher))
    for thread in threads:
        thread.start()
    memory: dict[str, list[float]] = {"endpoint": [], "page": []}
    while time.monotonic() < end:
        time.sleep(_SAMPLE_SEC)
        memory["endpoint"].append(_megabytes(asking.pid))
        memory["page"].append(_megabytes(site.pid))
    for thread in threads:
        thread.join()
    asking.wait()
    site.terminate()
    site.wait()
    endpoint = json.loads(servers.log("endpoint").splitlines()[-1])
    tracebacks = {name: servers.log(name).count("Traceback") for name in ("endpoint", "page", "live")}
    left = [str(path.relative_to(servers.scratch)) for path in servers.scratch.rglob("*") if path.is_file()]
    return _report(minutes, endpoint, page, live, memory, tracebacks, left)


def _report(
    minutes: float, endpoint: dict[str, Any], page: Counts, live: Counts, memory: dict[str, list[float]],
    tracebacks: dict[str, int], left: list[str],
) -> int:  # fmt: skip
    is_level = True
    print(f"{minutes:g} minutes")
    for name, asked, answers, lost in (
        ("endpoint", endpoint["asked"], endpoint["answers"], endpoint["lost"]),
        ("page", page.asked, page.answers, page.lost),
        ("live", live.asked, live.answers, live.lost),
    ):
        print(f"{name}: {asked} asked, {sum(answers.values())} answered {dict(answers)}, {len(lost)} lost {lost[:3]}")
    for name, samples in memory.items():
        third = max(1, len(samples) // 3)
        first, last = max(samples[:third], default=0.0), max(samples[-third:], default=0.0)
        is_level &= last <= first * (1 + _MOST_GROWTH)
        print(f"{name}: {first:.0f} MB at most in the first third, {last:.0f} MB in the last")
    print(f"tracebacks in the logs {tracebacks}, files left behind {len(left)} {left[:3]}")
    num_lost = len(endpoint["lost"]) + len(page.lost) + len(live.lost)
    return int(bool(num_lost or left or any(tracebacks.values()) or not is_level))


if __name__ == "__main__":
    sys.exit(main())
