"""A deploy that does not end healthy says why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.stack import Stack
    from tests.controller import Controller


@pytest.mark.disruptive
def test_a_failed_deploy_shows_health_output_and_log_lines(
    stack: Stack, controller: Controller
) -> None:
    """The frozen cache makes the apis unhealthy, and a change to them makes Compose wait."""
    cache = stack.one("cache")
    stack.machine.run("docker", "pause", cache.id)
    try:
        run = controller.play(
            *("site.yml", "-e", "env=prod", "-e", "stack_deploy_timeout=30"),
            *("-e", "stack_compose_api_memory=640M"),
        )
    finally:
        stack.machine.run("docker", "unpause", cache.id)
    assert run.code != 0, run.output
    report = run.output.partition("is not healthy")[2]
    assert f"/{cache.name} paused" in report, run.output
    assert "health check: exit" in report, run.output
    assert "Ready to accept connections" in report, run.output
    controller.deploy("prod")
    again = controller.deploy("prod")
    assert again.changed == 0, again.output
