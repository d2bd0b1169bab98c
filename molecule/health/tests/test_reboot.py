"""The machine itself is rebooted."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.machine import wait_until

if TYPE_CHECKING:
    from tests.acceptance.stack import Stack

BOOT_SECONDS = 90


@pytest.mark.disruptive
def test_stack_is_back_by_itself_after_a_reboot(stack: Stack) -> None:
    """Every container is started by the engine that boots, and is healthy, with its data.

    The database too, whose policy is on-failure: with live-restore the engine does not stop it on
    the way down, so it did not end by itself and counts as failed.
    """
    machine = stack.machine
    item = stack.create_item("kept through a reboot")
    lives = {each.name: each.life for each in stack.containers()}
    booted = _boot(stack)
    # The connection may end before the command does, and while there is no sshd, testinfra raises.
    with suppress(RuntimeError):
        machine.try_run("systemctl", "reboot")
    wait_until(lambda: _boot(stack) not in ("", booted), BOOT_SECONDS, "the machine is back")
    stack.wait_healthy()
    now = {each.name: each.life for each in stack.containers()}
    assert now.keys() == lives.keys()
    same = [name for name in lives if now[name] == lives[name]]
    assert not same, f"not restarted, so was there a reboot? {same}"
    answer = stack.get(item)
    assert answer.status == 200, f"{answer}\n{stack.logs('database')}"
    stack.send("DELETE", item)


def _boot(stack: Stack) -> str:
    """Tell one boot from another: when the first process began, or nothing while it is away."""
    with suppress(RuntimeError):
        return stack.machine.try_run("stat", "-c", "%Y", "/proc/1", seconds=5).out
    return ""
