"""The machine itself is rebooted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.acceptance.machine import wait_until
from tests.drawing import RESTART

if TYPE_CHECKING:
    from tests.acceptance.stack import Stack

BOOT_SECONDS = 90


@pytest.mark.disruptive
def test_what_a_reboot_leaves_comes_back(stack: Stack) -> None:
    """Each service is back as its restart policy says; then one `up` makes the stack whole."""
    item = stack.create_item("kept through a reboot")
    machine = stack.machine
    before = (
        machine.read("/proc/sys/kernel/random/boot_id"),
        machine.run("stat", "-c", "%Y", "/proc/1").out,
    )
    # The connection may end before the answer does.
    machine.try_run("systemctl", "reboot")

    def booted() -> bool:
        started = machine.try_run("stat", "-c", "%Y", "/proc/1", seconds=5)
        return started.code == 0 and started.out != before[1]

    wait_until(booted, BOOT_SECONDS, "the machine is back", pause=1)
    print(stack.compose("ps", "-a").out)
    import time

    time.sleep(40)
    print(stack.compose("ps", "-a").out)
    print(stack.get("/api/health"))
    assert 0
