"""Guard against requests that the page itself never sends: they get status 4xx and one line in the log, no traceback.

Anybody who can reach the page can post to it. Gradio looks up a function by the number in an event and unpacks its data
without checking either; errors in both would be server errors with a traceback in the log.
"""

import json
import re
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING

from ..processor.input_errors import EngagementInputError, in_one_line

if TYPE_CHECKING:
    import gradio

    # ASGI's: the content of a message depends on its type.
    Message = MutableMapping[str, object]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

_EVENT_PATHS = re.compile(r".*/(queue/join|(run|api)/[^/]+)/?")


class RequestGuard:
    """ASGI middleware before Gradio's own application.

    Args:
        app: the application behind it.
        page: its functions may be called.
    """

    def __init__(self, app: "Callable[[Message, Receive, Send], Awaitable[None]]", page: "gradio.Blocks") -> None:
        self.app, self.page = app, page

    async def __call__(self, scope: "Message", receive: "Receive", send: "Send") -> None:
        """Pass a request on, or answer it with 400."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        has_begun = False

        async def watched(message: "Message") -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            if scope["method"] == "POST" and _EVENT_PATHS.fullmatch(str(scope["path"])):
                receive = await self._checked(receive)
            await self.app(scope, receive, watched)
        except Exception as error:  # concerns this request; the page goes on
            _tell(f"{scope['method']} {scope['path']}", error)
            if not has_begun:
                await _answer_400(send)

    async def _checked(self, receive: "Receive") -> "Receive":
        """The same event again, for Gradio to read; raises EngagementInputError for one that the page never sends."""
        body, more = b"", True
        while more:
            message = await receive()
            part = message.get("body", b"")
            body += part if isinstance(part, bytes) else b""
            more = bool(message.get("more_body"))
        self._require_event(body)
        parts = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> "Message":
            return parts.pop() if parts else await receive()

        return replay

    def _require_event(self, body: bytes) -> None:
        try:
            event = json.loads(body)
            function = self.page.fns.get(event["fn_index"])
            data = event["data"]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise EngagementInputError("This is not an event of the page.") from error
        # Those without `fn` run only in the browser.
        if function is None or function.fn is None or not isinstance(data, list) or len(data) != len(function.inputs):
            raise EngagementInputError("The event has no function of this page, or other inputs.")


def guard_inputs(page: "gradio.Blocks") -> None:
    """Invalid values for a component become one line, for the visitor and in the log."""
    import gradio as gr

    unpack = page.preprocess_data

    async def guarded(function: "gradio.blocks.BlockFunction", *arguments: object, **options: object) -> list[object]:
        try:
            values: list[object] = await unpack(function, *arguments, **options)  # type: ignore[arg-type]  # unchanged
            if any(
                isinstance(part, gr.Radio) and value is None
                for part, value in zip(function.inputs, values, strict=True)
            ):
                raise EngagementInputError("No model of the page was chosen.")
            return values
        except Exception as error:
            _tell("an event", error)
            raise gr.Error("The request contains values that this page does not send.", print_exception=False) from None

    page.preprocess_data = guarded  # type: ignore[method-assign, assignment]  # Gradio has no hook for it


def _tell(request: str, error: Exception) -> None:
    print(
        f"page: refused {in_one_line(ValueError(request))} ({type(error).__name__}: {in_one_line(error)})",
        file=sys.stderr,
    )


async def _answer_400(send: "Send") -> None:
    body = json.dumps({"detail": "This page does not send such a request."}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})
