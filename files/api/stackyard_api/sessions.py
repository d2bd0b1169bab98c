"""The visit counter: a random id in a cookie, the count in the cache."""

import re

from starlette.requests import Request
from starlette.responses import Response

# What secrets.token_urlsafe(24) gives.
VALID = re.compile(r"[A-Za-z0-9_-]{32}")


def _cookie_name(request: Request) -> str:
    # The page is served by http and https alike. A browser refuses to let http replace
    # a cookie that https has set, so each has its own.
    return "__Host-session" if is_secure(request) else "session"


def is_secure(request: Request) -> bool:
    """Whether the client came by TLS, as the gateway says (it trusts no client's word)."""
    return request.headers.get("x-forwarded-proto") == "https"


def session_of(request: Request) -> str | None:
    """The session id that the client sent, None if missing or malformed."""
    given = request.cookies.get(_cookie_name(request), "")
    return given if VALID.fullmatch(given) else None


def set_session(request: Request, response: Response, session: str, ttl: int) -> None:
    """Have the client keep the session's id for `ttl` seconds."""
    response.set_cookie(
        _cookie_name(request),
        session,
        max_age=ttl,
        path="/",
        httponly=True,
        samesite="lax",
        secure=is_secure(request),
    )
