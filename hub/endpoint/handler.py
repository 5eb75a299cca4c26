"""A model's folder as a Hugging Face Inference Endpoint: one video or picture in, a label and all scores out.

This file is copied to the model's folder and runs there without this package, with the model's own code. Create the
endpoint with the task "Custom": for others Hugging Face's toolkit refuses or decodes strings first
(serialization/base.py of huggingface-inference-toolkit). The toolkit answers HTTP 200 with a return value and HTTP 400
for an exception (webservice_starlette.py), so a refusal is returned, with its own status. The model card says what the
answers may be used for.
"""

import base64
import binascii
import contextlib
import http.client
import io
import ipaddress
import re
import socket
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from PIL import Image

if TYPE_CHECKING:  # the package is missing where this file runs
    import numpy as np
    import torch

    from ...answer_rule import AnswerRule
    from ...inference.predictions import AboutModel, FaceAnswer, PhotoAnswer, VideoAnswer
    from ...processor.face_preparation import PreparedClip
    from ...processor.film_windows import WindowAnswer
    from ...processor.input_errors import EngagementInputError

_PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
# Not at the first comma: a quoted parameter may contain one, as in codecs="avc1.42, mp4a".
_BASE64_MARKER = re.compile(";base64,", re.IGNORECASE)
_DATA_URL_HEAD_CHARS = 1000


@dataclass(frozen=True)
class Limits:
    """Limits of one request; set `EndpointHandler.limits` to change them."""

    max_bytes: int = 64 << 20
    max_duration_sec: float = 600.0
    max_frames: int = 36_000  # ten minutes at 60 fps; frames of small files may also take long to decode
    max_picture_pixels: int = 50_000_000
    download_timeout_sec: float = 20.0  # for a whole download; resolving names is not included
    # Off, since an endpoint runs inside a private network, whose addresses clients must not read.
    allow_private_addresses: bool = False


