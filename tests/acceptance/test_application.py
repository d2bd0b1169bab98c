"""Promise 1: what the page and the api do through the gateway, with all replicas at work."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from .machine import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .stack import Stack

pytestmark = pytest.mark.promise(1)


@pytest.fixture
def item(stack: Stack) -> Iterator[str]:
    """An item's path; the item is gone afterwards."""
    path = stack.create_item("acceptance: application")
    yield path
    stack.send("DELETE", path)


def _status(stack: Stack) -> dict[str, Any]:
    return stack.get("/api/status").json()


def _named(nodes: list[dict[str, Any]]) -> dict[str, str]:
    return {node["name"]: node["status"] for node in nodes}


@contextmanager
def _stopped(stack: Stack, service: str) -> Iterator[None]:
    stack.stop(service)
    try:
        yield
    finally:
        stack.start(service)
        stack.wait_healthy()


def test_status_names_every_replica(stack: Stack) -> None:
    """/api/status, from which the page draws its picture, has the containers by their names."""
    about = _status(stack)
    for kind, service in (("frontends", "frontend"), ("apis", "api")):
        there = {each.hostname: "ok" for each in stack.of(service)}
        assert _named(about[kind]) == there, about
    assert (about["database"]["status"], about["cache"]["status"]) == ("ok", "ok"), about


@pytest.mark.disruptive
@pytest.mark.parametrize(("service", "kind"), [("frontend", "frontends"), ("api", "apis")])
def test_stopped_replica_leaves_the_status_and_comes_back(
    stack: Stack, service: str, kind: str
) -> None:
    """Whoever watches the page sees it go within seconds, and return."""
    victim = stack.of(service)[-1]
    stack.machine.run("docker", "stop", victim.id)
    try:
        wait_until(
            lambda: victim.hostname not in _named(_status(stack)[kind]),
            8,
            f"{victim.name} has left /api/status",
            lambda: str(_status(stack)),
        )
    finally:
        stack.start_again(victim)
    stack.wait_healthy()
    there = {each.hostname: "ok" for each in stack.of(service)}
    wait_until(
        lambda: _named(_status(stack)[kind]) == there,
        20,
        f"what is in the place of {victim.name} is in /api/status",
        lambda: str(_status(stack)),
    )


def test_request_is_known_by_one_id_everywhere(stack: Stack) -> None:
    """The gateway gives it; the answer and the log lines of all three on the way have it."""
    answer = stack.get("/api/items")
    identity = answer.headers["x-request-id"]

    def missing() -> list[str]:
        return [
            service
            for service in ("gateway", "frontend", "api")
            if not any(identity in stack.logs(each.name, 500) for each in stack.of(service))
        ]

    wait_until(lambda: not missing(), 5, f"{identity} is in every log", lambda: str(missing()))
    (line,) = [
        line
        for each in stack.of("api")
        for line in stack.logs(each.name, 500).splitlines()
        if identity in line
    ]
    if stack.env == "prod":
        text = line[line.index("{") :]
        logged = json.loads(text)
        assert (logged["path"], logged["status"], logged["replica"]) == (
            "/items",
            200,
            answer.headers["x-replica"],
        ), line


def test_clients_id_is_not_taken_for_the_gateways(stack: Stack) -> None:
    """Or a visitor could make two requests look like one."""
    request = {"url": stack.url("/api/live"), "headers": {"X-Request-ID": "acceptance"}}
    (answer,) = stack.ask([request])
    assert re.fullmatch(r"[0-9a-f-]{36}", answer.headers["x-request-id"]), str(answer)


def test_metrics_are_for_who_is_inside(stack: Stack) -> None:
    """Not through the gateway; each replica has its own."""
    assert stack.get("/api/metrics").status == 404
    for each in stack.of("api"):
        text = stack.exec(each, *["busybox", "wget", "-qO-", "http://127.0.0.1:8000/metrics"]).out
        assert re.search(r"^stackyard_requests_total\{.*\} [1-9]", text, re.MULTILINE), each.name
        assert re.search(r'^stackyard_dependency_up\{dependency="cache"\} 1\.0', text, re.MULTILINE)


def test_documentation_is_devs(stack: Stack) -> None:
    """Who learns gets a page and OpenAPI; prod says no more than it has to."""
    answers = stack.ask([{"url": stack.url(f"/api/{name}")} for name in ("docs", "openapi.json")])
    shown = [200, 200] if stack.env == "dev" else [404, 404]
    assert [answer.status for answer in answers] == shown, "\n".join(map(str, answers))


def test_session_is_shared_by_all_apis(stack: Stack) -> None:
    """One counter, whichever replica answers."""
    request: dict[str, Any] = {"url": stack.url("/api/session")}
    (first,) = stack.ask([request])
    request["headers"] = {"Cookie": first.headers["set-cookie"].partition(";")[0]}
    answers = stack.ask([request] * 12)
    counted = [answer.json()["visits"] for answer in answers]
    assert counted == list(range(2, 14)), "\n".join(map(str, answers))
    assert len({answer.headers["x-replica"] for answer in answers}) > 1 or len(stack.of("api")) == 1


