"""The stack on a bare machine: bringing it up, and looking at what came of it."""

from __future__ import annotations

import re
from pathlib import Path

from bench.machine import CHECKOUT, USER, Machine, Timed
from bench.shell import BenchError, Output

STACK = "/opt/stackyard"
SERVICES = ("gateway", "frontend", "api", "database", "cache")
RECAP = re.compile(r"^\S+\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)")


def make_up(machine: Machine, log: Path | None = None) -> Timed:
    """Type `make up` as the user."""
    return machine.time("make", "up", user=USER, directory=CHECKOUT, log=log)


def changed(output: Output) -> int:
    """Return how many tasks a run says it changed; BenchError where it does not say."""
    counts = [int(found[1]) for _, line in output.lines if (found := RECAP.match(line))]
    if not counts:
        raise BenchError("The run printed no recap with changed=.")
    return sum(counts)


def steps(output: Output) -> dict[str, float]:
    """Return the seconds of each task, longest first; what is skipped counts for the next one.

    Ansible prints a task's heading together with its first result, so that a task took from the
    last line before its heading to its own last line.
    """
    took: dict[str, float] = {}
    name, begun, ended = "before the first task", 0.0, 0.0
    for at, line in output.lines:
        if line.startswith(("TASK [", "RUNNING HANDLER [", "PLAY RECAP")):
            took[name] = took.get(name, 0.0) + ended - begun
            name, begun = line.strip(" *"), ended
        if line.strip():
            ended = at
    return dict(sorted(took.items(), key=lambda item: -item[1]))


def sizes(machine: Machine) -> dict[str, int]:
    """Return the bytes of the base image and of each service's image, base included."""
    found = {}
    lines = machine.do(
        *("docker", "image", "ls", "--no-trunc", "--filter=dangling=false"),
        "--format={{.Repository}} {{.ID}}",
    ).splitlines()
    for line in lines:
        repository, identity = line.split()
        name = repository.rsplit("/", 1)[-1]
        if name in ("base", *SERVICES):
            size = machine.do("docker", "image", "inspect", "--format={{.Size}}", identity)
            found[name] = int(size)
    if missing := {"base", *SERVICES} - found.keys():
        raise BenchError(f"{machine.name} has no image for {', '.join(sorted(missing))}.")
    return found
