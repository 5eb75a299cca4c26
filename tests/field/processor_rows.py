"""What a call of a processor may say, what an endpoint may be asked for, and what a page is sent."""

import ipaddress
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from bench import Bench, face_frames
from endpoint_inputs import reads
from rows import Comes, Refused, Row
from transformers import VideoMAEVideoProcessor, ViTImageProcessor

from engagement_recognition import EngagementImageProcessor, EngagementVideoProcessor
from engagement_recognition.inference.placement import Placement
from engagement_recognition.processor.input_errors import EngagementInputError

_SIZE = {"height": 48, "width": 48}


def _frames(folder: Path) -> np.ndarray:
    """(8, 48, 48, 3) uint8, at the size of a crop, which both sides then leave as it is."""
    return np.stack([frame[40:88, 100:148] for frame in face_frames()])


def _ours(video: bool, frames: np.ndarray, **call: object) -> torch.Tensor:
    kind = EngagementVideoProcessor if video else EngagementImageProcessor
    processor = kind(size=_SIZE, face_crop=False, face_crop_size_px=48)
    return processor(frames if video else list(frames), return_tensors="pt", **call)["pixel_values"]


def _theirs(video: bool, frames: np.ndarray, **call: object) -> torch.Tensor:
    imagenet = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    if video:
        processor = VideoMAEVideoProcessor(size=_SIZE, do_center_crop=False, **imagenet)
        return processor([torch.from_numpy(frames).permute(0, 3, 1, 2)], return_tensors="pt", **call)["pixel_values"]
    return ViTImageProcessor(size=_SIZE, **imagenet)(list(frames), return_tensors="pt", **call)["pixel_values"]


def _as_theirs(call: dict[str, object], video: bool, frames: np.ndarray) -> bool:
    ours, theirs = _ours(video, frames, **call), _theirs(video, frames, **call)
    return ours.shape == theirs.shape and bool(torch.allclose(ours, theirs.float(), atol=1e-5))


_HONOURED: dict[str, dict[str, object]] = {
    "do_normalize": {"do_normalize": False},
    "do_rescale": {"do_rescale": False, "do_normalize": False},
    "rescale_factor": {"rescale_factor": 1 / 127.5},
    "image_mean, image_std": {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.4, 0.3]},
    "size": {"size": {"height": 32, "width": 24}},
    "do_resize": {"do_resize": False},
    "do_convert_rgb": {"do_convert_rgb": True},
    "device": {"device": "cpu"},
}
_REFUSED: dict[str, dict[str, object]] = {
    "fps": {"fps": 2},
    "video_metadata": {"video_metadata": [{"fps": 4}]},
    "do_center_crop": {"do_center_crop": True},
    "do_pad": {"do_pad": True},
    "crop_size": {"crop_size": 32},
    "resample": {"resample": 3},
    "size": {"size": {"shortest_edge": 32}},
    "image_std": {"image_std": [0.0, 1.0, 1.0]},
    "device": {"device": "gpu7"},
    "data_format": {"data_format": "sideways"},
    "input_data_format": {"input_data_format": "none"},
    "return_tensors": {"return_tensors": "mlx"},
    "rescale_factor": {"rescale_factor": float("nan")},
}


def _refused(call: dict[str, object], video: bool, bench: Bench, frames: np.ndarray) -> torch.Tensor:
    kind = EngagementVideoProcessor if video else EngagementImageProcessor
    return kind(size=_SIZE, face_crop=False, face_crop_size_px=48)(frames if video else list(frames), **call)


def _channels_first(bench: Bench, frames: np.ndarray) -> bool:
    """Three rows of pixels are no channels where it is said what is."""
    flat = np.ascontiguousarray(frames[:, :3])  # (8, 3, 48, 3): either could be the channels
    moved = np.moveaxis(flat, -1, -3)  # (8, 3, 3, 48)
    said = _ours(True, moved, input_data_format="channels_first")
    expected = _ours(True, flat, input_data_format="channels_last")
    last = _ours(True, flat, input_data_format="channels_last", data_format="channels_last")
    return torch.equal(said, expected) and torch.equal(last.movedim(-1, -3), expected)


