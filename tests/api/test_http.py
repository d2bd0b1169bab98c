"""The api as nginx meets it: a process of its own, asked over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis
from stackyard_api.middleware import IN_FLIGHT, LARGEST_BODY

from .client import Connection, Reply, ask, request
from .conftest import Surroundings, surroundings_on
from .servers import Servers, free_port, frozen

pytestmark = pytest.mark.anyio

SCHEMATHESIS = Path(__file__).with_name("schemathesis.toml")
ITEM = {"name": "a name", "note": "a note"}


@dataclass(frozen=True)
class Server:
    """A running api."""

    process: subprocess.Popen[bytes]
    port: int
    output: Path

    def lines(self) -> list[dict[str, Any]]:
        """Return all that it has logged; every line is JSON."""
        text = self.output.read_text(encoding="utf-8")
        assert text.endswith("\n")
        return [json.loads(line) for line in text.splitlines()]

    async def ask(self, method: str, path: str, body: object = None, **headers: str) -> Reply:
        """Ask it; headers' names are written with _ for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await ask(self.port, method, path, body, named)

    async def metric(self, name: str, **labels: str) -> float:
        """Return a metric's value, 0 while nothing was counted."""
        text = (await self.ask("GET", "/metrics")).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@contextmanager
def serving(surroundings: Surroundings, **more: str) -> Iterator[Server]:
    """Run an api as its image does, until it is told to stop."""
    port = free_port()
    output = surroundings.directory / f"api-{port}.log"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "stackyard_api"],
            env=surroundings.environment(PORT=str(port), **more),
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Server(process, port, output)
    finally:
        process.kill()
        process.wait(timeout=10)