class Refusal(Exception):
    """An input without a prediction: 400 not understood, 413 too large, 415 wrong kind, 422 unusable."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(" ".join(message.split()))
        self.status = status


class RefusalAnswer(TypedDict):
    """The answer without a prediction: the reason and an HTTP status."""

    error: str
    status: int


class EndpointHandler:
    """
    Args:
        path: the model's folder; its code is run.
    """

    limits = Limits()

    def __init__(self, path: str = "") -> None:
        import torch  # here, since its subclass in `export_handler` does not need torch
        import transformers as hf

        config = hf.AutoConfig.from_pretrained(path, trust_remote_code=True)
        self.is_video_model = "Video" in config.architectures[0]
        kinds = (hf.AutoModelForVideoClassification, hf.AutoVideoProcessor)
        model, processor = kinds if self.is_video_model else (hf.AutoModelForImageClassification, hf.AutoImageProcessor)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        loaded = processor.from_pretrained(path, trust_remote_code=True).on_device(self.device)
        self.processor = loaded.with_bounded_reader()  # clients may send files that hang or crash a decoder
        self.model = model.from_pretrained(path, trust_remote_code=True).eval().to(self.device)
        rule = sys.modules[type(config).__module__].AnswerRule
        self.rule: AnswerRule = self.model.answer_rule or rule(tuple(config.label_names))  # else uncalibrated
        self.about: AboutModel = {
            "trained_on": self.rule.trained_on, "calibrated": self.rule.is_calibrated, "device": self.device,
            "engine": f"torch {torch.__version__.partition('+')[0]}", "dtype": "float32",
        }  # fmt: skip
        # The processor's module, under any imported name, has the file readers and their errors.
        self.code = sys.modules[type(self.processor).__module__]

    def __call__(self, data: object) -> "VideoAnswer | PhotoAnswer | RefusalAnswer":
        """
        Args:
            data: `{"inputs": ...}`: bytes, a base64 string, a data URL or an http(s) URL of a video (a picture, for a
                single-face model), or a PIL picture, which the toolkit makes from an `image/*` body.

        Returns:
            For a video `label` or, where it is null, `reason`; `scores` by label and `certainty`; `face_coverage` (the
            share of frames with the person's face; None for whole frames), `num_repeated_frames`, `num_people`,
            `num_windows`, `spread` of the scores over them, `notes` on the file, and `model`: what it was trained on,
            whether it is calibrated, where it ran. For a picture `faces`, from left to right, each with `label`,
            `reason`, `scores`, `certainty`, `box_xyxy_px` and `face_probability`, `notes` and `model`. Otherwise
            `error` and `status`.
        """
        try:
            content = _read_content(data, self.limits)
            return self._predict_video(content) if self.is_video_model else self._predict_picture(content)
        except Refusal as refusal:
            return {"error": str(refusal), "status": refusal.status}
        except self.code.EngagementInputError as error:
            is_too_large = type(error).__name__ == "VideoTooLargeError"
            return {"error": str(error), "status": 413 if is_too_large else 422}

    def _predict_video(self, content: bytes | Image.Image) -> "VideoAnswer":
        if isinstance(content, Image.Image) or _picture_size_px(content):
            raise Refusal(415, "This model reads clips, got a picture; send a video.")
        index = self.processor.index_file(content)
        limits = self.limits
        if index.duration_sec > limits.max_duration_sec or index.num_frames > limits.max_frames:
            raise Refusal(
                413,
                f"A video may have at most {limits.max_duration_sec:g} s and {limits.max_frames} frames, got "
                f"{index.duration_sec:.1f} s and {index.num_frames}; send a shorter one.",
            )
        windows = self.processor.windows_of(index, self.rule.clip_sec)
        spans = [(window.start_sec, window.end_sec) for window in windows]
        notes, answered = list(index.notes), []
        for clip in self.processor.prepare_spans(content, spans, index):
            answered.append(self._answer_window(clip))
            notes += getattr(clip, "notes", ())
        film = self.code.answer_film(self.rule, answered, index.path)
        return {
            "label": film.answer.label,
            "reason": film.answer.reason,
            "scores": film.answer.scores,
            "certainty": film.answer.certainty,
            "face_coverage": film.face_coverage,
            "num_repeated_frames": film.num_repeated_frames,
            "num_people": film.num_people,
            "num_windows": film.num_windows,
            "num_unreadable_windows": film.num_unreadable_windows,
            "spread": film.spread,
            "notes": list(dict.fromkeys([*notes, *film.notes])),
            "model": self.about,
        }

    def _answer_window(self, clip: "PreparedClip | EngagementInputError") -> "WindowAnswer":
        scores = None
        if not isinstance(clip, Exception):
            scores = self._score(self.processor.to_pixel_values(clip.frames)[None])[0]  # (1, frames, C, H, W)
        return self.code.answer_window(self.rule, clip, scores)

    def _predict_picture(self, content: bytes | Image.Image) -> "VideoAnswer | PhotoAnswer":
        size_px = content.size if isinstance(content, Image.Image) else _picture_size_px(content)
        if size_px is None:
            raise Refusal(415, f"Expected a picture ({', '.join(_PICTURE_FORMATS)}), got something else.")
        if size_px[0] * size_px[1] > self.limits.max_picture_pixels:
            limit = f"A picture may have at most {self.limits.max_picture_pixels} pixels"
            raise Refusal(413, f"{limit}, got {size_px[0]}x{size_px[1]}; make it smaller.")
        if isinstance(content, Image.Image):
            _decode(content)
        if self.processor.pictures_are_frames and not self.processor.face_crop:
            frame = self.processor.load_picture(content)
            (scores,) = self._score(self.processor.to_pixel_values(frame[None]))
            return self._answer_frame(scores)
        faces = self.processor.prepare_faces(content)
        rows = self._score(self.processor.to_pixel_values(faces.frames))
        places = zip(rows, faces.boxes_xyxy_px.tolist(), faces.probabilities.tolist(), strict=True)
        return {
            "faces": [self._answer_face(*place) for place in places],
            "notes": list(faces.notes),
            "model": self.about,
        }

    def _answer_face(self, scores: "np.ndarray", box: list[float], probability: float) -> "FaceAnswer":
        answer = self.rule.answer(scores, face_px=max(box[2] - box[0], box[3] - box[1]))
        return {
            "label": answer.label,
            "reason": answer.reason,
            "scores": answer.scores,
            "certainty": answer.certainty,
            "box_xyxy_px": [round(edge, 1) for edge in box],
            "face_probability": probability,
        }

    def _answer_frame(self, scores: "np.ndarray") -> "VideoAnswer":
        answer = self.rule.answer(scores)
        return {
            "label": answer.label,
            "reason": answer.reason,
            "scores": answer.scores,
            "certainty": answer.certainty,
            "face_coverage": None,
            "num_repeated_frames": 0,
            "num_people": None,
            "num_windows": 1,
            "num_unreadable_windows": 0,
            "spread": None,
            "notes": [],
            "model": self.about,
        }

    def _score(self, pixel_values: "torch.Tensor") -> "np.ndarray":
        """(n, ...) -> (n, num_labels)."""
        import torch

        with torch.no_grad():  # not inference_mode: BEiT caches a tensor made here
            logits = self.model(pixel_values.to(self.device)).logits
        if not logits.isfinite().all():
            raise Refusal(422, "The model's scores are nan or infinity; deploy another model.")
        return self.rule.to_scores(logits.float().cpu().numpy())


def _read_content(data: object, limits: Limits) -> bytes | Image.Image:
    """A request's content as bytes; a string is never used as a local path."""
    inputs = data.get("inputs") if isinstance(data, dict) else None
    if isinstance(inputs, str):
        inputs = _read_string(inputs, limits)
    if isinstance(inputs, Image.Image):
        return inputs
    if not isinstance(inputs, (bytes, bytearray)):
        got = "none" if inputs is None else type(inputs).__name__
        raise Refusal(400, f'Expected {{"inputs": ...}} with bytes, a base64 string, a data URL or a URL, got {got}.')
    if not inputs:
        raise Refusal(400, "The request contains 0 bytes; send a video or a picture.")
    if len(inputs) > limits.max_bytes:
        raise Refusal(413, f"At most {limits.max_bytes} bytes are accepted, got {len(inputs)}; send a shorter video.")
    return bytes(inputs)


def _read_string(text: str, limits: Limits) -> bytes:
    if text[:8].lower().startswith(("http://", "https://")):
        return _download(text, limits)
    if text[:5].lower() == "data:":
        marker = _BASE64_MARKER.search(text, 0, _DATA_URL_HEAD_CHARS)
        if not marker:
            raise Refusal(
                400, f"Expected a data URL in base64 (data:video/mp4;base64,...), got {text[:40]!r} without ';base64,'."
            )
        text = text[marker.end() :]
    if len(text) > limits.max_bytes * 1.4:  # four characters are three bytes; the rest may be line breaks
        raise Refusal(413, f"At most {limits.max_bytes} bytes in base64 are accepted, got {len(text)} characters.")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, f"Expected base64, a data URL or an http(s) URL, got {text[:40]!r} ({error}).") from error


