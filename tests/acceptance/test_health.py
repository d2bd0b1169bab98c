"""Promise 12: health checks that fail with their service. Promise 13: who waits for whom."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from .machine import wait_until
from .settings import NEEDS, SERVICES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .stack import Container, Stack

# What each health check has to ask, and where.
ASKS = {
    "gateway": ["http://127.0.0.1:8080/health"],
    "frontend": ["http://127.0.0.1:8080/health"],
    "api": ["http://127.0.0.1:8000/health"],
    "database": ["pg_isready", "127.0.0.1"],
    "cache": ["redis-cli", "ping", "PONG"],
}
NANOSECONDS = 1e9
# A few intervals: within these the api says what is away, and its container is unhealthy.
NOTICED_SECONDS = 20
UNHEALTHY_SECONDS = 45


def _moment(text: str) -> datetime:
    """A time as the engine writes it, to the microsecond."""
    head, _, tail = text.partition(".")
    digits = "".join(character for character in tail if character.isdigit())[:6]
    return datetime.fromisoformat(f"{head}.{digits.ljust(6, '0')}+00:00")


@pytest.mark.promise(12)
@pytest.mark.parametrize("service", SERVICES)
def test_health_check_asks_the_service(stack: Stack, service: str) -> None:
    """It asks the server itself, often enough, and gives up in time."""
    for each in stack.of(service):
        check = each.data["Config"].get("Healthcheck", {})
        command = " ".join(check.get("Test", []))
        missing = [word for word in ASKS[service] if word not in command]
        assert not missing, f"{each.name}: {missing} not in {command!r}"
        assert "|| true" not in command, f"{each.name}: {command!r} cannot fail"
        assert 0 < check["Interval"] <= 10 * NANOSECONDS, check
        assert 0 < check["Timeout"] <= check["Interval"], check
        assert 1 <= check["Retries"] <= 5, check


@pytest.mark.promise(12)
@pytest.mark.parametrize("service", SERVICES)
def test_health_check_runs(stack: Stack, service: str) -> None:
    """Its last run was a moment ago, and succeeded."""
    now = datetime.fromtimestamp(
        float(stack.machine.run("date", "+%s.%N").out), tz=_moment("2000-01-01T00:00:00.0").tzinfo
    )
    offset = stack.machine.run("date", "+%z").out.strip()
    for each in stack.of(service):
        health = each.state.get("Health", {})
        assert health.get("Log"), f"{each.name}: the health check never ran: {health}"
        last = health["Log"][-1]
        assert (last["ExitCode"], health["FailingStreak"]) == (0, 0), f"{each.name}: {last}"
        ended = datetime.fromisoformat(_with_offset(last["End"], offset))
        age = (now - ended).total_seconds()
        interval = each.data["Config"]["Healthcheck"]["Interval"] / NANOSECONDS
        assert age < 3 * interval + 5, f"{each.name}: the last run was {age:.0f} s ago"


def _with_offset(text: str, offset: str) -> str:
    """The engine writes health times in the machine's own zone, with nanoseconds."""
    head, _, tail = text.partition(".")
    digits = "".join(character for character in tail[:9] if character.isdigit())[:6]
    zone = tail.lstrip("0123456789") or offset
    return f"{head}.{digits.ljust(6, '0')}{'+00:00' if zone == 'Z' else zone}"


@pytest.mark.promise(12)
@pytest.mark.disruptive
@pytest.mark.parametrize("service", ["cache", "database"])
def test_frozen_service_shows_in_the_apis_health(stack: Stack, service: str) -> None:
    """The api names the one that is away, turns unhealthy, and recovers; the page stays."""
    other = "database" if service == "cache" else "cache"
    frozen = stack.one(service)
    stack.machine.run("docker", "pause", frozen.id)
    try:
        last = [stack.get("/api/health", timeout=8)]

        def noticed() -> bool:
            last[0] = stack.get("/api/health", timeout=8)
            return last[0].status == 503 and '"database":' in last[0].body

        wait_until(noticed, NOTICED_SECONDS, "/api/health is 503", lambda: str(last[0]))
        about = last[0].json()
        assert (about[service]["status"], about[other]["status"]) == ("away", "ok"), str(last[0])
        assert about[service].get("reason"), str(last[0])

        def unhealthy() -> bool:
            return all(each.health == "unhealthy" for each in stack.of("api"))

        wait_until(unhealthy, UNHEALTHY_SECONDS, "every api is unhealthy", stack.trouble)
        pages = stack.ask([{"url": stack.url("/")}] * 6)
        assert {page.status for page in pages} == {200}, str(pages[0])
    finally:
        stack.machine.run("docker", "unpause", frozen.id)
    stack.wait_healthy()
    assert stack.refreshed(frozen).life == frozen.life


