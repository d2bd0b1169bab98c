"""Promise 11: whatever is killed comes back by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .machine import wait_until
from .settings import SERVICES

if TYPE_CHECKING:
    from .stack import Stack

pytestmark = pytest.mark.promise(11)

BACK_SECONDS = 60


@pytest.mark.parametrize("service", SERVICES)
def test_restart_policy_is_as_promised(stack: Stack, service: str) -> None:
    """Each container has its service's policy, with no bound on the tries."""
    policies = stack.restart_policies(service)
    wanted = stack.promised_restart(service)
    assert policies, f"{service} has no policy"
    assert all(policy == wanted for policy in policies.values()), policies


@pytest.mark.disruptive
@pytest.mark.parametrize("victim", ["main process", "server"])
@pytest.mark.parametrize("service", SERVICES)
def test_killed_process_comes_back_healthy(stack: Stack, service: str, victim: str) -> None:
    """SIGKILL from the machine: `docker kill` would count as a stop that somebody wanted."""
    container = stack.one(service)
    pid = container.pid if victim == "main process" else stack.servers(container)[0]
    assert victim == "main process" or pid != container.pid, "there is no init above the server"
    stack.machine.run("kill", "-KILL", str(pid))

    def back() -> bool:
        return stack.restarts(container) > 0 and stack.successor(container).health == "healthy"

    def seen() -> str:
        now = stack.refreshed(container)
        return f"{now.state}\n{stack.logs(container.name)}"

    wait_until(back, BACK_SECONDS, f"{container.name} is restarted and healthy", seen)
    now = stack.successor(container)
    assert now.state["StartedAt"] > container.state["StartedAt"]
    assert not now.state["OOMKilled"]
    stack.wait_healthy()
