"""Promise 12: health checks that fail with their service. Promise 13: who waits for whom."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from .machine import wait_until
from .settings import NEEDS, SERVICES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from .stack import Container, Response, Stack

# What each health check has to ask, and where.
ASKS = {
    "gateway": ["http://127.0.0.1:", "8080/health"],
    "frontend": ["http://127.0.0.1:", "8080/health"],
    "api": ["http://127.0.0.1:8000/", "health"],
    "database": ["pg_isready", "127.0.0.1"],
    "cache": ["redis-cli", "ping", "PONG"],
}
NANOSECONDS = 1e9
# In the words of docs/swarm.md.
REPLACED = pytest.mark.compose("what fails is replaced")
# A few intervals: within these the api says what is away, and its container is unhealthy.
NOTICED_SECONDS = 20
UNHEALTHY_SECONDS = 45
# For so long after a replica has gone requests may fail: until its health check would tell.
INTERVAL_SECONDS = 5
WATCHED_SECONDS = 8


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
        # Until then no failure counts.
        assert 0 <= check.get("StartPeriod", 0) <= 120 * NANOSECONDS, check


@pytest.mark.promise(12)
@pytest.mark.parametrize("service", SERVICES)
def test_health_check_fails_where_no_server_is(stack: Stack, service: str) -> None:
    """The very same command, in a container of the same image that runs nothing else."""
    container = stack.one(service)
    kind, *words = container.data["Config"]["Healthcheck"]["Test"]
    program, *arguments = ["/bin/sh", "-c", *words] if kind == "CMD-SHELL" else words
    user = container.data["Config"]["User"]
    result = stack.machine.try_run(
        *("docker", "run", "--rm", "--network=none", "--read-only", f"--user={user}"),
        *("--no-healthcheck", f"--entrypoint={program}", container.data["Image"], *arguments),
        seconds=20,
    )
    # 125 to 127 are the engine's own: the command did not even run.
    assert result.code not in (0, 124, 125, 126, 127), f"it cannot fail:\n{result}"


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


class _Away:
    """Containers that are frozen, or cut off from their networks, until they are put back."""

    def __init__(self, stack: Stack, fault: str) -> None:
        self.stack = stack
        self.fault = fault
        self.taken: list[Container] = []

    def take(self, containers: Sequence[Container], *networks: str) -> None:
        """Freeze the containers, or cut them off from these networks (all when none is named)."""
        self.taken += containers
        if self.fault == "frozen":
            self.stack.machine.run("docker", "pause", *(each.id for each in containers))
            return
        for each in containers:
            self.stack.cut_off(each, *networks)

    def put_back(self, *services: str) -> None:
        """Undo it, for these services or for all."""
        back = [each for each in self.taken if not services or each.service in services]
        if self.fault == "frozen":
            self.stack.unpause(back)
        else:
            for each in back:
                self.stack.rejoin(each)
        self.taken = [each for each in self.taken if each not in back]


@pytest.fixture(params=[pytest.param("frozen", marks=REPLACED), "cut off"])
def away(stack: Stack, request: pytest.FixtureRequest) -> Iterator[_Away]:
    """A way to have parts of the stack gone, and back at the end of the check."""
    found = _Away(stack, request.param)
    yield found
    found.put_back()


def _lives(stack: Stack) -> dict[str, tuple[str, str, int]]:
    return {each.name: each.life for each in stack.containers()}


def _wait_reported(stack: Stack, services: set[str]) -> None:
    """Wait until /api/health says that exactly these are away, each with a reason."""
    last: list[Response] = []

    def reported() -> bool:
        last[:] = [stack.get("/api/health", timeout=8)]
        if '"database":' not in last[0].body:
            return False
        about = last[0].json()
        said = {name for name in ("database", "cache") if about[name]["status"] == "away"}
        return said == services

    what = f"/api/health names {sorted(services) or 'nobody'}"
    wait_until(reported, NOTICED_SECONDS, what, lambda: f"{last[0]}\n{stack.logs('api')}")
    assert last[0].status == (503 if services else 200), str(last[0])
    for service in services:
        assert last[0].json()[service].get("reason"), str(last[0])


def _last_words(container: Container) -> dict[str, Any]:
    """The last run of the container's health check."""
    return container.state["Health"]["Log"][-1]