def _picture_size_px(content: bytes) -> tuple[int, int] | None:
    """Width and height from the file's header; None if it is not a picture."""
    try:
        with Image.open(io.BytesIO(content), formats=_PICTURE_FORMATS) as picture:
            return picture.size
    except Image.DecompressionBombError as error:
        raise Refusal(413, f"The picture has too many pixels ({error}); send a smaller one.") from error
    except Exception:  # each of PIL's readers raises its own
        return None


def _decode(picture: Image.Image) -> None:
    """Decode now, since PIL would decode pixels only on first use, too late for a refusal."""
    if 0 in picture.size:
        raise Refusal(422, f"The picture has no pixels ({picture.width}x{picture.height}); send another.")
    try:
        picture.load()
    except Exception as error:  # each of PIL's decoders raises its own
        reason = " ".join(str(error).split())[:200]
        raise Refusal(422, f"The picture cannot be decoded ({reason}); send the whole file.") from error


def _download(url: str, limits: Limits) -> bytes:
    """Download a URL within the limits; all addresses, also of redirects, must be public."""
    with _Guard(limits) as guard:
        try:
            with guard.opener().open(_request(url)) as response:
                content = response.read(limits.max_bytes + 1)
                length = response.headers.get("Content-Length", "")
        except urllib.error.HTTPError as error:
            remedy = "send the file itself" if error.code in (401, 403, 406, 429) else "check the address"
            raise Refusal(400, f"No file can be downloaded from {url[:200]} ({error}); {remedy}.") from error
        except (OSError, ValueError, OverflowError, http.client.HTTPException) as error:
            if not guard.is_late():
                raise Refusal(400, f"No file can be downloaded from {url[:200]} ({error}).") from error
        if guard.is_late():  # after a timeout there may be an error or only part of the content
            raise Refusal(400, f"The download of {url[:200]} took longer than {limits.download_timeout_sec:g} s.")
    if len(content) > limits.max_bytes:
        raise Refusal(413, f"The file at {url[:200]} has more than {limits.max_bytes} bytes.")
    if length.isdigit() and len(content) < int(length):
        after = f"after {len(content)} of {length} bytes"
        raise Refusal(400, f"The download of {url[:200]} broke off {after}; try again, or send the file.")
    return content


