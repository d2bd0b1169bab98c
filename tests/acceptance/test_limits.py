"""Promise 10: limits in prod, held by the kernel, and servers that live within them."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import pytest

from .settings import SERVERS, SERVICES

if TYPE_CHECKING:
    from typing import Any

    from .stack import Container, Stack

pytestmark = pytest.mark.promise(10)

MEBIBYTE = 1024**2
PAGE = {"8kB": 8192, "kB": 1024, "": 1}


def _expected(stack: Stack, service: str) -> tuple[int, float]:
    if stack.env == "dev":
        return 0, 0
    return stack.settings.memory(service), stack.settings.cpus(service)


@pytest.mark.parametrize("service", SERVICES)
def test_engine_has_the_limits(stack: Stack, containers: list[Container], service: str) -> None:
    """`docker inspect` shows memory and CPU as set in prod, and none in dev."""
    found = {
        (each.host_config["Memory"], each.host_config["NanoCpus"] / 1e9)
        for each in containers
        if each.service == service
    }
    assert found == {_expected(stack, service)}


@pytest.mark.parametrize("service", SERVICES)
def test_kernel_holds_the_limits(
    stack: Stack,
    containers: list[Container],
    kernel: dict[str, dict[str, Any]],
    service: str,
) -> None:
    """The control group's own files agree."""
    memory, cpus = _expected(stack, service)
    for each in (each for each in containers if each.service == service):
        facts = kernel[each.name]
        assert facts["memory"] == (memory or None), each.name
        assert facts["cpus"] == (pytest.approx(cpus, abs=0.001) if cpus else None), each.name


@pytest.mark.parametrize("service", SERVICES)
def test_swap_is_no_way_around_the_limit(
    stack: Stack, containers: list[Container], service: str
) -> None:
    """Memory and swap together are at most twice the memory limit, and processes are counted."""
    for each in (each for each in containers if each.service == service):
        held = each.host_config
        if stack.env == "prod":
            assert 0 < held["MemorySwap"] <= 2 * held["Memory"], each.name
            assert held["PidsLimit"], f"{each.name} may start any number of processes"
        else:
            assert not held["PidsLimit"], f"{each.name} is limited in dev"


@pytest.mark.parametrize("service", SERVICES)
def test_service_lives_within_its_limit(
    stack: Stack,
    containers: list[Container],
    kernel: dict[str, dict[str, Any]],
    service: str,
) -> None:
    """None was killed for its memory, and none is near its limit while nothing happens."""
    for each in (each for each in containers if each.service == service):
        assert not each.state["OOMKilled"], f"{each.name} was killed for its memory"
        used = kernel[each.name]["memory_used"]
        assert 0 < used < 0.8 * stack.settings.memory(service), f"{each.name} uses {used} bytes"


def test_databases_buffers_fit(stack: Stack) -> None:
    """Shared buffers, a sort in every connection and a maintenance job fit together."""
    names = ["shared_buffers", "max_connections", "work_mem", "maintenance_work_mem"]
    quoted = ", ".join(f"'{name}'" for name in names)
    rows = stack.sql(f"SELECT name, setting, unit FROM pg_settings WHERE name IN ({quoted})")
    values = {name: int(setting) * PAGE[unit] for name, setting, unit in rows}
    assert sorted(values) == sorted(names)
    most = (
        values["shared_buffers"]
        + values["max_connections"] * values["work_mem"]
        + values["maintenance_work_mem"]
    )
    limit = stack.settings.memory("database")
    assert most <= limit, f"{values} come to {most} bytes, the limit is {limit}"
    # A default would fit as well; this was configured, and uses what there is.
    assert values["shared_buffers"] >= limit // 8, f"{values} of {limit}"


def test_database_has_a_connection_for_every_api(stack: Stack) -> None:
    """The pools of as many apis as there may be leave some connections for people."""
    rows = stack.sql(
        "SELECT name, setting FROM pg_settings WHERE name IN "
        "('max_connections', 'superuser_reserved_connections')"
    )
    values = {name: int(setting) for name, setting in rows}
    pool = int(stack.one("api").environment["DATABASE_POOL_SIZE"])
    wanted = pool * stack.settings.number("stack_compose_maximum_replicas")
    room = values["max_connections"] - values["superuser_reserved_connections"]
    assert room > wanted, f"{wanted} wanted by pools of {pool}: {values}"


def test_caches_data_fits(stack: Stack) -> None:
    """Redis evicts at a bound of its own, well before the kernel would kill it."""
    command = " ".join(stack.one("cache").command)
    match = re.search(r"--maxmemory (\d+)mb\b", command)
    assert match, f"no maxmemory in: {command}"
    limit = stack.settings.memory("cache")
    assert limit // 4 <= int(match[1]) * MEBIBYTE <= limit * 3 // 4, f"{command}; limit {limit}"
    assert "--maxmemory-policy allkeys-lru" in command, command


@pytest.mark.parametrize("service", ["gateway", "frontend", "api"])
def test_workers_are_as_many_as_its_cpus(
    stack: Stack,
    containers: list[Container],
    kernel: dict[str, dict[str, Any]],
    service: str,
) -> None:
    """A master aside, there is one process for each core that the service may use."""
    most = math.ceil(stack.settings.cpus(service)) + (service != "api")
    for each in (each for each in containers if each.service == service):
        comms = [process["comm"] for process in kernel[each.name]["processes"]]
        assert 1 <= comms.count(SERVERS[service]) <= most, f"{each.name} runs {comms}"
