"""Errors as application/problem+json (RFC 9457), with a detail of one line."""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from starlette.responses import Response


class Problem(Exception):
    """An error that the client is told about: status, one line of detail, headers."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})


class Unavailable(Exception):
    """Database or cache cannot be used now; the text is the reason, without secrets."""


def problem_response(
    status: int, detail: str, headers: Mapping[str, str] | None = None
) -> Response:
    """The response for an error; a 503 also says when to come back."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    extra = {"Cache-Control": "no-store"} | dict(headers or {})
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        extra.setdefault("Retry-After", "2")
    return Response(msgspec.json.encode(body), status, extra, media_type="application/problem+json")
