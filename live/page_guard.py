"""What a page does with requests that its own parts would never send: an answer of 4xx and a line, no traceback.

Anybody who reaches the page can post to it. Gradio looks for the function by the number in an event, and unpacks what
comes with it, without asking whether either is there; both end in an error of the server and a traceback in its log.
"""

import json
import re
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING

from ..processor.input_errors import EngagementInputError, in_one_line

if TYPE_CHECKING:
    import gradio

    # ASGI's own: a message holds whatever its kind holds.
    Message = MutableMapping[str, object]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

_EVENT_PATHS = re.compile(r".*/(queue/join|(run|api)/[^/]+)/?")


class RequestGuard:
    """ASGI middleware before Gradio's own application.

    Args:
        app: what it stands before.
        page: whose functions may be called.
    """

    def __init__(self, app: "Callable[[Message, Receive, Send], Awaitable[None]]", page: "gradio.Blocks") -> None:
        self.app, self.page = app, page

    async def __call__(self, scope: "Message", receive: "Receive", send: "Send") -> None:
        """Hands a request on, or answers it with 400."""
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
        except Exception as error:  # of a request; the page goes on
            _tell(f"{scope['method']} {scope['path']}", error)
            if not has_begun:
                await _answer_400(send)

    async def _checked(self, receive: "Receive") -> "Receive":
        """The same event once more, for Gradio to read; raises EngagementInputError for one that no part sends."""
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
            raise EngagementInputError("Expected an event of this page, got something else.") from error
        # Those without `fn` run in the browser alone.
        if function is None or function.fn is None or not isinstance(data, list) or len(data) != len(function.inputs):
            raise EngagementInputError("Expected an event of this page, got one of no function, or with other inputs.")


def guard_inputs(page: "gradio.Blocks") -> None:
    """Values that a part of the page cannot hold become one line, for the visitor and in the log."""
    import gradio as gr

    unpack = page.preprocess_data

    async def guarded(function: "gradio.blocks.BlockFunction", *arguments: object, **options: object) -> list[object]:
        try:
            values: list[object] = await unpack(function, *arguments, **options)  # type: ignore[arg-type]  # as they came
            if any(
                isinstance(part, gr.Radio) and value is None
                for part, value in zip(function.inputs, values, strict=True)
            ):
                raise EngagementInputError("Expected one of the page's models, got none.")
            return values
        except Exception as error:
            _tell("an event", error)
            raise gr.Error("Expected what this page sends, got something else.", print_exception=False) from None

    page.preprocess_data = guarded  # type: ignore[method-assign, assignment]  # Gradio has no hook for it


def _tell(request: str, error: Exception) -> None:
    print(
        f"page: refused {in_one_line(ValueError(request))} ({type(error).__name__}: {in_one_line(error)})",
        file=sys.stderr,
    )


async def _answer_400(send: "Send") -> None:
    body = json.dumps({"detail": "Expected a request that this page sends, got another."}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})
