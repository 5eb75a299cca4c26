"""A handler behind HTTP: a video or a picture is posted, JSON comes back. Python's own server and nothing else, for a
container that holds one model; who faces the internet puts a server of theirs before it.

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
_BASE64_RATIO = 1.4  # four characters are three bytes; the rest may be line ends
_READ_TIMEOUT_SEC = 60.0  # without a byte from whoever asks
_HEAR_OUT_BYTES, _HEAR_OUT_SEC = 16 << 20, 2.0  # what is read, and for how long, of a request that is refused
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
            self._refuse(Refusal(404, f"Expected POST / or GET /health, got {self.path[:80]}."))

    def do_POST(self) -> None:
        if not self.places.acquire(blocking=False):
            self._refuse(Refusal(503, f"Expected at most {_MOST_AT_ONCE} requests at once, got more; try again."))
            return
        try:
            answer = self.handler({"inputs": self._inputs()})
            status = dict(answer).get("status")  # which a refusal alone has
            self._send(status if isinstance(status, int) else 200, json.dumps(answer))
        except Refusal as refusal:
            self._refuse(refusal)
        except TimeoutError:
            self._refuse(Refusal(408, f"Expected a whole request, got nothing for {_READ_TIMEOUT_SEC:g} s."))
        except ConnectionError:  # whoever asked is gone
            self.close_connection = True
        except Exception as error:  # ours, or the model's; the next request is answered all the same
            said = f"Expected an answer, got {type(error).__name__}: {error}"[:300]
            self.log_error("%s", said)
            self._refuse(Refusal(500, said))
        finally:
            self.places.release()

    def _inputs(self) -> object:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise Refusal(411, "Expected a header Content-Length, got none; send the file with its length.")
        is_json = self.headers.get_content_type() == _JSON
        most = int(self.handler.limits.max_bytes * (_BASE64_RATIO if is_json else 1))
        if int(length) > most:
            raise Refusal(413, f"Expected at most {most} bytes, got {length}; send a shorter video.")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise Refusal(400, f"Expected {length} bytes, it broke off after {len(body)}; send the file whole.")
        if not is_json:
            return body
        try:
            content = json.loads(body)
        except ValueError as error:
            raise Refusal(400, f"Expected JSON, got something else ({error}); or send the file itself.") from error
        return content.get("inputs") if isinstance(content, dict) else None

    def _refuse(self, refusal: Refusal) -> None:
        self.close_connection = True  # what was not read of this request must not be taken for the next
        answer = RefusalAnswer(error=str(refusal), status=refusal.status)
        self._send(refusal.status, json.dumps(answer))
        self._hear_out()

    def _hear_out(self) -> None:
        """Whoever is still sending reads the answer only then: to close now would break the connection for both."""
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
    """Bound to an address, port 0 for any that is free; its `serve_forever` answers.

    Raises:
        OSError: the address is taken, or none of this machine.
    """
    places = threading.BoundedSemaphore(_MOST_AT_ONCE)
    kind = type("Requests", (_Requests,), {"handler": handler, "places": places})
    server = ThreadingHTTPServer((host, port), kind)
    server.daemon_threads = True
    return server


def serve_until_stopped(server: ThreadingHTTPServer) -> None:
    """Answers until Ctrl-C, or the SIGTERM by which containers are stopped."""
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    with server:
        server.serve_forever()