async def until_healthy(server: Server) -> None:
    """Wait until it answers and says that all is well."""
    async with asyncio.timeout(20):
        while True:
            try:
                if (await server.ask("GET", "/health")).status == 200:
                    return
            except (ConnectionError, asyncio.IncompleteReadError):
                assert server.process.poll() is None, server.output.read_text(encoding="utf-8")
            await asyncio.sleep(0.05)


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for what comes by itself."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
async def shared(
    servers: Servers, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    """Return an api that most of these checks share, with its documentation."""
    name = await servers.copy_of(migrated)
    surroundings = surroundings_on(servers, name, tmp_path_factory.mktemp("api"))
    with serving(surroundings, DOCS="on") as server:
        await until_healthy(server)
        yield server
    await servers.drop(name)


@pytest.fixture
async def api(shared: Server, onlooker: Redis) -> Server:
    """Return the shared api, its cache empty."""
    assert onlooker
    await until_healthy(shared)
    return shared


# Items


async def test_item_lives_as_its_answers_say(api: Server) -> None:
    created = await api.ask("POST", "/items", ITEM)
    assert created.status == 201
    address, tag = created.headers["location"], created.headers["etag"]
    assert re.fullmatch(r"/items/\d+", address)
    first = await api.ask("GET", address)
    assert (first.status, first.headers["etag"]) == (200, tag)
    assert first.headers["x-source"] == "database"
    assert first.json() == created.json()
    second = await api.ask("GET", address)
    assert (second.headers["x-source"], second.text) == ("cache", first.text)

    replaced = await api.ask("PUT", address, {"name": "another"}, If_Match=tag)
    assert (replaced.status, replaced.json()["note"]) == (200, None)
    late = await api.ask("PUT", address, {"name": "a third"}, If_Match=tag)
    assert late.problem()[0] == 412
    assert late.headers["etag"] == replaced.headers["etag"] != tag
    assert (await api.ask("DELETE", address, If_Match=tag)).problem()[0] == 412
    gone = await api.ask("DELETE", address, If_Match=replaced.headers["etag"])
    assert (gone.status, gone.text) == (204, "")
    for method in ("GET", "DELETE"):
        assert (await api.ask(method, address)).problem()[0] == 404


async def test_address_is_what_clients_of_nginx_see(api: Server) -> None:
    created = await api.ask("POST", "/items", ITEM, X_Forwarded_Prefix="/api")
    assert created.headers["location"].startswith("/api/items/")
    foreign = await api.ask("POST", "/items", ITEM, X_Forwarded_Prefix="//elsewhere")
    assert foreign.headers["location"].startswith("/items/")


@pytest.mark.parametrize("kind", ["item", "list"])
async def test_answer_that_the_client_has_is_not_sent_again(api: Server, kind: str) -> None:
    created = await api.ask("POST", "/items", ITEM)
    address = created.headers["location"] if kind == "item" else "/items?limit=3"
    tag = (await api.ask("GET", address)).headers["etag"]
    for given in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        same = await api.ask("GET", address, If_None_Match=given)
        assert (same.status, same.text, same.headers["etag"]) == (304, "", tag)
    assert (await api.ask("GET", address, If_None_Match='"other"')).status == 200
    await api.ask("PUT", created.headers["location"], {"name": "changed"})
    changed = await api.ask("GET", address, If_None_Match=tag)
    assert (changed.status, changed.headers["etag"] != tag) == (200, True)


async def test_create_that_is_repeated_with_its_key_is_one_item(api: Server) -> None:
    first, second = [
        await api.ask("POST", "/items", ITEM, Idempotency_Key="a key") for _ in range(2)
    ]
    assert (first.status, first.text) == (second.status, second.text)
    assert first.headers["location"] == second.headers["location"]
    other = await api.ask("POST", "/items", {"name": "other"}, Idempotency_Key="a key")
    assert other.problem()[0] == 422


@pytest.mark.parametrize("search", ["%", "ä", "a b", "\\"])
async def test_search_takes_what_a_browser_sends(api: Server, search: str) -> None:
    await api.ask("POST", "/items", {"name": f"<{search}>"})
    found = (await api.ask("GET", f"/items?q={quote('<' + search + '>')}")).json()["items"]
    assert {item["name"] for item in found} == {f"<{search}>"}


# Errors


@pytest.mark.parametrize(("method", "path", "body", "headers", "status"), [
    ("GET", "/nothing", None, {}, 404),
    ("GET", "/items/", None, {}, 404),
    ("GET", "/items/x", None, {}, 404),
    ("GET", "/items/-1", None, {}, 404),
    ("GET", "/items/99999999999999999999999", None, {}, 404),
    # More digits than Python makes a number of.
    ("GET", f"/items/{'9' * 5000}", None, {}, 404),
    ("GET", f"/items/{2**63 - 1}", None, {}, 404),
    ("GET", f"/items/{2**63}", None, {}, 404),
    ("GET", "/items?limit=0", None, {}, 422),
    ("GET", f"/items?after={1:020}{'9' * 20}", None, {}, 422),
    ("GET", f"/items?after={1:020}{'9' * 5000}", None, {}, 422),
    ("GET", "/items?limit=101", None, {}, 422),
    ("GET", "/items?limit=%C2%B2", None, {}, 422),
    ("GET", "/items?after=x", None, {}, 422),
    ("GET", f"/items?after={2**63}", None, {}, 422),
    ("GET", "/items?after=" + "9" * 5000, None, {}, 422),
    ("GET", "/items?q=%00", None, {}, 422),
    ("GET", "/items?q=" + "a" * 101, None, {}, 422),
    ("POST", "/items", ITEM, {"Content-Type": "text/plain"}, 415),
    ("POST", "/items", ITEM, {"Content-Type": ""}, 415),
    ("POST", "/items", b"{", {}, 400),
    ("POST", "/items", b"\xff", {}, 400),
    ("POST", "/items", b"[]", {}, 422),
    ("POST", "/items", {"name": " "}, {}, 422),
    ("POST", "/items", {"name": "a" * 201}, {}, 422),
    ("POST", "/items", {"name": "a\0"}, {}, 422),
    ("POST", "/items", ITEM, {"Idempotency-Key": "a b"}, 422),
    ("POST", "/items", ITEM, {"Idempotency-Key": "a" * 129}, 422),
    ("PUT", "/items/999999999", ITEM, {}, 404),
    ("PUT", "/items/999999999", ITEM, {"If-Match": '"999999999.1"'}, 404),
    ("POST", "/items", b"1" * (LARGEST_BODY + 1), {}, 413),
])  # fmt: skip
async def test_error_is_a_problem(
    api: Server, method: str, path: str, body: object, headers: dict[str, str], status: int
) -> None:
    reply = await ask(api.port, method, path, body, headers)
    assert reply.problem()[0] == status
    assert reply.headers["x-request-id"]
    assert reply.headers["x-replica"]


async def test_body_without_a_length_is_bounded_too(api: Server) -> None:
    connection = await Connection.open(api.port)
    headers = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    await connection.send(request("POST", "/items", None, headers))
    for _ in range(LARGEST_BODY // 4096 + 1):
        await connection.send(b"1000\r\n" + b" " * 4096 + b"\r\n")
    assert (await connection.reply()).problem()[0] == 413
    connection.close()


async def test_body_of_the_largest_size_is_read(api: Server) -> None:
    body = json.dumps(ITEM).encode().ljust(LARGEST_BODY)
    assert (await api.ask("POST", "/items", body)).status == 201


@pytest.mark.parametrize(("path", "allowed"), [
    ("/items", {"GET", "HEAD", "POST"}),
    ("/items/1", {"GET", "HEAD", "PUT", "DELETE"}),
    ("/health", {"GET", "HEAD"}),
])  # fmt: skip
async def test_method_that_is_not_possible_is_told_which_are(
    api: Server, path: str, allowed: set[str]
) -> None:
    for method in ("PATCH", "OPTIONS"):
        reply = await api.ask(method, path)
        assert reply.problem()[0] == 405
        assert {name.strip() for name in reply.headers["allow"].split(",")} == allowed


@pytest.mark.parametrize("path", ["/items", "/health", "/nothing", "/items/999999999"])
async def test_head_is_get_without_its_body(api: Server, path: str) -> None:
    await api.ask("GET", path)
    replies = [await api.ask(method, path) for method in ("HEAD", "GET")]
    changing = {"x-request-id", "date"} | ({"content-length"} if path == "/health" else set())
    head, get = [
        {name.lower(): value for name, value in reply.headers.items() if name not in changing}
        for reply in replies
    ]
    assert (replies[0].status, head) == (replies[1].status, get)


# Log lines


@pytest.mark.parametrize(("given", "kept"), [
    ("abc-1.2_3", True), ("a" * 64, True), ("", False), ("a" * 65, False), ("a b", False),
    ('a"b', False), ("é", False),
])  # fmt: skip
async def test_request_is_found_in_the_log_by_its_id(api: Server, given: str, kept: bool) -> None:
    reply = await api.ask("GET", "/items/999999999", X_Request_Id=given)
    identity = reply.headers["x-request-id"]
    assert (identity == given) == kept
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", identity)

    def logged() -> list[dict[str, Any]]:
        return [line for line in api.lines() if line.get("request_id") == identity]

    await until(lambda: bool(logged()), "the line")
    line = logged()[-1]
    assert (line["message"], line["level"], line["service"]) == ("request", "info", "api")
    assert (line["method"], line["path"], line["status"]) == ("GET", "/items/999999999", 404)
    assert line["ms"] >= 0
    assert (await api.ask("GET", "/whoami", X_Request_Id="abc")).json()["request_id"] == "abc"


async def test_every_line_is_json_whatever_is_asked_for(api: Server) -> None:
    for path in ("/%0a", "/%22%7d", "/%00", "/%ff", "/%F0%9F%98%80", '/"{'):
        reply = await api.ask("GET", path, X_Request_Id="odd")
        assert reply.problem()[0] == 404
    await until(
        lambda: sum(line.get("request_id") == "odd" for line in api.lines()) == 6, "all lines"
    )


# Bounds


async def test_health_answers_within_two_seconds_without_a_database(
    api: Server, servers: Servers
) -> None:
    with frozen(servers.database):
        begin = time.monotonic()
        reply = await api.ask("GET", "/health")
        assert time.monotonic() - begin < 2
    assert reply.status == 503
    body = reply.json()
    assert body["status"] == "degraded"
    assert (body["database"]["status"], body["cache"]["status"]) == ("away", "ok")
    assert body["database"]["reason"]
    # It is not the process's fault.
    assert (await api.ask("GET", "/live")).status == 200


async def timed(asked: Any) -> tuple[float, Reply]:
    """Return the seconds until the answer, and the answer."""
    begin = time.monotonic()
    reply = await asked
    return time.monotonic() - begin, reply


async def test_more_readers_of_one_item_than_may_be_in_flight_are_refused_at_once(
    api: Server, servers: Servers
) -> None:
    address = (await api.ask("POST", "/items", ITEM)).headers["location"]
    refused = await api.metric("stackyard_requests_refused_total")
    many = IN_FLIGHT + 100
    with frozen(servers.database):
        asked = [asyncio.create_task(timed(api.ask("GET", address))) for _ in range(many)]
        done, _ = await asyncio.wait(asked, timeout=1.5)
        quick = [task.result()[1] for task in done]
        assert {reply.problem()[0] for reply in quick} == {503}
        assert len(quick) >= many - IN_FLIGHT
        # Who is busy is not ill.
        assert (await api.ask("GET", "/live")).status == 200
    replies = [reply for _, reply in await asyncio.gather(*asked)]
    assert {reply.status for reply in replies} <= {200, 503}
    assert max(seconds for seconds, _ in [task.result() for task in asked]) < 9
    assert await api.metric("stackyard_requests_refused_total") - refused >= many - IN_FLIGHT
    assert (await api.ask("GET", address)).status == 200


async def test_more_questions_than_may_wait_for_the_database_are_refused_at_once(
    api: Server, servers: Servers
) -> None:
    many = 200
    with frozen(servers.database):
        asked = [
            asyncio.create_task(timed(api.ask("GET", f"/items?q={number}")))
            for number in range(many)
        ]
        replies = await asyncio.gather(*asked)
    assert {reply.problem()[0] for _, reply in replies} == {503}
    assert sum("requests wait for it already" in reply.text for _, reply in replies) >= 100
    seconds = sorted(took for took, _ in replies)
    assert seconds[99] < 1
    assert seconds[-1] < 5
    async with asyncio.timeout(5):
        while (await api.ask("GET", "/items")).status != 200:
            await asyncio.sleep(0.1)


# Metrics and documentation


async def test_requests_and_reads_are_counted(api: Server) -> None:
    counted = {
        ("stackyard_requests_total", "read_item", "200"): 3,
        ("stackyard_requests_total", "read_item", "404"): 1,
        ("stackyard_requests_total", "create_item", "201"): 1,
        ("stackyard_requests_total", "none", "404"): 1,
    }

    async def counts() -> list[float]:
        return [
            await api.metric(name, operation=operation, status=status)
            for name, operation, status in counted
        ]

    async def sources() -> list[float]:
        return [
            await api.metric("stackyard_item_reads_total", source=source)
            for source in ("database", "cache")
        ]

    before, sources_before = await counts(), await sources()
    address = (await api.ask("POST", "/items", ITEM)).headers["location"]
    for _ in range(3):
        await api.ask("GET", address)
    await api.ask("GET", "/items/999999999")
    await api.ask("GET", "/nothing")
    assert [new - old for new, old in zip(await counts(), before, strict=True)] == list(
        counted.values()
    )
    read = [new - old for new, old in zip(await sources(), sources_before, strict=True)]
    assert read == [1, 2]
    for dependency in ("database", "cache"):
        assert await api.metric("stackyard_dependency_up", dependency=dependency) == 1
    assert await api.metric("stackyard_config_valid") == 1


async def test_documents_describe_each_other(api: Server) -> None:
    described = (await api.ask("GET", "/openapi.json")).json()
    page = (await api.ask("GET", "/docs")).text
    for path, methods in described["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in page
    prefixed = (await api.ask("GET", "/openapi.json", X_Forwarded_Prefix="/api")).json()
    assert [server["url"] for server in prefixed["servers"]] == ["/api"]


# Starting and stopping


async def test_told_to_stop_it_answers_what_it_has_accepted(surroundings: Surroundings) -> None:
    with serving(surroundings) as server:
        await until_healthy(server)
        assert (await server.ask("GET", "/openapi.json")).problem()[0] == 404
        assert (await server.ask("GET", "/docs")).problem()[0] == 404
        data = request("POST", "/items", ITEM)
        begun = [await Connection.open(server.port) for _ in range(20)]
        for connection in begun:
            await connection.send(data[:-5])
        idle = await Connection.open(server.port)
        await idle.send(request("GET", "/live"))
        assert (await idle.reply()).status == 200
        await asyncio.sleep(0.1)

        server.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.15)
        with pytest.raises(OSError):  # noqa: PT011 - refused or reset, as it comes
            await Connection.open(server.port)
        # nginx has sent it before it could know.
        await idle.send(request("GET", "/live"))
        assert (await idle.reply()).status == 200
        await asyncio.sleep(0.5)
        for connection in begun:
            await connection.send(data[-5:])
        assert {(await connection.reply()).status for connection in begun} == {201}
        code = await asyncio.to_thread(server.process.wait, timeout=8)
        assert code == 0
        assert sum(line.get("status") == 201 for line in server.lines()) == 20
    superuser = await surroundings.superuser()
    assert await superuser.fetchval("SELECT count(*) FROM items") == 20
    await superuser.close()


async def test_session_is_a_cookie_that_scripts_cannot_read(api: Server) -> None:
    first = await api.ask("GET", "/session")
    assert first.json() == {"visits": 1}
    cookie = first.headers["set-cookie"]
    assert {"httponly", "samesite=lax"} <= {part.strip().lower() for part in cookie.split(";")}
    given = cookie.partition(";")[0]
    assert (await api.ask("GET", "/session", Cookie=given)).json() == {"visits": 2}
    chosen = "session=" + "a" * 32
    assert (await api.ask("GET", "/session", Cookie=chosen)).json() == {"visits": 1}
    secure = (await api.ask("GET", "/session", X_Forwarded_Proto="https")).headers["set-cookie"]
    assert secure.startswith("__Host-session=")
    assert "secure" in secure.lower()


def test_api_keeps_to_its_document_whatever_it_is_asked(shared: Server, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            f"--config-file={SCHEMATHESIS}",
            "run",
            f"http://127.0.0.1:{shared.port}/openapi.json",
            "--checks=all",
            "--mode=all",
            "--max-examples=15",
            "--seed=1",
            "--generation-deterministic",
            "--continue-on-failure",
            "--no-color",
        ],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
