"""The operations, and how they are tied together."""

import asyncio
import logging
import os
import platform
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from stackyard_api import __version__, logs
from stackyard_api.cache import Cache
from stackyard_api.config import Config, ConfigError, LiveConfig
from stackyard_api.database import Database
from stackyard_api.health import Dependency, Health, HealthCheck
from stackyard_api.items import LARGEST_ID, Draft, Item, Items, Page, not_found, parse_draft
from stackyard_api.middleware import Envelope
from stackyard_api.openapi import Answer, Endpoint, Operation, Parameter, document, page
from stackyard_api.problems import Problem, Unavailable, problem_response
from stackyard_api.sessions import session_of, set_session
from stackyard_api.settings import Settings
from stackyard_api.topology import Node, Observer

log = logging.getLogger("stackyard.app")

Headers = dict[str, str]

LONGEST_SEARCH = 100
# Seconds that a client may ask to be kept waiting, below nginx's patience, and how many may.
LONGEST_WAIT = 8
MOST_DAWDLERS = 32
VALID_KEY = re.compile(r"[\x21-\x7e]{1,128}")


class Live(msgspec.Struct):
    """The process answers; `health` is what the last look said: ok, degraded or unknown."""

    status: str
    health: str


class ConfigReport(msgspec.Struct):
    """The configuration in use, since when, and what is wrong with the file, if anything."""

    config: Config
    loaded_at: datetime | None
    error: ConfigError | None


class Status(msgspec.Struct):
    """The whole stack as this replica sees it, and the configuration in use."""

    replica: str
    gateway: Node
    frontends: list[Node]
    apis: list[Node]
    database: Dependency
    cache: Dependency
    config: ConfigReport


class Session(msgspec.Struct):
    """How often this browser was here; null while the cache is away."""

    visits: int | None


class Whoami(msgspec.Struct):
    """Which replica answers; times in seconds."""

    replica: str
    version: str
    python: str
    pid: int
    started_at: datetime
    uptime_seconds: float
    request_id: str | None


def _json(content: object, status: int = 200, headers: Headers | None = None) -> Response:
    body = msgspec.json.encode(content)
    shared = {"Cache-Control": "no-store"} | (headers or {})
    return Response(body, status, shared, "application/json")


def _tagged(request: Request, body: bytes, headers: Headers) -> Response:
    """The body with its entity tag, or 304 where the client has it already."""
    # To be kept, and to be asked about each time.
    headers = {"Cache-Control": "no-cache"} | headers
    given = request.headers.get("if-none-match")
    if given is not None and (given.strip() == "*" or headers["ETag"] in _tags(given)):
        return Response(status_code=304, headers=headers)
    return Response(body, 200, headers, "application/json")


def _tags(header: str) -> list[str]:
    # Weak ones count as well: nginx makes them so where it compresses.
    return re.findall(r'"[^"]*"', header)


def _expected(request: Request, number: int) -> list[int] | None:
    """The versions of an item that If-Match names, None for any."""
    given = request.headers.get("if-match")
    if given is None or given.strip() == "*":
        return None
    found = re.findall(rf'"{number}\.([1-9]\d{{0,17}})"', given)
    return [int(version) for version in found]


def _decimal(text: str) -> int | None:
    """The number that the text is, None where it is none or has more digits than any may have."""
    return int(text) if re.fullmatch(r"[0-9]{1,19}", text) else None


def _number(text: str, name: str, lowest: int, highest: int) -> int:
    number = _decimal(text)
    if number is None or not lowest <= number <= highest:
        raise Problem(422, f"{name} must be a number from {lowest} to {highest}.")
    return number


def _item_number(request: Request) -> int:
    number = _decimal(request.path_params["number"])
    if number is None:
        raise HTTPException(404)
    if number > LARGEST_ID:
        raise not_found(number)
    return number


async def _json_body(request: Request) -> bytes:
    # A form on a foreign page cannot send this type, so it cannot write here either.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "Send JSON, with the header Content-Type: application/json.")
    return await request.body()


