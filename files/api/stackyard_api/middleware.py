"""Around every request: its id, one log line, the replica's name, a bound, an answer."""

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stackyard_api.problems import problem_response

log = logging.getLogger("stackyard.request")

LARGEST_BODY = 64 * 1024
VALID_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Asked every few seconds by machines: worth a line only when they fail.
QUIET = frozenset({"/live", "/health"})


class _TooLarge(Exception):
    """The client sends more than LARGEST_BODY bytes."""


class Envelope:
    """ASGI middleware; outside of everything, so that nothing leaves without it."""

    def __init__(self, app: ASGIApp, replica: str) -> None:
        self._app = app
        self._replica = replica

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; an exception becomes a log entry and a 500."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        start = time.perf_counter()
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if VALID_ID.fullmatch(given) else uuid.uuid4().hex
        status = 0
        received = 0

        async def bounded_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > LARGEST_BODY:
                raise _TooLarge
            return message

        async def labelled_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                out = MutableHeaders(scope=message)
                out["X-Replica"] = self._replica
                out["X-Request-ID"] = request_id
            await send(message)

        length = headers.get("content-length", "0")
        try:
            if length.isdecimal() and int(length) > LARGEST_BODY:
                raise _TooLarge
            await self._app(scope, bounded_receive, labelled_send)
        except _TooLarge:
            if not status:
                response = problem_response(
                    413, "A request body may hold 64 KiB at most.", {"Connection": "close"}
                )
                await response(scope, receive, labelled_send)
        except Exception:
            log.exception("defect", extra={"fields": {"request_id": request_id}})
            if not status:
                response = problem_response(
                    500, f"A defect in the api; its log has more under {request_id}."
                )
                await response(scope, receive, labelled_send)
        finally:
            quiet = status == 200 and scope["path"] in QUIET
            log.log(
                logging.DEBUG if quiet else logging.INFO,
                "request",
                extra={
                    "fields": {
                        "request_id": request_id,
                        "method": scope["method"],
                        "path": scope["path"],
                        "status": status,
                        "ms": round((time.perf_counter() - start) * 1000, 1),
                    }
                },
            )