def _wait_told(stack: Stack) -> None:
    """Wait until apis and gateway are unhealthy, by their checks' own words."""
    told = [*stack.of("api"), *stack.of("gateway")]

    def unhealthy() -> bool:
        return all(stack.refreshed(each).health == "unhealthy" for each in told)

    wait_until(unhealthy, UNHEALTHY_SECONDS, "apis and gateway are unhealthy", stack.trouble)
    for each in map(stack.refreshed, told):
        words = _last_words(each)
        assert words["ExitCode"] != 0, f"{each.name}: {words}"
        assert "503" in words["Output"], f"{each.name}: {words}"


@pytest.mark.promise(12)
@pytest.mark.disruptive
def test_database_and_cache_are_named_when_away(stack: Stack, away: _Away) -> None:
    """The api names who is away, it and the gateway turn unhealthy, and all recover."""
    database, cache = stack.one("database"), stack.one("cache")
    # Each is away alone once: the first before the second goes, the second after the first is back.
    first, second = (database, cache) if away.fault == "frozen" else (cache, database)
    before = _lives(stack)
    away.take([first])
    _wait_reported(stack, {first.service})
    away.take([second])
    _wait_reported(stack, {"database", "cache"})
    pages = stack.ask([{"url": stack.url("/")}] * 6)
    assert {page.status for page in pages} == {200}, str(pages[0])

    # Meanwhile the gateway loses its frontends, since being noticed takes as long.
    if away.fault == "frozen":
        away.take(stack.of("frontend"))
    else:
        away.take(stack.of("gateway"), "edge")
    page: list[Response] = []

    def refused() -> bool:
        page[:] = [stack.get("/")]
        return page[0].status == 503

    wait_until(refused, NOTICED_SECONDS, "the gateway says 503", lambda: str(page[0]))
    assert "not available" in page[0].body, str(page[0])
    if stack.replaces:
        # Nobody is ill for what somebody else lacks: with others in their place it would lack too.
        time.sleep(UNHEALTHY_SECONDS)
        assert {each.health for each in stack.containers()} == {"healthy"}, stack.trouble()
    else:
        _wait_told(stack)
    if away.fault == "frozen":
        asleep = {each.name: each.health for each in map(stack.refreshed, away.taken)}
        assert set(asleep.values()) == {"unhealthy"}, asleep

    away.put_back("frontend", "gateway")
    wait_until(lambda: stack.get("/").status == 200, NOTICED_SECONDS, "the page is back")
    away.put_back(first.service)
    _wait_reported(stack, {second.service})
    away.put_back(second.service)
    _wait_reported(stack, set())
    stack.wait_healthy()
    assert _lives(stack) == before


@pytest.mark.promise(12)
@pytest.mark.disruptive
def test_missing_apis_and_missing_gateway_show(stack: Stack, away: _Away) -> None:
    """Without apis the page says so and stays; without its gateway nobody answers; all recover."""
    before = _lives(stack)
    away.take(stack.of("api"), "frontend")
    answer: list[Response] = []

    def reported() -> bool:
        answer[:] = [stack.get("/api/health", timeout=8)]
        return answer[0].status == 503 and "No api replica answers" in answer[0].body

    wait_until(reported, NOTICED_SECONDS, "the frontend misses the apis", lambda: str(answer[0]))
    assert stack.get("/").status == 200
    away.put_back()
    _wait_reported(stack, set())

    away.take(stack.of("gateway"), "ingress")
    nobody = stack.get("/", timeout=2)
    assert nobody.status == 0, f"{nobody}: the gateway is {away.fault}"
    if away.fault == "frozen":
        assert stack.one("gateway").health == "unhealthy", stack.one("gateway").state
    away.put_back()
    # With the ports that it had.
    answers = stack.ask([{"url": stack.url("/")}, {"url": stack.url("/", "https")}])
    assert [each.status for each in answers] == [200, 200], "\n".join(map(str, answers))
    stack.wait_healthy()
    assert _lives(stack) == before


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
    for service in SERVICES:
        words = _last_words(halted.now(service))
        assert words["ExitCode"] != 0, f"{service}: {words}"
    halted.signal("CONT")
    stack.wait_healthy()
    restarted = [name for name in SERVICES if stack.restarts(halted.containers[name])]
    wanted = SERVICES if stack.replaces else []
    assert restarted == wanted, f"restarted meanwhile: {restarted}, not {wanted}"


