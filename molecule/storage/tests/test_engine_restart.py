"""What an engine that restarts, or stops and starts, leaves alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.stack import Stack


@pytest.mark.disruptive
def test_data_and_containers_outlive_an_engine_restart(stack: Stack) -> None:
    """Containers go on serving while the engine is away, and nothing is lost or restarted."""
    item = stack.create_item("kept through an engine's restart")
    try:
        lives = {each.name: each.life for each in stack.containers()}
        stack.machine.run("systemctl", "stop", "docker.service", "docker.socket")
        try:
            assert stack.machine.try_run("docker", "ps").code != 0
            answer = stack.get(item)
            assert answer.status == 200, f"with the engine stopped: {answer}"
        finally:
            stack.machine.run("systemctl", "start", "docker.service")
        stack.wait_healthy()
        assert {each.name: each.life for each in stack.containers()} == lives
        answer = stack.get(item)
        assert answer.status == 200, f"{answer}\n{stack.logs('database')}"
    finally:
        stack.send("DELETE", item)
