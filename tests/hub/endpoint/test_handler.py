"""The endpoint's handler where it will run: beside the weights, in a process without this package, fed with what people
send. It answers as `predict.py` does, or refuses with a status and a reason, and never raises."""

import ast
import base64
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TrainedStages
from numbered_videos import HEIGHT_PX, WIDTH_PX, encode, write_sound
from PIL import Image
from strangers_machine import ELSEWHERE
from transformers import AutoImageProcessor

from engagement_recognition import EngagementForImageClassification
from engagement_recognition.data.drawn.faces import FacePose, draw_frame, draw_subject
from engagement_recognition.hub.endpoint import handler
from engagement_recognition.inference.predictions import (
    FacePrediction,
    PhotoPrediction,
    Span,
    VideoPrediction,
    to_json,
)
from engagement_recognition.inference.predictor import Predictor

# Arguments: a folder with a folder a model, each with handler.py in it and named after it, and in requests.json
# {name: [model, kind of input, value, limits]}.
SERVE = (
    ELSEWHERE.partition("\nimport torch")[0]
    + """
import base64, importlib.util, time
from dataclasses import replace
from pathlib import Path
from PIL import Image

def load(folder):  # as huggingface-inference-toolkit does
    spec = importlib.util.spec_from_file_location("handler", Path(folder) / "handler.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["handler"] = module
    spec.loader.exec_module(module)
    return module.EndpointHandler(folder)

MAKE = {
    "json": lambda value: value,
    "bytes": lambda value: {"inputs": Path(value).read_bytes()},
    "base64": lambda value: {"inputs": base64.b64encode(Path(value).read_bytes()).decode()},
    "lines": lambda value: {"inputs": base64.encodebytes(Path(value).read_bytes()).decode()},
    "data": lambda value: {"inputs": "data:video/mp4;base64," + base64.b64encode(Path(value).read_bytes()).decode()},
    "DATA": lambda value: {"inputs": "DATA:video/mp4;BASE64," + base64.b64encode(Path(value).read_bytes()).decode()},
    "quoted": lambda value: {"inputs": 'data:video/mp4;codecs="avc1.42, mp4a";base64,'
                             + base64.b64encode(Path(value).read_bytes()).decode()},
    "picture": lambda value: {"inputs": Image.open(value).convert("RGB")},
    "lazy": lambda value: {"inputs": Image.open(value)},  # nothing decoded yet
    "blank": lambda value: {"inputs": Image.new("RGB", value)},
}
home, said = Path(sys.argv[1]), {}
handlers = {name: load(str(home / name)) for name in ("video", "image", "frame")}
limits = handlers["video"].limits
for name, (model, kind, value, changed) in json.loads((home / "requests.json").read_text()).items():
    handler = handlers[model]
    handler.limits = replace(limits, **changed)
    started = time.perf_counter()
    said[name] = handler(MAKE[kind](value))
    said[name]["seconds"] = time.perf_counter() - started
print(json.dumps(said))
"""
)
PRIVATE = {"allow_private_addresses": True}