class _Path:
    """The endpoints of one path, by method, as an ASGI application.

    A route for each would name only its own methods in a 405's Allow; and what Starlette puts
    around a function as an endpoint would do once more what Envelope does.
    """

    def __init__(self, endpoints: dict[str, Endpoint]) -> None:
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        endpoint = self._endpoints["GET" if request.method == "HEAD" else request.method]
        scope["endpoint"] = endpoint
        response = await endpoint(request)
        await response(scope, receive, send)


def _prefix(request: Request) -> str:
    # Where nginx has put us, as clients see it.
    return "/api" if request.headers.get("x-forwarded-prefix") == "/api" else ""


NUMBER = Parameter(
    "number", "path", "The item's id.", {"type": "integer", "minimum": 0}, required=True
)
IF_MATCH = Parameter(
    "If-Match", "header", "Do it only where the item still has this entity tag.", {"type": "string"}
)
IF_NONE_MATCH = Parameter(
    "If-None-Match", "header", "304 where this is the entity tag still.", {"type": "string"}
)
LIMIT = Parameter(
    "limit",
    "query",
    "Items at most; the configuration's page_size if left out.",
    {"type": "integer", "minimum": 1, "maximum": 100},
)
AFTER = Parameter(
    "after",
    "query",
    "From behind this item: `next` of the page before.",
    {"type": "integer", "minimum": 1, "maximum": LARGEST_ID},
)
SEARCH = Parameter(
    "q",
    "query",
    "Items whose name or note holds this, in upper or lower case.",
    {"type": "string", "maxLength": LONGEST_SEARCH, "pattern": "^[^\\x00]*$"},
)
KEY = Parameter(
    "Idempotency-Key",
    "header",
    "Whoever repeats the request with the same key within a day gets the same item.",
    {"type": "string", "pattern": "^[\\x21-\\x7e]{1,128}$"},
)
WAIT = Parameter(
    "wait",
    "query",
    "Seconds to wait before the answer: a request that is under way while a replica is replaced.",
    {"type": "integer", "minimum": 0, "maximum": LONGEST_WAIT},
)
TAGGED = {"ETag": "The entity tag.", "X-Source": "Who answered: cache or database."}
LISTED = {
    "ETag": "The entity tag.",
    "X-Source": "database; stale where the cache had to answer for it.",
    "Age": "Seconds since the database gave this answer, where it is stale.",
}


