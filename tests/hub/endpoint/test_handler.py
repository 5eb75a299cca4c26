"""The endpoint's handler alone: which addresses it reads, how it counts bytes, what it needs and what `predict` shares
with it. What it answers elsewhere is in test_elsewhere.py."""

import ast
import base64
import json
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from endpoint_requests import serving

from engagement_recognition.hub.endpoint import handler
from engagement_recognition.inference.predictions import (
    FacePrediction,
    PhotoPrediction,
    Span,
    VideoPrediction,
    to_json,
)

READ = 415  # the status of what has been read and is no picture


class WithoutModel(handler.EndpointHandler):
    """It answers up to the point where a model is needed."""

    def __init__(self) -> None:
        self.is_video_model = False


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let the name public.example have this address; connections to it come to this machine."""
    connect, find = socket.create_connection, socket.getaddrinfo

    def set_address(address: str) -> None:
        def look_up(host: str, port: int, *rest: object, **options: object) -> list[tuple]:
            if host != "public.example":
                return find(host, port, *rest, **options)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

        def connect_here(place: tuple[str, int], *rest: object) -> socket.socket:
            return connect(("127.0.0.1", place[1]), *rest)

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        monkeypatch.setattr(socket, "create_connection", connect_here)

    return set_address


@pytest.mark.parametrize(("path", "status"), [("/video", READ), ("/to/{inside}/video", 400)])
def test_a_redirect_is_held_to_public_addresses_too(
    path: str, status: int, resolve: Callable[[str], None], drawn_daisee: Path
):
    resolve("93.184.215.14")
    with serving(next(drawn_daisee.rglob("*.avi"))) as inside:
        url = inside.replace("127.0.0.1", "public.example") + path.format(inside=inside)
        answer = WithoutModel()({"inputs": url})
    assert answer["status"] == status
    assert status == READ or "127.0.0.1 is in a private network" in answer["error"]


ADDRESSES = {
    "93.184.215.14": True, "2606:2800:21f:cb07:6820:80da:af6b:8b2c": True, "127.0.0.1": False, "10.1.2.3": False,
    "172.16.0.1": False, "192.168.1.1": False, "169.254.169.254": False, "100.64.0.1": False, "0.0.0.0": False,
    "224.0.0.1": False, "255.255.255.255": False, "::1": False, "::": False, "fe80::1": False, "fd00:ec2::254": False,
    "::ffff:10.0.0.1": False, "2002:7f00:1::": False, "64:ff9b::7f00:1": False, "ff02::1": False,
}  # fmt: skip


@pytest.mark.parametrize(("found", "is_public"), ADDRESSES.items())
def test_private_addresses_are_known_in_every_form(found: str, is_public: bool, resolve: Callable[[str], None]):
    resolve(found)
    error = WithoutModel()({"inputs": "http://public.example:9/video"})["error"]  # nobody listens there
    assert ("private network" not in error) is is_public


def test_the_handler_needs_nothing_that_an_endpoint_lacks():
    tree = ast.parse(Path(handler.__file__).read_text(encoding="utf-8"))
    run = [node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")]
    imports = [node for part in run for node in ast.walk(part) if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in imports if isinstance(node, ast.ImportFrom)}  # None for a relative one
    assert {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) == {"torch", "PIL", "transformers"}


def test_base64_is_measured_by_its_bytes():
    endpoint = WithoutModel()
    endpoint.limits = handler.Limits(max_bytes=3000)
    assert endpoint({"inputs": base64.encodebytes(b"a" * 3000).decode()})["status"] == READ
    refused = endpoint({"inputs": base64.b64encode(b"a" * 3001).decode()})
    assert refused["status"] == 413 and "At most 3000 bytes" in refused["error"] and "got 3001" in refused["error"]


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
