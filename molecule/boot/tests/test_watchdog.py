"""The watchdog on a lab machine, as a service: what is frozen comes back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.machine import wait_until

if TYPE_CHECKING:
    from tests.acceptance.stack import Container, Stack

pytestmark = [pytest.mark.disruptive, pytest.mark.watched]

# Three failed checks, 30 s, ten to end, and the start.
BACK_SECONDS = 120
# The database has a minute to end.
DATABASE_SECONDS = 180


def test_frozen_server_is_restarted(stack: Stack) -> None:
    """One of two apis is halted, from the machine: it alone is restarted, and the journal says."""
    began = moment(stack)
    victim = stack.one("api")
    before = lives(stack)
    freeze(stack, victim)
    wait_restarted(stack, victim, BACK_SECONDS)
    stack.wait_healthy()
    assert changed(stack, before) == [victim.name]
    # A restart that was asked for is none of the restart policy's.
    assert stack.refreshed(victim).data["RestartCount"] == victim.data["RestartCount"]
    lines = said(stack, began)
    assert [line for line in lines if line.startswith(f"{victim.name}: unhealthy for 3")], lines
    wait_until(
        lambda: f"{victim.name}: healthy again" in said(stack, began), 10, "it says that it is back"
    )
    assert not [line for line in lines if not line.startswith(f"{victim.name}: ")], lines


def test_frozen_database_is_restarted_and_nobody_else(stack: Stack) -> None:
    """The apis are ill meanwhile, for no fault of their own, and so are those behind them."""
    item = stack.create_item("kept by a frozen database")
    began = moment(stack)
    victim = stack.one("database")
    before = lives(stack)
    freeze(stack, victim)
    wait_restarted(stack, victim, DATABASE_SECONDS)
    stack.wait_healthy()
    assert changed(stack, before) == [victim.name]
    lines = said(stack, began)
    for each in stack.of("api"):
        excuse = f"{each.name}: unhealthy, left alone: it needs database, not healthy either"
        assert lines.count(excuse) == 1, lines
    assert stack.get(item).status == 200
    stack.send("DELETE", item)


def test_killed_watchdog_is_back(stack: Stack) -> None:
    """Its own supervisor is systemd, which also notices when it hangs."""
    unit = f"{stack.unit}-watchdog.service"
    ask = ("systemctl", "show", "--value", "--property=MainPID", unit)
    pid = stack.machine.run(*ask).out.strip()
    stack.machine.run("kill", "-KILL", pid)
    wait_until(
        lambda: stack.machine.run(*ask).out.strip() not in ("0", pid), 30, "it is started again"
    )
    ready = ("systemctl", "is-active", "--quiet", unit)
    wait_until(lambda: stack.machine.try_run(*ready).code == 0, 10, "it says that it is ready")
    timeout = stack.machine.run("systemctl", "show", "--value", "--property=WatchdogUSec", unit)
    assert timeout.out.strip() == "5min"


def test_stopped_container_is_left_alone(stack: Stack) -> None:
    """Somebody wanted that; and those who need it are told to wait."""
    began = moment(stack)
    victim = stack.one("cache")
    stack.machine.run("docker", "stop", victim.id)
    excuses = {
        f"{each.name}: unhealthy, left alone: it needs cache, not healthy either"
        for each in stack.of("api")
    }
    wait_until(lambda: excuses <= set(said(stack, began)), 60, "it leaves the apis alone")
    assert stack.refreshed(victim).state["Status"] == "exited"
    stack.machine.run("docker", "start", victim.id)
    stack.wait_healthy()


def freeze(stack: Stack, container: Container) -> None:
    """Halt the container's server, every process of it."""
    stack.machine.run("kill", "-STOP", *map(str, stack.servers(container)))


def wait_restarted(stack: Stack, container: Container, seconds: float) -> None:
    """Wait until it was restarted and is healthy."""

    def back() -> bool:
        now = stack.refreshed(container)
        return now.life != container.life and now.health == "healthy"

    wait_until(back, seconds, f"{container.name} is restarted and healthy", stack.trouble, pause=1)


def lives(stack: Stack) -> dict[str, tuple[str, str, int]]:
    """Every container's life, by its name."""
    return {each.name: each.life for each in stack.containers()}


def changed(stack: Stack, before: dict[str, tuple[str, str, int]]) -> list[str]:
    """Who has another life by now."""
    now = lives(stack)
    assert now.keys() == before.keys()
    return [name for name in now if now[name] != before[name]]


def moment(stack: Stack) -> str:
    """Where the watchdog's journal ends now."""
    command = ("journalctl", f"--unit={stack.unit}-watchdog.service", "-n1", "--output=json")
    return str(json.loads(stack.machine.run(*command).out)["__CURSOR"])


def said(stack: Stack, since: str) -> list[str]:
    """What the watchdog has said since then."""
    command = ("journalctl", f"--unit={stack.unit}-watchdog.service", "--output=cat", "--quiet")
    return stack.machine.run(*command, f"--after-cursor={since}").lines()