@pytest.mark.disruptive
def test_entity_tag_saves_the_body_and_guards_the_item(stack: Stack, item: str) -> None:
    """304 for who has it, compressed or not; 412 for who knows an older one."""
    tag = stack.get(item).headers["etag"]
    for given in (tag, f"W/{tag}"):
        (answer,) = stack.ask([{"url": stack.url(item), "headers": {"If-None-Match": given}}])
        assert (answer.status, answer.body) == (304, ""), str(answer)
    assert stack.send("PUT", item, {"name": "acceptance: changed"}).status == 200
    (answer,) = stack.ask([{"url": stack.url(item), "headers": {"If-None-Match": tag}}])
    assert (answer.status, answer.json()["name"]) == (200, "acceptance: changed"), str(answer)
    guarded = {"url": stack.url(item), "method": "DELETE", "headers": {"If-Match": tag}}
    (answer,) = stack.ask([guarded])
    assert answer.status == 412, str(answer)
    assert stack.get(item).status == 200


@pytest.mark.disruptive
def test_create_with_a_key_happens_once(stack: Stack) -> None:
    """Whichever replicas are asked."""
    name = "acceptance: once"
    request = {
        "url": stack.url("/api/items"),
        "method": "POST",
        "body": json.dumps({"name": name}),
        "headers": {"Content-Type": "application/json", "Idempotency-Key": "acceptance-once"},
    }
    answers = stack.ask([request] * 6)
    try:
        assert {answer.status for answer in answers} == {201}, "\n".join(map(str, answers))
        assert len({answer.body for answer in answers}) == 1, "\n".join(map(str, answers))
        assert stack.sql(f"SELECT count(*) FROM items WHERE name = '{name}'") == [["1"]]
    finally:
        stack.send("DELETE", f"/api/items/{answers[0].json()['id']}")
        stack.sql("DELETE FROM idempotency_keys WHERE key = 'acceptance-once'")


@pytest.mark.disruptive
def test_no_replica_answers_with_what_was_before_a_write(stack: Stack, item: str) -> None:
    """Each write is followed by reads through every replica, cached ones among them."""
    sources = set()
    for number in range(20):
        name = f"acceptance: {number}"
        change = {
            "url": stack.url(item),
            "method": "PUT",
            "body": json.dumps({"name": name}),
            "headers": {"Content-Type": "application/json"},
        }
        answers = stack.ask([change, *[{"url": stack.url(item)}] * 6])
        late = [answer for answer in answers if answer.json()["name"] != name]
        assert not late, f"after {name}: {late[0]}"
        sources |= {answer.headers.get("x-source") for answer in answers[1:]}
    assert sources == {"database", "cache"}


@pytest.mark.disruptive
def test_without_the_database_the_list_is_the_last_one(stack: Stack, item: str) -> None:
    """Marked stale and with its age; what changes data is refused with the reason."""
    before = stack.get("/api/items").json()
    with _stopped(stack, "database"):
        answer = stack.get("/api/items")
        assert (answer.status, answer.headers.get("x-source")) == (200, "stale"), str(answer)
        assert int(answer.headers["age"]) >= 0
        assert answer.json() == before, str(answer)
        refused = stack.send("PUT", item, {"name": "acceptance: away"})
        assert refused.status == 503, str(refused)
        assert "database" in refused.json()["detail"], str(refused)
    # The others may have been told its end by their own connections alone.
    wait_until(
        lambda: all(_source(stack) == "database" for _ in range(6)), 10, "the database answers"
    )


def _source(stack: Stack) -> str:
    return stack.get("/api/items").headers.get("x-source", "")


@pytest.mark.disruptive
def test_what_would_wait_too_long_is_refused_at_once(stack: Stack) -> None:
    """With all apis frozen, a flood finds its bound in the gateway; afterwards all is well."""
    apis = [each.id for each in stack.of("api")]
    # 200 for each frontend, and 200 in front of them; the others need not wait for the apis.
    held = 200 * len(stack.of("frontend")) + 200
    beyond = 200
    stack.machine.run("docker", "pause", *apis)
    try:
        early, late = stack.machine.program(
            "flood",
            {
                "url": stack.url("/api/whoami"),
                "count": held + beyond,
                "seconds": 30,
                "early": beyond,
                # Less than the gateway lets anybody queue.
                "hold": 4.5,
                "then": ["docker", "unpause", *apis],
            },
            60,
        )
    finally:
        stack.machine.try_run("docker", "unpause", *apis)
    assert set(early) == {503}, early
    assert len(early) >= beyond - 20, f"only {len(early)} of {beyond} were refused at once"
    assert set(late) <= {200, 503}, sorted(set(late))
    assert late.count(200) > held // 4, "none of those held was served"
    stack.wait_healthy()