@pytest.mark.promise(12)
@pytest.mark.disruptive
@pytest.mark.parametrize("fault", ["frozen", "halted", "killed", "cut off"])
def test_requests_are_answered_while_a_replica_is_away(stack: Stack, fault: str) -> None:
    """One frontend and one api gone, under steady requests: the others answer them."""
    counts = stack.counts()
    victims = [stack.one(service) for service in ("frontend", "api") if counts[service] > 1]
    ids = [each.id for each in victims]
    pids = [str(pid) for each in victims for pid in stack.servers(each)]
    commands = {
        "frozen": ["docker", "pause", *ids],
        "halted": ["kill", "-STOP", *pids],
        "killed": ["kill", "-KILL", *(str(each.pid) for each in victims)],
        "cut off": ["sh", "-c", stack.cutting_off(victims)],
    }
    since = stack.machine.run("date", "+%s").out.strip()
    steps = [{"command": commands[fault] if victims else ["true"], "watch": WATCHED_SECONDS}]
    try:
        report = stack.strain(steps, ["/", "/api/whoami", "/api/items"])
    finally:
        if fault == "frozen":
            stack.unpause(victims)
        elif fault == "halted" and pids:
            stack.machine.try_run("kill", "-CONT", *pids)
        elif fault == "cut off":
            for each in victims:
                stack.rejoin(each)
    step = report["steps"][0]
    assert step["code"] == 0, f"{step['out']}{step['err']}"
    assert step["asked"] > 10 * WATCHED_SECONDS, f"too few to tell: {step['asked']}"
    late = [failure for failure in step["failures"] if failure[0] > INTERVAL_SECONDS]
    # A silent api is found out by waiting for it alone: those that chance upon it wait.
    silences = {"frozen", "halted", *(["cut off"] if stack.replaces else [])}
    silent = fault in silences and counts["api"] > 1
    allowed = [each for each in late if silent and each[2].startswith("/api/")]
    assert late == allowed, (
        f"{len(late)} of {step['asked']} requests failed more than {INTERVAL_SECONDS} s after "
        f"(seconds since, seconds it took, path, what):\n" + "\n".join(map(str, late[:8]))
    )
    most = step["asked"] * 2 / 3 * (1 / counts["api"] + 0.2)
    answered_not = [each for each in step["failures"] if each[2].startswith("/api/")]
    assert len(answered_not) <= most, f"{len(answered_not)} of {step['asked']}: {answered_not[:5]}"

    if fault == "killed":
        for each in victims:
            assert stack.restarts(each) == 1, stack.overview()
    elif "frontend" in {each.service for each in victims}:
        log = stack.machine.run("docker", "logs", "--since", since, stack.one("gateway").id).text
        assert re.search(r"Server pages/frontend\d+ .*DOWN", log), f"not noticed:\n{log[-2000:]}"
    stack.wait_healthy()


# Promise 13


@pytest.mark.promise(13)
@pytest.mark.compose("Swarm knows no start order")
@pytest.mark.parametrize("service", SERVICES)
def test_service_waits_for_the_health_of_those_it_needs(stack: Stack, service: str) -> None:
    """Compose holds each one back until those that it needs are healthy, and no others."""
    for env in ("dev", "prod"):
        needs = stack.compose_config(env)["services"][service].get("depends_on", {})
        # One that is not required may also be away.
        found = {name: (about["condition"], about["required"]) for name, about in needs.items()}
        wanted = dict.fromkeys(NEEDS[service], ("service_healthy", True))
        assert found == wanted, f"{service} in {env}"


@pytest.mark.promise(13)
@pytest.mark.compose("Swarm knows no start order")
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
