"""Around every request: its id, one log line, the replica's name, bounds, an answer."""

import logging
import re
import time
import uuid
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stackyard_api import logs, metrics
from stackyard_api.problems import Problem

log = logging.getLogger("stackyard.request")

LARGEST_BODY = 64 * 1024
# Requests that may be in flight in this replica: at 800 a second the last waits a third of one.
IN_FLIGHT = 256
VALID_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Asked every few seconds by machines: worth a line only when they fail. Never refused: who is
# busy is not ill.
WATCHED = frozenset({"/live", "/health", "/status", "/metrics"})


def _too_large() -> Problem:
    return Problem(413, "A request body may hold 64 KiB at most.", {"Connection": "close"})


class Envelope:
    """ASGI middleware; outside of everything, so that nothing leaves without it."""

    def __init__(
        self, app: ASGIApp, answer_to: Callable[[Scope, Exception], Response], replica: str
    ) -> None:
        """Take the application, what answers for its errors, and this replica's name."""
        self._app = app
        self._answer_to = answer_to
        self._replica = replica.encode()
        self._in_flight = 0
        metrics.IN_FLIGHT.set_function(lambda: self._in_flight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; an exception becomes an answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        start = time.perf_counter()
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        identity = given if VALID_ID.fullmatch(given) else uuid.uuid4().hex
        logs.request_id.set(identity)
        watched = scope["path"] in WATCHED
        labels = [(b"x-replica", self._replica), (b"x-request-id", identity.encode())]
        status = 0
        received = 0

        async def bounded_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > LARGEST_BODY:
                raise _too_large()
            return message

        async def labelled_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *labels]
            await send(message)

        length = headers.get("content-length", "0")
        self._in_flight += 1
        try:
            if self._in_flight > IN_FLIGHT and not watched:
                metrics.REFUSED.inc()
                raise Problem(
                    503, f"This api has {IN_FLIGHT} requests to answer already; try again."
                )
            if length.isdecimal() and int(length) > LARGEST_BODY:
                raise _too_large()
            await self._app(scope, bounded_receive, labelled_send)
        except Exception as error:
            if status:
                # Too late for an answer: the client sees the connection's end.
                raise
            await self._answer_to(scope, error)(scope, receive, labelled_send)
        finally:
            self._in_flight -= 1
            took = time.perf_counter() - start
            operation = getattr(scope.get("endpoint"), "__name__", "none")
            metrics.REQUESTS.labels(scope["method"], operation, status).inc()
            metrics.SECONDS.labels(operation).observe(took)
            log.log(
                logging.DEBUG if watched and status == 200 else logging.INFO,
                "request",
                extra={
                    "fields": {
                        "method": scope["method"],
                        "path": scope["path"],
                        "status": status,
                        "ms": round(took * 1000, 1),
                    }
                },
            )
