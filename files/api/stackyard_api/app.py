"""The routes, and how they are tied together."""

import os
import platform
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from stackyard_api import __version__
from stackyard_api.cache import Cache
from stackyard_api.config import LiveConfig
from stackyard_api.database import Database
from stackyard_api.health import check
from stackyard_api.items import LARGEST_ID, Items, not_found, parse_draft
from stackyard_api.middleware import Envelope
from stackyard_api.problems import Problem, Unavailable, problem_response
from stackyard_api.sessions import session_of, set_session
from stackyard_api.settings import Settings

Endpoint = Callable[[Request], Awaitable[Response]]


def _json(content: object, status: int = 200, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(
        msgspec.json.encode(content),
        status,
        {"Cache-Control": "no-store"} | named,
        media_type="application/json",
    )


def _number(text: str, name: str, lowest: int, highest: int) -> int:
    if not (text.isascii() and text.isdecimal() and lowest <= int(text[:20]) <= highest):
        raise Problem(422, f"{name} must be a number from {lowest} to {highest}.")
    return int(text)


def _item_number(request: Request) -> int:
    number: int = request.path_params["number"]
    if number > LARGEST_ID:
        raise not_found(number)
    return number


async def _json_body(request: Request) -> bytes:
    # A form on a foreign page cannot send this type, so it cannot write here either.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "Send JSON, with the header Content-Type: application/json.")
    return await request.body()


def _by_method(path: str, **endpoints: Endpoint) -> Route:
    # Routes of one path each would name only their own methods in a 405's Allow.
    async def dispatch(request: Request) -> Response:
        return await endpoints["GET" if request.method == "HEAD" else request.method](request)

    return Route(path, dispatch, methods=list(endpoints))


def _prefix(request: Request) -> str:
    # Where nginx has put us, as clients see it.
    return "/api" if request.headers.get("x-forwarded-prefix") == "/api" else ""


class Api:
    """The endpoints, and what they share."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._config = LiveConfig(settings.config_file)
        self._database = Database(settings)
        self._cache = Cache(settings)
        self._items = Items(self._database, self._cache)
        self._started = time.monotonic()
        self._started_at = datetime.now(UTC)

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        """Start without waiting for anyone; leave nothing behind."""
        self._config.refresh()
        self._database.start()
        yield
        await self._database.stop()
        await self._cache.stop()

    def routes(self) -> list[Route]:
        """All that can be asked."""
        return [
            Route("/live", self.live),
            Route("/health", self.health),
            _by_method("/items", GET=self.list_items, POST=self.create_item),
            _by_method(
                "/items/{number:int}",
                GET=self.read_item,
                PUT=self.replace_item,
                DELETE=self.delete_item,
            ),
            Route("/session", self.session),
            Route("/config", self.show_config),
            Route("/whoami", self.whoami),
        ]

    async def live(self, _request: Request) -> Response:
        """The process answers; says nothing about database and cache."""
        return _json({"status": "ok"})

    async def health(self, _request: Request) -> Response:
        """200 when database and cache answer, else 503 with the reason."""
        healthy, database, cache = await check(self._database, self._cache)
        return _json(
            {
                "status": "ok" if healthy else "degraded",
                "database": database,
                "cache": cache,
                "replica": self._settings.replica,
            },
            200 if healthy else 503,
        )

    async def list_items(self, request: Request) -> Response:
        """A page of items, newest first."""
        query = request.query_params
        limit = (
            _number(query["limit"], "limit", 1, 100)
            if "limit" in query
            else self._config.refresh().page_size
        )
        after = _number(query["after"], "after", 1, LARGEST_ID) if "after" in query else None
        items, following = await self._items.page(limit, after)
        return _json({"items": items, "next": following})

    async def create_item(self, request: Request) -> Response:
        """Store a new item; its address is in the header Location."""
        item = await self._items.create(parse_draft(await _json_body(request)))
        return _json(item, 201, Location=f"{_prefix(request)}/items/{item.id}")

    async def read_item(self, request: Request) -> Response:
        """One item, and whether cache or database gave it."""
        item, source = await self._items.read(_item_number(request))
        return _json(msgspec.structs.asdict(item) | {"source": source}, X_Source=source)

    async def replace_item(self, request: Request) -> Response:
        """Give an item a new name and note."""
        number = _item_number(request)
        return _json(await self._items.replace(number, parse_draft(await _json_body(request))))

    async def delete_item(self, request: Request) -> Response:
        """Remove an item."""
        await self._items.delete(_item_number(request))
        return Response(status_code=204)

    async def session(self, request: Request) -> Response:
        """How often this browser was here; null while the cache is away."""
        try:
            session, visits = await self._cache.visit(session_of(request))
        except Unavailable:
            return _json({"visits": None})
        response = _json({"visits": visits})
        set_session(request, response, session, self._settings.session_ttl)
        return response

    async def show_config(self, _request: Request) -> Response:
        """The configuration in use, and what is wrong with the file, if anything."""
        live = self._config
        return _json({"config": live.refresh(), "loaded_at": live.loaded_at, "error": live.error})

    async def whoami(self, request: Request) -> Response:
        """Which replica this is."""
        return _json(
            {
                "replica": self._settings.replica,
                "version": __version__,
                "python": platform.python_version(),
                "pid": os.getpid(),
                "started_at": self._started_at,
                "uptime_seconds": round(time.monotonic() - self._started, 1),
                "request_id": request.headers.get("x-request-id"),
            }
        )


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = error.detail
    path = _prefix(request) + request.url.path
    if error.status_code == 404:
        detail = f"There is nothing at {path}."
    elif error.status_code == 405:
        detail = f"{request.method} is not possible at {path}."
    return problem_response(error.status_code, detail, error.headers)


async def _on_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return problem_response(error.status, error.detail, error.headers)


async def _on_unavailable(_request: Request, error: Exception) -> Response:
    return problem_response(503, f"The database cannot be used now: {error}.")


def create_app(settings: Settings) -> ASGIApp:
    """The ASGI application; nothing is connected before its lifespan starts."""
    api = Api(settings)
    inner = Starlette(
        routes=list(api.routes()),
        lifespan=api.lifespan,
        exception_handlers={
            HTTPException: _on_http,
            Problem: _on_problem,
            Unavailable: _on_unavailable,
        },
    )
    # A slash too many is an unknown route, not a redirect to an address without /api.
    inner.router.redirect_slashes = False
    return Envelope(inner, settings.replica)