_PRIVATE = (
    "127.0.0.1", "0.0.0.0", "10.1.2.3", "169.254.169.254", "100.64.0.1", "224.0.0.1", "240.0.0.1", "192.88.99.1",
    "::1", "::", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001::1", "fe80::1%1", "fec0::1",
    "fc00::1", "ff02::1", "2001:db8::1", "3fff::1", "100::1",
)  # fmt: skip
_PUBLIC = ("8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e", "2001:4860::8888")
# As they are written in an address; each of them leads to this machine, or nowhere: words of the refusal. Whether a
# host with a dot at its end or a port without sense gets as far as an address is up to the system's resolver.
_WRITTEN = {
    "http://[::127.0.0.1]/a.mp4": ("::127.0.0.1", "private network"),
    "http://0x7f000001/a": ("0x7f000001", "private network"),
    "http://017700000001/a": ("017700000001", "private network"),
    "http://127.1/a": ("127.1", "private network"),
    "http://0/a": ("0 ", "private network"),
    "http://127.0.0.1./a": ("127.0.0.1.",),
    "http://localhost./a": ("localhost.",),
    "http://\u2460\u2461\u2466.0.0.1/a": ("127.0.0.1", "private network"),
    "http://8.8.8.8@127.0.0.1/a": ("8.8.8.8@127.0.0.1",),
    "http://127.0.0.1:99999999/a": ("127.0.0.1",),
    "http://127.0.0.1:x/a": ("http://127.0.0.1:x/a", "port"),
    "http://[::1/a": ("http://[::1/a", "IPv6"),
    "http://[64:ff9b::7f00:1]:80/a": ("64:ff9b::7f00:1", "private network"),
    "https://[2002:7f00:1::]/a": ("2002:7f00:1::", "private network"),
    "http:///a": ("http:///a", "no host"),
    "http://127.0.0.1\n/a": ("127.0.0.1", "private network"),
}


def _is_asked(address: str) -> bool:
    """Whether an endpoint connects to a host of this address."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80))]
    connect = patch.object(socket, "create_connection", side_effect=OSError("asked"))
    with patch.object(socket, "getaddrinfo", return_value=found), connect as asked, suppress(EngagementInputError):
        reads("http://public.example/a.mp4")
    return asked.called


def _page(bench: Bench, ask: Callable[[str, int], bool]) -> bool:
    """A page of the model in the box, asked something."""
    from engagement_recognition.live.page import build_app, launch

    app = build_app({"box": str(bench.expression_folder)}, placement=Placement("cpu"))
    try:
        address = launch(app)
        return ask(address, max(app.fns))
    finally:
        app.close()


def _post(address: str, body: bytes) -> int:
    request = urllib.request.Request(f"{address}gradio_api/queue/join", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def _ask_nonsense(address: str, last: int) -> bool:
    events = [{"fn_index": index, "data": [], "session_hash": "a"} for index in (last + 1, -1, "x", None, 1.5, [0])]
    events += [{"fn_index": 0, "data": data, "session_hash": "a"} for data in ([], [1, 2, 3], "x", None)]
    bodies = [*(json.dumps(event).encode() for event in events), b"", b"{", b"[]", b"[" * 100_000, b"\xff\xfe"]
    codes = [_post(address, body) for body in bodies]
    assert all(400 <= code < 500 for code in codes), codes
    with urllib.request.urlopen(address, timeout=10) as answer:
        return bool(answer.status == 200)


ROWS = [
    *(
        Row(
            f"{'video' if video else 'image'} processor, {name} in a call",
            _frames,
            lambda bench, frames, call=call, video=video: _as_theirs(call, video, frames),
            Comes(that=lambda same: same is True),
            kind=21,
        )
        for video in (True, False)
        for name, call in _HONOURED.items()
    ),
    *(
        Row(
            f"{'video' if video else 'image'} processor, {name} that cannot be honoured",
            _frames,
            partial(_refused, call, video),
            Refused((name,)),
            kind=21,
        )
        for video in (True, False)
        for name, call in _REFUSED.items()
    ),
    Row("channels where a call says", _frames, _channels_first, Comes(that=lambda same: same is True), kind=21),
    Row(
        "addresses that are not public",
        lambda folder: _PRIVATE,
        lambda bench, addresses: [address for address in addresses if _is_asked(address)],
        Comes(that=lambda passed: passed == []),
        kind=37,
    ),
    Row(
        "addresses that are public",
        lambda folder: _PUBLIC,
        lambda bench, addresses: [address for address in addresses if not _is_asked(address)],
        Comes(that=lambda refused: refused == [] and all(map(ipaddress.ip_address, _PUBLIC))),
        kind=37,
    ),
    *(
        Row(
            f"an address written as {url!r}",
            lambda folder, url=url: url,
            lambda bench, url: reads(url, download_timeout_sec=2),
            Refused(words),
            kind=37,
        )
        for url, words in _WRITTEN.items()
    ),
    Row(
        "a page that is sent nonsense",
        lambda folder: folder,
        lambda bench, folder: _page(bench, _ask_nonsense),
        Comes(that=lambda is_up: is_up is True),
        kind=35,
    ),
]
