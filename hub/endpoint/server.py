"""A handler behind HTTP: a video or a picture is posted, the answer is JSON. This is Python's own server, for a
container with one model; for access from the internet put a web server in front of it.

`POST /` takes a file's bytes, or JSON `{"inputs": ...}` with base64, a data URL or an http(s) URL, and answers 200, or
the status of a refusal with `{"error": ..., "status": ...}`. `GET /health` answers 200 once the model is loaded.
"""

import contextlib
import json
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from .export_handler import ExportHandler
from .handler import Refusal, RefusalAnswer

_JSON = "application/json"
_BASE64_RATIO = 1.4  # four characters are three bytes; the rest may be line breaks
_READ_TIMEOUT_SEC = 60.0  # without a byte from the client
_HEAR_OUT_BYTES, _HEAR_OUT_SEC = 16 << 20, 2.0  # how much of a refused request is read, and for how long
_MOST_AT_ONCE = 16  # requests; each holds its file in memory


class _Requests(BaseHTTPRequestHandler):
    """One connection."""

    handler: ClassVar[ExportHandler]
    places: ClassVar[threading.BoundedSemaphore]
    protocol_version = "HTTP/1.1"
    timeout = _READ_TIMEOUT_SEC

    def do_GET(self) -> None:
        if self.path.partition("?")[0] in ("/", "/health"):
            self._send(200, json.dumps({"status": "ok", "model": self.handler.about}))
        else:
            self._refuse(Refusal(404, f"There is no {self.path[:80]}; use POST / or GET /health."))

    def do_POST(self) -> None:
        if not self.places.acquire(blocking=False):
            self._refuse(Refusal(503, f"More than {_MOST_AT_ONCE} requests at once; try again."))
            return
        try:
            answer = self.handler({"inputs": self._inputs()})
            status = dict(answer).get("status")  # only refusals have one
            self._send(status if isinstance(status, int) else 200, json.dumps(answer))
        except Refusal as refusal:
            self._refuse(refusal)
        except TimeoutError:
            self._refuse(Refusal(408, f"The request is incomplete: nothing arrived for {_READ_TIMEOUT_SEC:g} s."))
        except ConnectionError:  # the client is gone
            self.close_connection = True
        except Exception as error:  # a bug, or the model's error; later requests are still answered
            said = f"The answer failed ({type(error).__name__}: {error})"[:300]
            self.log_error("%s", said)
            self._refuse(Refusal(500, said))
        finally:
            self.places.release()

    def _inputs(self) -> object:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise Refusal(411, "The header Content-Length is missing; send the file with its length.")
        is_json = self.headers.get_content_type() == _JSON
        most = int(self.handler.limits.max_bytes * (_BASE64_RATIO if is_json else 1))
        if int(length) > most:
            raise Refusal(413, f"At most {most} bytes are accepted, got {length}; send a shorter video.")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise Refusal(400, f"The request broke off after {len(body)} of {length} bytes; send the whole file.")
        if not is_json:
            return body
        try:
            content = json.loads(body)
        except ValueError as error:
            raise Refusal(400, f"The body is not valid JSON ({error}); correct it, or send the file itself.") from error
        return content.get("inputs") if isinstance(content, dict) else None

    def _refuse(self, refusal: Refusal) -> None:
        self.close_connection = True  # the unread rest must not be taken for the next request
        answer = RefusalAnswer(error=str(refusal), status=refusal.status)
        self._send(refusal.status, json.dumps(answer))
        self._hear_out()

    def _hear_out(self) -> None:
        """Read the rest of a request: a client that is still sending would not receive the answer if we closed now."""
        self.connection.settimeout(_HEAR_OUT_SEC)
        left = _HEAR_OUT_BYTES
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while left > 0 and (part := self.connection.recv(min(left, 1 << 16))):
                left -= len(part)

    def _send(self, status: int, content: str) -> None:
        body = content.encode()
        self.send_response(status)
        self.send_header("Content-Type", _JSON)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def make_server(handler: ExportHandler, host: str, port: int) -> ThreadingHTTPServer:
    """A server bound to an address, port 0 for any free one; call its `serve_forever`.

    Raises:
        OSError: the address is in use, or not of this machine.
    """
    places = threading.BoundedSemaphore(_MOST_AT_ONCE)
    kind = type("Requests", (_Requests,), {"handler": handler, "places": places})
    server = ThreadingHTTPServer((host, port), kind)
    server.daemon_threads = True
    return server


def serve_until_stopped(server: ThreadingHTTPServer) -> None:
    """Answer requests until Ctrl-C, or SIGTERM, which stops containers."""
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    with server:
        server.serve_forever()