class Api:
    """The endpoints, and what they share."""

    def __init__(self, settings: Settings) -> None:
        """Take the settings; nothing is connected yet."""
        self._settings = settings
        self._config = LiveConfig(settings.config_file)
        self._database = Database(settings)
        self._cache = Cache(settings)
        self._items = Items(self._database, self._cache)
        self._health = HealthCheck(self._database, self._cache)
        self._observer = Observer(
            (settings.frontend_host, settings.frontend_port), (settings.api_host, settings.port)
        )
        self._dawdlers = 0
        self._started = time.monotonic()
        self._started_at = datetime.now(UTC)

    @asynccontextmanager
    async def lifespan(self, _app: Router) -> AsyncIterator[None]:
        """Start without waiting for anyone; leave nothing behind."""
        self._config.refresh()
        self._database.start()
        yield
        await self._database.stop()
        await self._cache.stop()

    def operations(self) -> list[Operation]:
        """All that can be asked."""
        item = {"ETag": "The entity tag."}
        return [
            Operation("GET", "/live", self.live, {200: Answer(Live)}),
            Operation("GET", "/health", self.health, {200: Answer(Health), 503: Answer(Health)}),
            Operation("GET", "/status", self.status, {200: Answer(Status)}),
            Operation("GET", "/items", self.list_items,
                      {200: Answer(Page, headers=LISTED), 304: Answer(headers=LISTED)},
                      parameters=[LIMIT, AFTER, SEARCH, IF_NONE_MATCH], problems=[422]),
            Operation("POST", "/items", self.create_item,
                      {201: Answer(Item, headers=item | {"Location": "The item's address."})},
                      body=Draft, parameters=[KEY], problems=[400, 413, 415, 422]),
            Operation("GET", "/items/{number}", self.read_item,
                      {200: Answer(Item, headers=TAGGED), 304: Answer(headers=TAGGED)},
                      parameters=[NUMBER, IF_NONE_MATCH], problems=[404]),
            Operation("PUT", "/items/{number}", self.replace_item,
                      {200: Answer(Item, headers=item)},
                      body=Draft, parameters=[NUMBER, IF_MATCH],
                      problems=[400, 404, 412, 413, 415, 422]),
            Operation("DELETE", "/items/{number}", self.delete_item, {204: Answer()},
                      parameters=[NUMBER, IF_MATCH], problems=[404, 412]),
            Operation("GET", "/session", self.session, {200: Answer(Session)}),
            Operation("GET", "/config", self.show_config, {200: Answer(ConfigReport)}),
            Operation("GET", "/whoami", self.whoami, {200: Answer(Whoami)},
                      parameters=[WAIT], problems=[422]),
            Operation("GET", "/metrics", self.metrics, {200: Answer(media="text/plain")}),
        ]  # fmt: skip

    def routes(self) -> list[Route]:
        """A route for each path, and the documentation where it is wanted."""
        by_path: dict[str, dict[str, Endpoint]] = {}
        for each in self.operations():
            by_path.setdefault(each.path, {})[each.method] = each.endpoint
        if self._settings.docs:
            by_path |= {"/openapi.json": {"GET": self.openapi}, "/docs": {"GET": self.docs}}
        return [
            Route(path, _Path(endpoints), methods=list(endpoints))
            for path, endpoints in by_path.items()
        ]

    async def live(self, _request: Request) -> Response:
        """The process answers, whatever database and cache do; asks neither."""
        return _json(Live("ok", self._health.last))

    async def health(self, _request: Request) -> Response:
        """200 when database and cache answer, else 503 with the reason; within two seconds."""
        database, cache = await self._health.look()
        health = self._health.last
        self._config.refresh()
        return _json(
            Health(health, database, cache, self._config.error, self._settings.replica),
            200 if health == "ok" else 503,
        )

    async def status(self, _request: Request) -> Response:
        """The whole stack as this replica sees it, for the page; 200 whatever is wrong."""
        (database, cache), topology = await asyncio.gather(
            self._health.look(), self._observer.look()
        )
        return _json(
            Status(
                self._settings.replica,
                Node("gateway", "ok"),
                topology.frontends,
                topology.apis,
                database,
                cache,
                self._config_report(),
            )
        )

    async def list_items(self, request: Request) -> Response:
        """A page of items, newest first. Without a database, the last answer that it gave."""
        query = request.query_params
        limit = (
            _number(query["limit"], "limit", 1, 100)
            if "limit" in query
            else self._config.refresh().page_size
        )
        after = _number(query["after"], "after", 1, LARGEST_ID) if "after" in query else None
        search = query.get("q", "")
        if len(search) > LONGEST_SEARCH or "\0" in search:
            raise Problem(422, f"q may hold {LONGEST_SEARCH} characters, and not U+0000.")
        listing = await self._items.page(limit, after, search)
        headers = {"ETag": listing.etag, "X-Source": listing.source}
        if listing.source == "stale":
            headers["Age"] = str(listing.age)
        return _tagged(request, listing.body, headers)

    async def create_item(self, request: Request) -> Response:
        """Store a new item; its address is in the header Location."""
        key = request.headers.get("idempotency-key")
        if key is not None and not VALID_KEY.fullmatch(key):
            raise Problem(422, "Idempotency-Key must have 1 to 128 visible ASCII characters.")
        item = await self._items.create(parse_draft(await _json_body(request)), key)
        location = f"{_prefix(request)}/items/{item.id}"
        return _json(item, 201, {"Location": location, "ETag": item.etag})

    async def read_item(self, request: Request) -> Response:
        """One item, from the cache or the database, as the header X-Source says."""
        entity = await self._items.read(_item_number(request))
        return _tagged(request, entity.body, {"ETag": entity.etag, "X-Source": entity.source})

    async def replace_item(self, request: Request) -> Response:
        """Give an item a new name and note."""
        number = _item_number(request)
        draft = parse_draft(await _json_body(request))
        item = await self._items.replace(number, draft, _expected(request, number))
        return _json(item, headers={"ETag": item.etag})

    async def delete_item(self, request: Request) -> Response:
        """Remove an item."""
        number = _item_number(request)
        await self._items.delete(number, _expected(request, number))
        return Response(status_code=204)

    async def session(self, request: Request) -> Response:
        """Count a visit of this browser, known by its cookie."""
        try:
            session, visits = await self._cache.visit(session_of(request))
        except Unavailable:
            return _json(Session(None))
        response = _json(Session(visits))
        set_session(request, response, session, self._settings.session_ttl)
        return response

    def _config_report(self) -> ConfigReport:
        live = self._config
        return ConfigReport(live.refresh(), live.loaded_at, live.error)

    async def show_config(self, _request: Request) -> Response:
        """The configuration in use, and what is wrong with the file, if anything."""
        return _json(self._config_report())

    async def whoami(self, request: Request) -> Response:
        """Which replica this is; after `wait` seconds where that is asked for, to see a drain."""
        query = request.query_params
        if "wait" in query:
            seconds = _number(query["wait"], "wait", 0, LONGEST_WAIT)
            if self._dawdlers >= MOST_DAWDLERS:
                raise Problem(503, f"{MOST_DAWDLERS} requests wait already.")
            self._dawdlers += 1
            try:
                await asyncio.sleep(seconds)
            finally:
                self._dawdlers -= 1
        return _json(
            Whoami(
                self._settings.replica,
                __version__,
                platform.python_version(),
                os.getpid(),
                self._started_at,
                round(time.monotonic() - self._started, 1),
                request.headers.get("x-request-id"),
            )
        )

    async def metrics(self, _request: Request) -> Response:
        """Counts, seconds and states of this replica, for Prometheus."""
        return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def openapi(self, request: Request) -> Response:
        """This api as an OpenAPI document."""
        return _json(document(self.operations(), __version__, _prefix(request)))

    async def docs(self, request: Request) -> Response:
        """The same as a page to read."""
        described = document(self.operations(), __version__, _prefix(request))
        return HTMLResponse(page(described, "/style.css"))


