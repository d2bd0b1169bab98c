"""Promise 10: limits in prod, held by the kernel, and servers that live within them."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import pytest

from .settings import SERVERS, SERVICES
from .stack import place

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
            # Each server has some ten; what is far above that bounds nothing.
            assert 0 < (held["PidsLimit"] or 0) <= 1024, f"{each.name}: {held['PidsLimit']}"
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
    names = ["shared_buffers", "max_connections", "work_mem", "hash_mem_multiplier"]
    names += ["maintenance_work_mem", "max_parallel_workers_per_gather"]
    quoted = ", ".join(f"'{name}'" for name in names)
    rows = stack.sql(f"SELECT name, setting, unit FROM pg_settings WHERE name IN ({quoted})")
    values = {name: float(setting) * PAGE[unit] for name, setting, unit in rows}
    assert sorted(values) == sorted(names)
    most = (
        values["shared_buffers"]
        + values["max_connections"] * values["work_mem"] * values["hash_mem_multiplier"]
        + values["maintenance_work_mem"]
    )
    limit = stack.settings.memory("database")
    assert most <= limit, f"{values} come to {most} bytes, the limit is {limit}"
    # A default would fit as well; this was configured, and uses what there is.
    assert values["shared_buffers"] > limit // 8, f"{values} of {limit}"
    # A parallel worker would take as much again.
    assert values["max_parallel_workers_per_gather"] == 0, values


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


# Beyond the limits

# In dev nothing is held; more than this would be too much of a small machine all the same.
MOST_IN_DEV = 600 * MEBIBYTE
# Room for what a control group may use beyond its share: a period's worth, and rounding.
CPU_TOLERANCE = 1.15
LOOP_SECONDS = 2
# Less often than this a container's own health checks are held up by the CPU limit.
THROTTLED_OFTEN = 5
# tail keeps all of a line that does not end.
ALLOCATE = 'head -c "$1" /dev/zero | tail >/dev/null'
SPIN = "i=0; while [ $i -lt $1 ]; do (while :; do :; done) & i=$((i+1)); done; wait"
# What was started is gone with the shell: nothing is left behind in the container.
FORK = (
    "trap 'kill -KILL 0' EXIT; "
    "i=0; while [ $i -lt 300 ]; do sleep 9 & i=$((i+1)); done; echo all; trap - EXIT; kill -KILL 0"
)
SERVED = ["/", "/api/whoami", "/api/items"]


def _inside(container: Container, script: str, *words: object) -> list[str]:
    return ["docker", "exec", container.id, "sh", "-c", script, "sh", *map(str, words)]


def _grown(step: dict[str, Any], count: str) -> dict[str, int]:
    """By container, how much the kernel's count has grown; what is gone by then is left out."""
    before, after = step["before"], step["after"]
    grown = {name: after[name][count] - before[name][count] for name in before}
    return {name: number for name, number in grown.items() if number}


