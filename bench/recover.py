"""Time to healthy after a `docker compose down`."""

from __future__ import annotations

from typing import Any

from bench.figures import Figure, median_of
from bench.machine import Machine
from bench.shell import say
from bench.stack import STACK


def measure(machine: Machine, runs: int) -> tuple[list[Figure], dict[str, Any]]:
    """Take the stack down and up again, with Compose alone; seconds until all is healthy."""
    down, up = [], []
    for number in range(1, runs + 1):
        down.append(machine.time("docker", "compose", "down", directory=STACK).seconds)
        up.append(machine.time("docker", "compose", "up", "-d", "--wait", directory=STACK).seconds)
        say(f"  Recovery {number} of {runs}: down {down[-1]:.1f} s, healthy after {up[-1]:.1f} s")
    figures = [
        median_of("down", down, "s"),
        median_of("healthy after down", up, "s"),
    ]
    return figures, {"down_s": down, "healthy_s": up}
