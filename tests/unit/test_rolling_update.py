"""compose_services replaces one replica, and no request is left unanswered by it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sources import load

from .engine import Container, Engine, Module

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
compose_services: Any = load(ROOT / "roles/stack_deploy/library/compose_services.py")
TIMEOUT_SECONDS = 30
DISCOVERY = {"by": "frontend", "command": ["cat", "list"], "line": "^server {address}:8000 "}
RolloutError = compose_services.RolloutError


def lab(api: int = 2, frontend: int = 2) -> Engine:
    """Return an engine whose two replicated services are to have so many replicas."""
    return Engine({
        "database": {"hash": "now", "image": "db:1", "container_name": "lab-database"},
        "api": {
            "hash": "now", "image": "api:1", "depends_on": {"database": {}},
            "deploy": {"replicas": api},
        },
        "frontend": {
            "hash": "now", "image": "web:1", "depends_on": {"api": {}},
            "deploy": {"replicas": frontend},
        },
    })  # fmt: skip


def start(engine: Engine, old: int = 2, new: int = 0, frontends: int = 2) -> list[Container]:
    """Start the project with so many outdated and current apis; return the outdated ones."""
    engine.add("database")
    outdated = [engine.add("api", hash="before") for _ in range(old)]
    for _ in range(new):
        engine.add("api")
    for _ in range(frontends):
        engine.add("frontend")
    return outdated


def replace(engine: Engine, container: Container | str, **more: Any) -> None:
    """Replace a container as the module does."""
    name = container if isinstance(container, str) else container.name
    params = {
        **{"project": "lab", "directory": "/opt/lab", "files": ["docker-compose.yml"]},
        **{"rendered": {}, "timeout": TIMEOUT_SECONDS, "log_lines": 20},
        **{"noticed": {"api": DISCOVERY}, **more},
    }
    compose_services.time = engine.clock
    project = compose_services.Project(Module(engine, params), "/tmp")
    compose_services.replace(project, project.wanted(), name)


def failure(engine: Engine, container: Container, **more: Any) -> Any:
    """Return the error of a replacement that has to fail, which leaves the services as they were.

    No replica is left over, and none of those that were there is gone.
    """
    before = set(engine.containers)
    with pytest.raises(RolloutError) as caught:
        replace(engine, container, **more)
    assert set(engine.containers) == before
    assert container.status == "running"
    return caught.value


def counts(engine: Engine) -> dict[str, int]:
    """Return how many containers each service has."""
    return {service: len(engine.of(service)) for service in engine.services}


# The way of a replacement that succeeds.


def test_new_replica_serves_before_the_old_one_stops() -> None:
    engine = lab()
    old, other = start(engine)
    replace(engine, old)
    assert old not in engine.containers
    assert [each.hash for each in engine.of("api")] == ["before", "now"]
    assert other in engine.containers
    assert engine.least["api"] == 2


def test_old_replica_is_stopped_by_its_signal_before_it_is_removed() -> None:
    engine = lab()
    old, _ = start(engine)
    replace(engine, old)
    ends = [each for each in engine.commands if old.id in each and "inspect" not in each]
    assert ends == [f"stop {old.id}", f"rm --force {old.id}"]


def test_old_replica_is_stopped_once_every_client_knows_the_new_one() -> None:
    engine = lab()
    old, _ = start(engine)
    slow = engine.of("frontend")[1]
    slow.discovers = 9.0
    begun = engine.clock.now
    replace(engine, old)
    # Two until it is healthy.
    assert 11.0 <= engine.clock.now - begun < 12.0


def test_service_without_clients_to_be_asked_waits_for_health_alone() -> None:
    engine = lab()
    old, _ = start(engine)
    for client in engine.of("frontend"):
        client.discovers = math.inf
    replace(engine, old, noticed={})
    assert old not in engine.containers


def test_replica_without_a_health_check_has_to_run() -> None:
    engine = lab()
    old, _ = start(engine)
    engine.fates["api"] = lambda made: engine.become(made, "none")
    replace(engine, old, noticed={})
    assert [each.health for each in engine.of("api")] == ["healthy", "none"]


def test_replica_that_is_gone_needs_no_replacement() -> None:
    engine = lab()
    start(engine)
    before = list(engine.containers)
    replace(engine, "lab-api-9")
    assert engine.containers == before


# Compose makes one more, and nothing else.


@pytest.mark.parametrize("there", [1, 2, 3])
def test_services_it_depends_on_keep_their_number(there: int) -> None:
    engine = lab(api=2)
    engine.add("database")
    for _ in range(there):
        engine.add("api")
    old = engine.add("frontend", hash="before")
    engine.add("frontend")
    replace(engine, old)
    assert counts(engine) == {"database": 1, "api": there, "frontend": 2}


def test_service_it_depends_on_is_started_once_where_there_is_none() -> None:
    engine = lab(api=3)
    engine.add("database")
    old = engine.add("frontend", hash="before")
    replace(engine, old)
    assert counts(engine) == {"database": 1, "api": 1, "frontend": 1}


def test_services_behind_those_it_depends_on_keep_their_number_too() -> None:
    engine = lab()
    queue = {"hash": "now", "image": "queue:1", "deploy": {"replicas": 5}}
    engine.services["queue"] = queue
    engine.services["api"]["depends_on"] = {"queue": {}}
    for service in ("database", "queue", "queue", "api", "api"):
        engine.add(service)
    old = engine.add("frontend", hash="before")
    replace(engine, old)
    assert counts(engine) == {"database": 1, "api": 2, "frontend": 1, "queue": 2}


def test_services_that_depend_on_each_other_end_the_search() -> None:
    engine = lab()
    engine.services["api"]["depends_on"] = {"frontend": {}, "database": {}}
    old, _ = start(engine)
    replace(engine, old)
    assert counts(engine) == {"database": 1, "api": 2, "frontend": 2}


def test_neither_users_nor_neighbours_are_touched() -> None:
    engine = lab()
    old, _ = start(engine)
    before = [*engine.of("frontend"), *engine.of("database")]
    replace(engine, old)
    assert [*engine.of("frontend"), *engine.of("database")] == before


def test_what_compose_fails_with_is_passed_on() -> None:
    engine = lab()
    old, _ = start(engine)
    engine.failures["compose --project-directory /opt/lab --project-name lab"] = ""
    with pytest.raises(RolloutError, match=r"^docker compose: exit status 1$"):
        replace(engine, old)


def test_container_that_compose_made_and_could_not_start_is_removed() -> None:
    engine = lab()
    old, _ = start(engine)
    error = "pulling\nError response from daemon: port is already allocated\n"

    def fail(_: Container) -> None:
        raise compose_services.RolloutError(f"docker compose: {error.splitlines()[-1]}")

    engine.fates["api"] = fail
    found = failure(engine, old)
    assert str(found) == "docker compose: Error response from daemon: port is already allocated"


def test_compose_that_makes_nothing_is_no_replacement() -> None:
    engine = lab()
    old, _ = start(engine)
    engine.fates["api"] = engine.containers.remove
    assert str(failure(engine, old)) == "Compose made no new container of api"


# A new replica that does not serve.


def ends(engine: Engine, made: Container) -> None:
    """Have a server end by itself."""
    engine.clock.at(1, lambda: setattr(made, "status", "exited"))


def restarts(engine: Engine, made: Container) -> None:
    """Have a server that the engine starts again and again."""
    for seconds in (1, 2):
        engine.clock.at(seconds, lambda: setattr(made, "restarts", made.restarts + 1))


@pytest.mark.parametrize(("fate", "reason", "seconds"), [
    (lambda e, c: e.become(c, "unhealthy", 5), "lab-api-3 is unhealthy", 5),
    (ends, "lab-api-3 ends by itself", 1),
    (lambda _, c: setattr(c, "status", "dead"), "lab-api-3 ends by itself", 0),
    (restarts, "lab-api-3 ends by itself", 2),
    (lambda *_: None, "lab-api-3 is not healthy after 30 s", TIMEOUT_SECONDS),
])  # fmt: skip
def test_replica_that_does_not_become_healthy_is_removed_and_the_old_one_stays(
    fate: Callable[[Engine, Container], None], reason: str, seconds: float
) -> None:
    engine = lab()
    old, _ = start(engine)
    engine.fates["api"] = lambda made: fate(engine, made)
    begun = engine.clock.now
    error = failure(engine, old)
    assert str(error) == reason
    assert seconds <= engine.clock.now - begun <= seconds + 1
    # What it said, before it was removed.
    assert error.report.startswith("== lab-api-3 ")
    assert error.report.endswith("last words of lab-api-3")
    assert "health check: exit 1 " in error.report


def test_replica_that_was_restarted_once_may_become_healthy() -> None:
    engine = lab()
    old, _ = start(engine)

    def stumble(made: Container) -> None:
        made.restarts = compose_services.MOST_RESTARTS - 1
        engine.become(made, "healthy", 3)

    engine.fates["api"] = stumble
    replace(engine, old)
    assert old not in engine.containers


def test_replica_that_somebody_removes_meanwhile_is_named() -> None:
    engine = lab()
    old, _ = start(engine)
    engine.fates["api"] = lambda made: engine.clock.at(2, lambda: engine.containers.remove(made))
    assert str(failure(engine, old)) == "lab-api-3 was removed while it started"


def test_health_that_comes_last_of_all_is_in_time() -> None:
    engine = lab()
    old, _ = start(engine)
    engine.fates["api"] = lambda made: engine.become(made, "healthy", TIMEOUT_SECONDS - 0.5)
    replace(engine, old)
    assert old not in engine.containers


# Clients that do not come to know it.


def test_replica_that_a_client_does_not_discover_is_removed_and_the_old_one_stays() -> None:
    engine = lab()
    old, _ = start(engine)
    engine.of("frontend")[1].discovers = math.inf
    assert str(failure(engine, old)) == "lab-frontend-2 does not know lab-api-3 after 20 s"


def test_client_of_another_release_is_not_waited_for_that_long() -> None:
    """It may have no way to say what it knows."""
    engine = lab()
    old, _ = start(engine, frontends=0)
    for _ in range(3):
        engine.add("frontend", hash="before", discovers=math.inf)
    begun = engine.clock.now
    replace(engine, old)
    # One pause for all of them.
    assert 5.0 <= engine.clock.now - begun < 6.5
    assert old not in engine.containers


@pytest.mark.parametrize("about", [{"health": "unhealthy"}, {"health": "starting"}])
def test_client_that_serves_nobody_is_not_asked(about: dict[str, str]) -> None:
    engine = lab()
    old, _ = start(engine)
    engine.add("frontend", discovers=math.inf, **about)
    replace(engine, old)
    assert old not in engine.containers


def test_address_that_begins_like_the_new_ones_is_another() -> None:
    engine = lab()
    old, _ = start(engine)

    def start_at(made: Container) -> None:
        made.address = "10.0.0.2"
        engine.become(made, "healthy", 1)

    engine.fates["api"] = start_at
    engine.said["frontend"] = "server 10.0.0.21:8000 up\nserver 10a0b0c2:8000 up\n"
    assert "does not know lab-api-3" in str(failure(engine, old))
    engine.said["frontend"] += "server 10.0.0.2:8000 up\n"
    replace(engine, old)
    assert old not in engine.containers


# What a killed run left.


def test_spare_of_a_killed_run_is_the_replacement() -> None:
    engine = lab()
    old, _ = start(engine, old=2, new=1)
    spare = engine.of("api")[2]
    replace(engine, old)
    assert spare in engine.containers
    assert counts(engine)["api"] == 2
    assert "up" not in " ".join(engine.commands).split()


def test_spare_that_still_starts_is_waited_for() -> None:
    engine = lab()
    old, _ = start(engine)
    spare = engine.add("api", health="starting", healthy_since=math.inf)
    engine.become(spare, "healthy", 8)
    replace(engine, old)
    assert engine.clock.now >= 1_008
    assert engine.least["api"] == 2


def test_spare_that_is_unhealthy_keeps_the_old_one() -> None:
    engine = lab()
    old, _ = start(engine)
    engine.add("api", health="unhealthy")
    assert str(failure(engine, old)) == "lab-api-3 is unhealthy"


@pytest.mark.parametrize("status", ["created", "exited", "dead"])
def test_container_that_a_killed_run_did_not_start_is_removed(status: str) -> None:
    engine = lab()
    old, _ = start(engine)
    left = engine.add("api", status=status, health="none")
    replace(engine, old)
    assert left not in engine.containers
    assert counts(engine)["api"] == 2
    assert engine.least["api"] == 2


@pytest.mark.parametrize("status", ["restarting", "paused"])
def test_container_that_may_run_again_is_not_removed(status: str) -> None:
    engine = lab(api=3)
    old, _ = start(engine)
    other = engine.add("api", status=status, health="starting")
    replace(engine, old)
    assert other in engine.containers


def test_of_more_replicas_than_are_to_be_the_old_one_goes() -> None:
    engine = lab(api=1)
    old, other = start(engine)
    replace(engine, old)
    assert engine.of("api") == [other]
    assert engine.least["api"] == 1


def test_last_replica_is_replaced_even_where_none_is_to_be() -> None:
    engine = lab(api=0)
    (old,) = start(engine, old=1)
    replace(engine, old)
    assert [each.hash for each in engine.of("api")] == ["now"]
    assert engine.least["api"] == 1


def test_stopped_replica_of_an_older_image_is_replaced() -> None:
    """An image of the same name was pulled anew: the hash, which holds the name, is the same."""
    engine = lab()
    engine.add("database")
    engine.add("api", image="sha256:before")
    old = engine.add("api", image="sha256:before", status="exited")
    engine.add("frontend")
    replace(engine, old)
    assert old not in engine.containers
    assert counts(engine)["api"] == 2


# Whatever there is.


@pytest.mark.parametrize("about", [
    {"health": "unhealthy"}, {"health": "starting"}, {"status": "exited", "health": "none"},
])  # fmt: skip
def test_replica_that_serves_is_not_given_up_for_one_that_does_not(about: dict[str, str]) -> None:
    """Of more than are to be, the other one is as outdated and does not serve."""
    engine = lab(api=1)
    (old,) = start(engine, old=1)
    other = engine.add("api", hash="before", **about)
    for container in (old, other):
        replace(engine, container)
    assert [each.hash for each in engine.of("api")] == ["now"]
    assert engine.least["api"] == 1


@given(
    wanted=st.integers(1, 4),
    old=st.integers(1, 4),
    new=st.integers(0, 3),
    left=st.sampled_from(["", "created", "exited"]),
    bad=st.sets(st.integers(0, 8)),
    ill=st.sets(st.integers(0, 3)),
)
def test_no_fewer_serve_than_before_and_than_are_to_be(
    wanted: int, old: int, new: int, left: str, bad: set[int], ill: set[int]
) -> None:
    """`ill` are outdated ones that do not serve, `bad` new ones that become unhealthy."""
    engine = lab(api=wanted)
    outdated = start(engine, old=old, new=new)
    if left:
        engine.add("api", status=left, health="none")
    for number in ill & set(range(old)):
        outdated[number].health = "unhealthy"
        outdated[number].status = "running" if number % 2 else "exited"
    before = engine.serving("api")
    made: list[Container] = []

    def decide(container: Container) -> None:
        engine.become(container, "unhealthy" if len(made) in bad else "healthy", 1)
        made.append(container)

    engine.fates["api"] = decide
    for container in outdated:
        try:
            replace(engine, container)
        except RolloutError:
            break
    else:
        assert all(each.hash == "now" for each in engine.of("api"))
        assert len(engine.of("api")) == max(new, min(wanted, old + new))
    floor = min(before, wanted)
    assert engine.least.get("api", before) >= floor
    assert engine.serving("api") >= floor