@pytest.mark.disruptive
@pytest.mark.parametrize("service", SERVICES)
def test_memory_above_the_limit_is_killed_there_alone(stack: Stack, service: str) -> None:
    """Who allocates it is killed; where the server is chosen, its container is back by itself."""
    victim = stack.one(service)
    swap = int(stack.machine.run("awk", "/^SwapTotal/ {print $2 * 1024}", "/proc/meminfo").out)
    limit = stack.settings.memory(service)
    amount = limit * 11 // 10 + min(swap, limit)
    lives = {each.place: each.life for each in stack.containers()}
    allocate = {"command": _inside(victim, ALLOCATE, amount), "watch": 0}
    if stack.env == "dev":
        allocate["command"] = _inside(victim, ALLOCATE, min(amount, MOST_IN_DEV))
        step = stack.strain([allocate])["steps"][0]
        assert (step["code"], _grown(step, "oom_kills")) == (0, {}), step["err"]
        return

    # The kernel kills the largest: from the second step on, that is the server.
    choose = f"echo 1000 >/proc/{stack.servers(victim)[0]}/oom_score_adj"
    back = stack.until_back(victim)
    shells = [["sh", "-c", choose], allocate["command"], ["timeout", "20", "sh", "-c", back]]
    report = stack.strain([allocate, *({"command": each, "watch": 0} for each in shells)])
    first, chosen, second, restarted = report["steps"]
    assert first["code"] == 137, (
        f"{victim.name} could have {amount} bytes, its limit is {limit}: "
        f"exit {first['code']} {first['err']}"
    )
    assert _grown(first, "oom_kills") == {victim.name: 1}, first["after"]
    assert first["after"][victim.name]["peak"] in (0, pytest.approx(limit, rel=0.02))
    assert chosen["code"] == 0, chosen["err"]
    assert second["code"] != 0, f"{victim.name}'s second allocation went well"
    assert restarted["code"] == 0, f"{victim.name} is not back\n{stack.logs(victim.name)}"
    events = [tuple(event) for event in report["events"]]
    hit = {place(name) for _, name, _ in events}
    assert hit == {victim.place}, f"others were hit: {events}"
    assert ("oom", victim.name, "") in events, events

    stack.wait_healthy()
    now = {each.place: each for each in stack.containers()}
    assert stack.restarts(victim) == 1
    assert not now[victim.place].state["OOMKilled"], now[victim.place].state
    changed = {each for each in lives if now[each].life != lives[each]}
    assert changed == {victim.place}


@pytest.mark.disruptive
@pytest.mark.parametrize("service", ["frontend", "api", "cache"])
def test_busy_loops_get_its_share_of_the_cpu_and_no_more(stack: Stack, service: str) -> None:
    """With a loop for every core in there, the limit holds them, and the stack goes on serving."""
    victim = stack.one(service)
    cores = stack.machine.run("nproc").out.strip()
    spin = ["timeout", LOOP_SECONDS, "sh", "-c", SPIN, "sh", cores]
    command = ["docker", "exec", victim.id, *map(str, spin)]
    report = stack.strain([{"command": command, "watch": 0}], SERVED)
    step = report["steps"][0]
    assert step["code"] == 124, f"exit {step['code']}: {step['out']}{step['err']}"
    before, after = step["before"][victim.name], step["after"][victim.name]
    used = (after["cpu_seconds"] - before["cpu_seconds"]) / step["seconds"]
    throttled = after["throttled"] - before["throttled"]
    said = f"{victim.name} had {used:.2f} cores and was held up {throttled} times"
    if stack.env == "dev":
        assert not throttled, said
    else:
        share = stack.settings.cpus(service)
        assert used <= share * CPU_TOLERANCE, f"{said}; its share is {share}"
        assert after["periods"] > before["periods"], f"{said}: the kernel does not hold it"
        # Where others take all of the machine, it is not the limit that holds the loops.
        full = step["idle"] < 0.05 * step["seconds"] and used < share
        assert throttled >= THROTTLED_OFTEN or full, f"{said}; its share is {share}"
    assert step["asked"] >= 10, step["asked"]
    assert not step["failures"], f"{len(step['failures'])} of {step['asked']}: {step['failures']}"
    assert not report["events"], report["events"]


@pytest.mark.disruptive
def test_processes_above_the_limit_are_refused_there_alone(stack: Stack) -> None:
    """No container can start 300 of them in prod; it and all others go on."""
    one_each = [stack.one(service) for service in SERVICES]
    steps = [{"command": _inside(each, FORK), "watch": 0} for each in one_each]
    report = stack.strain(steps, SERVED)
    for each, step in zip(one_each, report["steps"], strict=True):
        refused = _grown(step, "forks_refused")
        all_started = step["out"].strip() == "all"
        if stack.env == "dev":
            assert (all_started, refused) == (True, {}), f"{each.name}: {step['err']} {refused}"
        else:
            said = f"{each.name}: {step['out']}{step['err']} {refused}"
            assert not all_started, said
            assert set(refused) == {each.name}, said
        assert not step["failures"], step["failures"]
    assert not report["events"], report["events"]