def _answer_to(scope: Scope, error: Exception) -> Response:
    """What the client gets in place of an error."""
    if isinstance(error, Problem):
        return problem_response(error.status, error.detail, error.headers, error.errors)
    if isinstance(error, Unavailable):
        return problem_response(503, f"The database cannot be used now: {error}.")
    if isinstance(error, HTTPException):
        request = Request(scope)
        path = _prefix(request) + request.url.path
        detail = {
            404: f"There is nothing at {path}.",
            405: f"{request.method} is not possible at {path}.",
        }.get(error.status_code, error.detail)
        return problem_response(error.status_code, detail, error.headers)
    log.error("defect", exc_info=error)
    identity = logs.request_id.get()
    return problem_response(500, f"A defect in the api; its log has more under {identity}.")


def create_app(settings: Settings) -> ASGIApp:
    """The ASGI application; nothing is connected before its lifespan starts."""
    api = Api(settings)
    # A slash too many is an unknown route, not a redirect to an address without /api.
    router = Router(api.routes(), redirect_slashes=False, lifespan=api.lifespan)

    async def routed(scope: Scope, receive: Receive, send: Send) -> None:
        # Or the router would answer in plain text where there is no route.
        scope["app"] = router
        await router(scope, receive, send)

    return Envelope(routed, _answer_to, settings.replica)
