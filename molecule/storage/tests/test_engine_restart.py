"""What an engine that stops and starts leaves alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.machine import wait_until

if TYPE_CHECKING:
    from tests.acceptance.stack import Stack


@pytest.mark.disruptive
def test_data_and_containers_outlive_an_engine_restart(stack: Stack) -> None:
    """Every server goes on while the engine is away, and afterwards nothing was lost or restarted.

    They do not find each other by name meanwhile: that is the engine's work.
    """
    item = stack.create_item("kept through an engine's restart")
    containers = stack.containers()
    stack.machine.run("systemctl", "stop", "docker.service", "docker.socket")
    try:
        assert stack.machine.try_run("docker", "ps").code != 0
        for each in containers:
            stack.machine.run("kill", "-0", str(each.pid))
    finally:
        stack.machine.run("systemctl", "start", "docker.service")
    stack.wait_healthy()
    lives = {each.name: each.life for each in containers}
    assert {each.name: each.life for each in stack.containers()} == lives
    # Every frontend has to hear from the engine's DNS again.
    wait_until(
        lambda: {answer.status for answer in stack.ask([{"url": stack.url(item)}] * 9)} == {200},
        15,
        "every frontend has the item again",
        lambda: f"{stack.get(item)}\n{stack.logs('frontend')}",
    )
    stack.send("DELETE", item)
    # On networks that an engine has taken over from the one before, no container can be moved.
    stack.compose("restart", seconds=180)
    stack.wait_healthy()