def _request(url: str) -> urllib.request.Request:
    """A request with spaces and non-ASCII letters encoded; many hosts refuse the agent "Python-urllib"."""
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    address = urllib.parse.quote(urllib.parse.urlunsplit(parts._replace(netloc=host)), safe="%/:=&?~#+!$,;'@()*[]")
    return urllib.request.Request(address, headers={"User-Agent": "Mozilla/5.0 (compatible; engagement-recognition)"})


class _Guard:
    """The connections of one download: only to public addresses, and all closed after the time limit.

    A socket's own timeout restarts with every byte, so a slow sender could keep it open for days.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.deadline = time.monotonic() + limits.download_timeout_sec
        self.sockets: list[socket.socket] = []
        self.timer = threading.Timer(limits.download_timeout_sec, self.cut)

    def __enter__(self) -> "_Guard":
        self.timer.daemon = True
        self.timer.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.timer.cancel()
        for connection in self.sockets:
            connection.close()

    def is_late(self) -> bool:
        return time.monotonic() >= self.deadline

    def cut(self) -> None:
        for connection in self.sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def connect(self, host: str, port: int) -> socket.socket:
        """Resolve the name once and connect to the checked addresses, since a name may resolve differently later."""
        addresses = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        if not self.limits.allow_private_addresses and not all(map(_is_public, addresses)):
            raise Refusal(400, f"{host} is in a private network; send a public address, or the file itself.")
        failure: OSError = TimeoutError()
        for address in addresses:
            try:
                connection = socket.create_connection((address, port), max(self.deadline - time.monotonic(), 0.01))
            except OSError as error:
                failure = error
                continue
            self.sockets.append(connection.dup())  # TLS takes over the connection; the copy can still close it
            return connection
        raise failure

    def opener(self) -> urllib.request.OpenerDirector:
        """http and https only, without this machine's proxies; redirects use `connect` too."""
        guard = self

        class Plain(http.client.HTTPConnection):
            def connect(self) -> None:
                self.sock = guard.connect(self.host, self.port)

        class Encrypted(http.client.HTTPSConnection, Plain):
            """Its `connect` wraps the socket of Plain."""

        class Handler(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
            def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(Plain, request)

            def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(Encrypted, request)

        opener = urllib.request.OpenerDirector()
        errors = (urllib.request.HTTPErrorProcessor, urllib.request.HTTPDefaultErrorHandler)
        for handler in (Handler, urllib.request.HTTPRedirectHandler, urllib.request.UnknownHandler, *errors):
            opener.add_handler(handler())
        return opener


# Every public IPv6 address is in the first network. Addresses that contain an IPv4 one are not, except 6to4 and Teredo,
# nor are those for this machine or network: mapped, compatible and translated addresses, NAT64, site-local ones.
_PUBLIC_V6 = ipaddress.ip_network("2000::/3")
_NOT_PUBLIC = tuple(map(ipaddress.ip_network, ("2002::/16", "2001::/23", "3fff::/20", "192.88.99.0/24")))


def _is_public(address: str) -> bool:
    """Not loopback, a private network or a cloud's metadata service, nor such an address inside an IPv6 one."""
    ip = ipaddress.ip_address(address)
    if ip.version == 6 and ip not in _PUBLIC_V6:
        return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _NOT_PUBLIC)