class _Halted:
    """One container of each service with its server halted, and the others as they are."""

    def __init__(self, stack: Stack, services: Sequence[str]) -> None:
        self.stack = stack
        self.containers = {service: stack.one(service) for service in services}
        self.pids = {service: stack.servers(each) for service, each in self.containers.items()}

    def signal(self, name: str) -> None:
        """Send a signal to every process of these servers that still lives."""
        for pids in self.pids.values():
            self.stack.machine.try_run("kill", f"-{name}", *map(str, pids))

    def now(self, service: str) -> Container:
        """The halted container as it is now."""
        return self.stack.refreshed(self.containers[service])


@pytest.fixture
def halted(stack: Stack) -> Iterator[_Halted]:
    """All servers halted at once, since each takes as long to be noticed; then set going again."""
    found = _Halted(stack, SERVICES)
    found.signal("STOP")
    yield found
    found.signal("CONT")


@pytest.mark.promise(12)
@pytest.mark.disruptive
def test_halted_server_is_unhealthy(stack: Stack, halted: _Halted) -> None:
    """A server that is there and answers nobody makes its own container unhealthy."""

    def healths() -> dict[str, str]:
        return {service: halted.now(service).health for service in SERVICES}

    wait_until(
        lambda: set(healths().values()) == {"unhealthy"},
        UNHEALTHY_SECONDS,
        "each halted server's container is unhealthy",
        lambda: str(healths()),
        pause=1,
    )
    halted.signal("CONT")
    stack.wait_healthy()
    changed = [name for name in SERVICES if halted.now(name).life != halted.containers[name].life]
    assert not changed, f"restarted meanwhile: {changed}"


@pytest.mark.promise(12)
@pytest.mark.disruptive
def test_one_halted_frontend_is_not_asked(stack: Stack) -> None:
    """With one replica halted the gateway soon leaves it out, and every page comes."""
    if stack.settings.counts["frontend"] < 2:
        assert stack.get("/").status == 200
        return
    frontend = stack.one("frontend")
    pids = [str(pid) for pid in stack.servers(frontend)]
    stack.machine.run("kill", "-STOP", *pids)
    try:

        def left_out() -> bool:
            answers = stack.ask([{"url": stack.url("/"), "timeout": 3}] * 8)
            served = {answer.headers.get("x-served-by") for answer in answers}
            return {each.status for each in answers} == {200} and frontend.hostname not in served

        wait_until(left_out, NOTICED_SECONDS, f"{frontend.name} is left out", stack.trouble)
    finally:
        stack.machine.run("kill", "-CONT", *pids)


# Promise 13


@pytest.mark.promise(13)
@pytest.mark.parametrize("service", SERVICES)
def test_service_waits_for_the_health_of_those_it_needs(stack: Stack, service: str) -> None:
    """Compose holds each one back until those that it needs are healthy, and no others."""
    for env in ("dev", "prod"):
        needs = stack.compose_config(env)["services"][service].get("depends_on", {})
        conditions = {name: about["condition"] for name, about in needs.items()}
        wanted = dict.fromkeys(NEEDS[service], "service_healthy")
        assert conditions == wanted, f"{service} in {env}"


@pytest.mark.promise(13)
@pytest.mark.disruptive
def test_services_start_in_order(stack: Stack) -> None:
    """By the engine's own record: none started before those it needs were healthy."""
    counts = stack.counts()
    stack.compose("down")
    scale = [f"--scale={service}={counts[service]}" for service in ("frontend", "api")]
    command = ["docker", "compose", "up", "-d", "--wait", "--wait-timeout", "120", *scale]
    report = stack.machine.program(
        "watch",
        {"command": command, "folder": stack.directory, "project": stack.project},
        seconds=180,
    )
    assert report["code"] == 0, f"{report['out']}{report['err']}\n{stack.trouble()}"
    started: dict[str, list[int]] = {service: [] for service in SERVICES}
    healthy: dict[str, dict[str, int]] = {service: {} for service in SERVICES}
    for event in report["events"]:
        if event["action"] == "start":
            started[event["service"]].append(event["moment"])
        elif event["action"] == "health_status: healthy":
            healthy[event["service"]].setdefault(event["container"], event["moment"])
    for service in SERVICES:
        assert len(started[service]) == counts[service] == len(healthy[service]), (
            f"{service}: {started[service]} {healthy[service]}"
        )
    for service, needs in NEEDS.items():
        for needed in needs:
            ready = max(healthy[needed].values())
            early = [moment for moment in started[service] if moment < ready]
            assert not early, (
                f"{service} started {(ready - min(early)) / NANOSECONDS:.2f} s before {needed} "
                "was healthy"
            )
