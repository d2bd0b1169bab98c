"""Errors as application/problem+json (RFC 9457), with a detail of one line."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import msgspec
from starlette.responses import Response


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one field: its place in the body as a JSON pointer, and a sentence."""

    pointer: str
    detail: str


class ProblemBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the client gets. `type` is always about:blank: the title is the status's own."""

    type: str
    title: str
    status: int
    detail: str
    errors: Sequence[FieldError] = ()


class Problem(Exception):
    """An error that the client is told about: status, one line of detail, headers, fields."""

    def __init__(
        self,
        status: int,
        detail: str,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[FieldError] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.errors = errors


class Unavailable(Exception):
    """Database or cache cannot be used now; the text is the reason, without secrets."""


def problem_response(
    status: int,
    detail: str,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[FieldError] = (),
) -> Response:
    """The response for an error; a 503 also says when to come back, in seconds."""
    body = ProblemBody("about:blank", HTTPStatus(status).phrase, status, detail, errors)
    extra = {"Cache-Control": "no-store"} | dict(headers or {})
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        extra.setdefault("Retry-After", "2")
    return Response(msgspec.json.encode(body), status, extra, media_type="application/problem+json")
