"""The machine itself is rebooted, or its engine restarted."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.machine import wait_until
from tests.acceptance.settings import NEEDS, SERVICES

if TYPE_CHECKING:
    from tests.acceptance.stack import Stack
    from tests.controller import Controller

BOOT_SECONDS = 90

pytestmark = pytest.mark.disruptive


def test_stack_is_back_as_it_was_after_a_reboot(stack: Stack) -> None:
    """The same containers, an api more than the file has, in order, with the data."""
    stack.compose("up", "-d", "--no-recreate", "--wait", f"--scale=api={stack.counts()['api'] + 1}")
    item = stack.create_item("kept through a reboot")
    before = {each.name: each for each in stack.containers()}
    reboot(stack)
    stack.wait_healthy()
    now = {each.name: each for each in stack.containers()}
    assert {name: each.id for name, each in now.items()} == {
        name: each.id for name, each in before.items()
    }
    same = [name for name in now if now[name].life == before[name].life]
    assert not same, f"not restarted, so was there a reboot? {same}"
    answer = stack.get(item)
    assert answer.status == 200, f"{answer}\n{stack.logs('database')}"
    stack.send("DELETE", item)
    for name in ("", "-watchdog"):
        wait_until(
            lambda n=name: unit(stack, n)["ActiveState"] == "active", 60, f"{name} is active"
        )


def test_services_start_and_stop_in_order(stack: Stack) -> None:
    """In the order of the unit's own lines; and the database has ended well.

    Gateway and frontends, which are always to run, are started by the engine before it.
    """
    since = stack.machine.run("date", "+%s").out.strip()
    reboot(stack)
    wait_until(lambda: unit(stack)["ActiveState"] == "active", 120, "its unit is active")
    journal = stack.machine.run(
        "journalctl", f"--unit={stack.unit}.service", f"--since=@{since}", "--output=cat"
    )
    lines = [line.strip() for line in journal.lines()]
    names = {service: [each.name for each in stack.of(service)] for service in SERVICES}

    def moments(service: str, what: str) -> list[int]:
        return [
            number
            for number, line in enumerate(lines)
            for name in names[service]
            if line == f"Container {name}  {what}"
        ]

    # The engine may be first with the database, if it went down before it had noted the stop.
    assert len(moments("api", "Starting")) == len(names["api"]), journal
    for needed in NEEDS["api"]:
        assert moments(needed, "Healthy")[0] < min(moments("api", "Starting")), journal
    for service, needs in NEEDS.items():
        for needed in needs:
            assert max(moments(service, "Stopped")) < min(moments(needed, "Stopping")), journal
    log = stack.machine.run("docker", "logs", "--since", since, stack.one("database").id).text
    assert "database system was shut down at" in log, log
    assert "interrupted" not in log, log
    assert "recovery" not in log, log


def test_service_that_was_stopped_stays_stopped(stack: Stack) -> None:
    """As docker compose stop has it without a reboot, too."""
    stack.compose("stop", "api")
    reboot(stack)
    wait_until(lambda: unit(stack)["ActiveState"] == "active", 120, "its unit is active")
    found = {each.name: each.state["Status"] for each in stack.containers()}
    apis = {each.name for each in stack.of("api")}
    assert {name for name, status in found.items() if status != "running"} == apis
    # Which is no longer so once somebody has started it.
    stack.compose("start", "api")
    stack.wait_healthy()
    reboot(stack)
    stack.wait_healthy()


def test_stack_that_is_down_stays_down(stack: Stack, controller: Controller) -> None:
    down = controller.play("playbooks/down.yml")
    try:
        assert down.code == 0, down.output
        assert unit(stack) == {"ActiveState": "inactive", "UnitFileState": "disabled"}
        assert unit(stack, "-watchdog")["ActiveState"] == "inactive"
        reboot(stack)
        stack.machine.try_run("systemctl", "is-system-running", "--wait", seconds=60)
        assert stack.containers() == []
        # Nor does whoever starts the unit by hand bring up what there is not.
        stack.machine.run("systemctl", "start", stack.unit)
        assert stack.containers() == []
        stack.machine.run("systemctl", "stop", stack.unit)
    finally:
        controller.deploy("prod")
    assert unit(stack) == {"ActiveState": "active", "UnitFileState": "enabled"}
    assert unit(stack, "-watchdog")["ActiveState"] == "active"


def test_engine_restart_is_none_of_the_stack(stack: Stack) -> None:
    """No container is restarted by it, neither by the engine nor by the units."""
    lives = {each.name: each.life for each in stack.containers()}
    began = stack.machine.run("date", "+%s").out.strip()
    stack.machine.run("systemctl", "restart", "docker.service", seconds=60)
    stack.wait_healthy()
    assert {each.name: each.life for each in stack.containers()} == lives
    assert unit(stack)["ActiveState"] == "active"
    assert unit(stack, "-watchdog")["ActiveState"] == "active"
    journal = stack.machine.run(
        "journalctl", f"--unit={stack.unit}.service", f"--since=@{began}", "--output=cat", "--quiet"
    )
    assert journal.text == ""
    # On networks that an engine has taken over from the one before, no container can be moved.
    stack.compose("restart", seconds=180)
    stack.wait_healthy()


def unit(stack: Stack, more: str = "") -> dict[str, str]:
    """How the stack's unit is, or its watchdog's; while the machine is away, nothing."""
    asked = ["systemctl", "show", "--property=ActiveState", f"{stack.unit}{more}.service"]
    if not more:
        asked.insert(2, "--property=UnitFileState")
    with suppress(RuntimeError):
        lines = stack.machine.try_run(*asked, seconds=10).lines()
        return dict(line.split("=", 1) for line in lines)
    return {"ActiveState": "away"}


def reboot(stack: Stack) -> None:
    """Reboot the machine, and wait until it can be reached again."""
    booted = _boot(stack)
    # The connection may end before the command does, and while there is no sshd, testinfra raises.
    with suppress(RuntimeError):
        stack.machine.try_run("systemctl", "reboot")
    wait_until(lambda: _boot(stack) not in ("", booted), BOOT_SECONDS, "the machine is back")


def _boot(stack: Stack) -> str:
    """Tell one boot from another: when the first process began, or nothing while it is away."""
    with suppress(RuntimeError):
        return stack.machine.try_run("stat", "-c", "%Y", "/proc/1", seconds=5).out
    return ""
