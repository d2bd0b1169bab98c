"""Promises 2 and 3: as many replicas as set. Promise 4: the database has one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from .settings import SERVICES
from .stack import Container, place

if TYPE_CHECKING:
    from .stack import Stack

SCALED = {"frontend": "x-served-by", "api": "x-replica"}
ROUNDS = 60


@pytest.mark.parametrize(
    "service",
    [
        pytest.param("frontend", marks=pytest.mark.promise(2)),
        pytest.param("api", marks=pytest.mark.promise(3)),
        pytest.param("database", marks=pytest.mark.promise(4)),
    ],
)
def test_count_is_as_set(stack: Stack, service: str) -> None:
    """There are exactly as many containers as the setting says."""
    names = [container.name for container in stack.containers(service)]
    assert len(names) == stack.settings.counts[service], f"{service}: {names}"


@pytest.mark.parametrize(
    ("service", "path"),
    [
        pytest.param("frontend", "/", marks=pytest.mark.promise(2)),
        pytest.param("api", "/api/whoami", marks=pytest.mark.promise(3)),
    ],
)
def test_every_replica_answers(stack: Stack, service: str, path: str) -> None:
    """Requests through the gateway reach each replica, and nobody else."""
    answers = stack.ask([{"url": stack.url(path)}] * ROUNDS)
    assert {answer.status for answer in answers} == {200}, "\n".join(map(str, answers[:3]))
    seen = {answer.headers[SCALED[service]] for answer in answers}
    assert seen == {container.hostname for container in stack.of(service)}, stack.logs(service)
    if service == "api":
        assert {answer.json()["replica"] for answer in answers} == seen


@pytest.mark.promise(4)
def test_database_has_a_name_that_can_be_had_once(stack: Stack) -> None:
    """Not a numbered one, beside which Compose would start the next; on a swarm, a node's one."""
    assert stack.single_by(), f"nothing keeps the database single: {stack.overview()}"


@pytest.mark.promise(4)
def test_database_volume_has_one_user(stack: Stack) -> None:
    """No second container, running or stopped, of this or any project, has the volume."""
    volume = f"volume={stack.project}_database-data"
    names = stack.machine.run("docker", "ps", "-a", "--filter", volume, "--format", "{{.Names}}")
    # On a swarm, those whose place it took may still be there, stopped.
    assert {place(name) for name in names.lines()} == {stack.one("database").place}, str(names)


def _lives(stack: Stack) -> dict[str, tuple[str, str, int]]:
    return {container.name: container.life for container in stack.containers()}


def _lives_command(stack: Stack) -> list[str]:
    ask = "docker ps -q --no-trunc --filter label=$1"
    return ["sh", "-c", f"docker inspect $({ask})", "sh", stack.label]


def _lives_reported(phase: dict[str, Any]) -> dict[str, tuple[str, str, int]]:
    found = {}
    for data in json.loads(phase["out"]):
        life = data["Id"], data["State"]["StartedAt"], data["RestartCount"]
        found[data["Name"].lstrip("/")] = life
    return found


def _hostnames(phase: dict[str, Any], service: str) -> set[str]:
    return {
        each.hostname
        for each in map(Container, json.loads(phase["out"]))
        if each.service == service
    }


@pytest.mark.promise(2, 3)
@pytest.mark.disruptive
def test_scaling_is_followed_without_a_restart_or_a_lost_request(stack: Stack) -> None:
    """More apis, then more frontends, then as before, under requests: every replica answers."""
    before, counts = _lives(stack), stack.counts()
    most = stack.settings.number("stack_compose_maximum_replicas")
    more = {each: counts[each] + (2 if counts[each] + 2 <= most else -1) for each in SCALED}
    # The apis first and alone: a frontend that starts after them would know them anyway.
    steps = [
        {"frontend": counts["frontend"], "api": more["api"]},
        {"frontend": more["frontend"], "api": counts["api"]},
        {service: counts[service] for service in SCALED},
    ]

    def to(wanted: dict[str, int]) -> dict[str, Any]:
        return {"command": stack.scale_command(wanted), "settle": 3, "watch": 0}

    look = {"command": _lives_command(stack), "settle": 0, "watch": 2}
    report = stack.machine.program(
        "load",
        {
            "urls": [stack.url("/"), stack.url("/api/whoami"), stack.url("/api/items")],
            "clients": 3,
            "folder": stack.directory,
            "phases": [phase for wanted in steps for phase in (to(wanted), look)],
        },
        seconds=180,
    )
    phases = report["phases"]
    for phase in phases:
        assert phase["code"] == 0, f"{phase['out']}{phase['err']}"
    failures = report["failures"]
    assert not failures, (
        f"{len(failures)} of {report['requests']} requests failed while scaling {counts} by way "
        f"of {steps}:\n" + "\n".join(failures[:8])
    )
    assert report["requests"] > 500, f"too few to tell: {report['requests']}"

    for phase, wanted in zip(phases[1::2], steps, strict=True):
        frontends, apis = _hostnames(phase, "frontend"), _hostnames(phase, "api")
        assert (len(frontends), len(apis)) == (wanted["frontend"], wanted["api"])
        assert set(phase["seen"]["X-Served-By"]) == frontends, f"with {wanted}"
        assert set(phase["seen"]["X-Replica"]) == apis, f"with {wanted}"
        lives = _lives_reported(phase)
        changed = [name for name in before if name in lives and lives[name] != before[name]]
        assert not changed, f"restarted or replaced by the scaling: {changed}"
        single = [service for service in SERVICES if service not in SCALED]
        assert all(any(service in name for name in lives) for service in single), str(lives)


@pytest.mark.promise(4)
@pytest.mark.disruptive
@pytest.mark.parametrize("way", ["scale", "up"])
def test_database_cannot_be_scaled(stack: Stack, way: str) -> None:
    """A second database is refused, or warned of and the one kept."""
    before = stack.one("database").life
    there: list[Container] = []
    try:
        result = stack.ask_for_two_databases(way)
        there = stack.containers("database")
        assert [container.life for container in there] == [before], (
            f"{[container.name for container in there]} after\n{result}"
        )
        assert result.code != 0 or "WARNING" in result.err.upper() or "WARN[" in result.err, (
            f"neither failed nor warned:\n{result}"
        )
    finally:
        stack.take_back([container for container in there if container.id != before[0]])
    assert stack.sql("SELECT 1") == [["1"]]