class Files(BaseHTTPRequestHandler):
    """What an address may answer: a file, a redirect, or one byte at a time, in the head or in the body."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
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


@pytest.fixture(scope="module")
def video(drawn_daisee: Path) -> Path:
    return next(path for path in sorted(drawn_daisee.glob("DataSet/Test/*/*/*")))


@pytest.fixture(scope="module")
def address(video: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    server.daemon_threads, server.video, server.asked = True, video.read_bytes(), []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, video: Path) -> dict[str, str]:
    """Files good and bad, by name."""
    folder = tmp_path_factory.mktemp("inputs")
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


@pytest.fixture(scope="module")
def said(
    trained: TrainedStages, drawn: dict[str, str], address: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict]:
    """All answers, by request."""
    home = tmp_path_factory.mktemp("endpoint")
    for name, stage in {"video": trained.engagement, "image": trained.expression, "frame": trained.expression}.items():
        shutil.copytree(stage, home / name)
        shutil.copy(handler.__file__, home / name)
    settings = home / "frame/preprocessor_config.json"
    whole = {"face_crop": False, "pictures_are_frames": True}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | whole))
    refused = {name: request for name, (request, *_) in refused_requests(drawn, address).items()}
    (home / "requests.json").write_text(json.dumps(good_requests(drawn, address) | refused))
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(home / "modules")}
    command = [sys.executable, "-P", "-c", SERVE, str(home)]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_video_gets_the_answer_that_predict_gives(
    said: dict[str, dict], trained: TrainedStages, video: Path, drawn: dict[str, str], address: str
):
    expected = Predictor.from_pretrained(str(trained.engagement)).predict_video(video)
    videos = [name for name, (model, *_) in good_requests(drawn, address).items() if model == "video"]
    assert len(videos) == 8
    for name in videos:
        answer = said[name]
        assert answer["label"] == expected.label and answer["scores"] == pytest.approx(expected.scores, abs=1e-6)
        assert answer["face_coverage"] == expected.face_coverage > 0
        assert answer["num_repeated_frames"] == expected.num_repeated_frames


def test_a_picture_gets_an_answer_a_face(said: dict[str, dict], trained: TrainedStages, drawn: dict[str, str]):
    expected = Predictor.from_pretrained(str(trained.expression)).predict_photo(Path(drawn["face.jpg"])).faces
    for name in ("face bytes", "face picture", "face lazy"):
        faces = said[name]["faces"]
        assert [face["label"] for face in faces] == [face.label for face in expected]
        for face, like in zip(faces, expected, strict=True):
            assert face["scores"] == pytest.approx(like.scores, abs=1e-6)
            assert face["box_xyxy_px"] == pytest.approx(like.box_xyxy_px, abs=0.1)
            assert face["face_probability"] == pytest.approx(like.face_probability)


def test_a_model_of_whole_frames_reads_the_whole_picture(
    said: dict[str, dict], trained: TrainedStages, drawn: dict[str, str]
):
    model = EngagementForImageClassification.from_pretrained(trained.expression).eval()
    processor = AutoImageProcessor.from_pretrained(trained.expression)
    with torch.inference_mode():
        scores = model(**processor(drawn["face.jpg"], face_crop=False)).logits[0].softmax(dim=0)
    expected = {model.config.id2label[i]: float(score) for i, score in enumerate(scores)}
    assert said["whole frame"]["scores"] == pytest.approx(expected, abs=1e-6)
    certainty = max(expected.values())
    assert certainty < 0.3 and (said["whole frame"]["label"], said["whole frame"]["reason"]) == (None, "uncertain")
    assert said["whole frame"]["certainty"] == pytest.approx(certainty, abs=1e-6)


def test_what_cannot_be_used_is_refused_with_a_reason(said: dict[str, dict], drawn: dict[str, str], address: str):
    refused = refused_requests(drawn, address)
    for name, (_, status, told) in refused.items():
        print(said[name]["status"], name + ":", said[name]["error"])
        assert told in said[name]["error"] and said[name]["status"] == status, name
        assert "\n" not in said[name]["error"]
    assert len({said[name]["error"] for name in refused}) >= len(refused) - 4


def test_a_slow_sender_is_left_when_its_time_is_up(said: dict[str, dict]):
    # Ten seconds of single bytes, each well within a socket's own timeout.
    assert all(0.4 < said[name]["seconds"] < 3 for name in ("a slow head", "a slow body"))


def test_a_redirect_is_held_to_public_addresses_too(address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(handler, "_is_public", lambda found: found == "127.0.0.1")  # as if it were public
    assert handler._download(f"{address}/video", handler.Limits())
    inside = address.replace("127.0.0.1", "127.0.0.2")
    with pytest.raises(handler.Refusal, match=r"127\.0\.0\.2 is in a private network"):
        handler._download(f"{address}/to/{inside}/video", handler.Limits())


ADDRESSES = {
    "93.184.215.14": True, "2606:2800:21f:cb07:6820:80da:af6b:8b2c": True, "127.0.0.1": False, "10.1.2.3": False,
    "172.16.0.1": False, "192.168.1.1": False, "169.254.169.254": False, "100.64.0.1": False, "0.0.0.0": False,
    "224.0.0.1": False, "255.255.255.255": False, "::1": False, "::": False, "fe80::1": False, "fd00:ec2::254": False,
    "::ffff:10.0.0.1": False, "2002:7f00:1::": False, "64:ff9b::7f00:1": False, "ff02::1": False,
}  # fmt: skip


@pytest.mark.parametrize(("found", "is_public"), ADDRESSES.items())
def test_private_addresses_are_known_in_every_form(found: str, is_public: bool):
    assert handler._is_public(found) is is_public


def test_the_handler_needs_nothing_that_an_endpoint_lacks():
    tree = ast.parse(Path(handler.__file__).read_text(encoding="utf-8"))
    run = [node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")]
    imports = [node for part in run for node in ast.walk(part) if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in imports if isinstance(node, ast.ImportFrom)}  # None for a relative one
    assert {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) == {"torch", "PIL", "transformers"}


def test_base64_is_measured_by_its_bytes():
    limits = handler.Limits(max_bytes=3000)
    assert handler._read_content({"inputs": base64.encodebytes(b"a" * 3000).decode()}, limits) == b"a" * 3000
    with pytest.raises(handler.Refusal, match=r"^At most 3000 bytes .* got 3001") as refusal:
        handler._read_content({"inputs": base64.b64encode(b"a" * 3001).decode()}, limits)
    assert refusal.value.status == 413


def test_the_json_of_predict_holds_every_field_of_a_result():
    scores = {"disengaged": 0.25, "engaged": 0.75}
    spans = [Span(0.0, 1.0, "engaged", scores, 1.0), Span(1.0, 2.0, None, None, 0.0)]
    video = VideoPrediction("a.mp4", "engaged", scores, 0.5, 0, spans)
    photo = PhotoPrediction("a.png", [FacePrediction("engaged", scores, [1.0, 2.0, 3.0, 4.0], 0.99)])
    about = {"trained_on": "unknown", "calibrated": False, "device": "cpu", "engine": "torch", "dtype": "float32"}
    assert [to_json(result, about) for result in (video, photo)] == [
        json.loads(json.dumps(asdict(one))) | {"model": about} for one in (video, photo)
    ]
    assert "timeline" not in to_json(replace(video, timeline=[]), about)
