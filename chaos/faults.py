"""What can be done to a running stack. Each fault ends what it began, whatever happens."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from tests.acceptance.machine import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from tests.acceptance.stack import Container, Stack
    from tests.controller import Controller

SERVICES = ("gateway", "frontend", "api", "database", "cache")
# How long a fault lasts that ends by itself: from, to.
SECONDS = (3.0, 10.0)
FULL_SECONDS = 6.0
# Three failed checks, the watchdog's 30 s, the time to end, and the start.
HUNG_SECONDS = 150.0
# Free on the small disk before it is filled.
ROOM = 96 << 20
# Has PostgreSQL begin a new segment of its log.
SPEND = ["SELECT pg_switch_wal()", "SELECT pg_logical_emit_message(true, 'chaos', 'x')"]
# Where a run may be killed: at the task of that number, counted from preflight.
TASKS = (25, 52)


class Lab(NamedTuple):
    """Where faults strike."""

    stack: Stack
    controller: Controller
    random: Random
    # What the stack was deployed with.
    given: tuple[str, ...]

    def any_of(self, *services: str) -> Container:
        """Choose a container, of these services or of all."""
        found = [each for each in self.stack.containers() if each.service in (services or SERVICES)]
        return self.random.choice(found)

    def seconds(self) -> float:
        """Choose how long a fault lasts."""
        return self.random.uniform(*SECONDS)


def kill(lab: Lab) -> str:
    """End a container's main process, with SIGKILL from the machine."""
    victim = lab.any_of()
    lab.stack.machine.run("kill", "-KILL", str(victim.pid))
    return victim.name


def freeze(lab: Lab) -> str:
    """Halt a container's server for some seconds."""
    victim, seconds = lab.any_of(), lab.seconds()
    pids = [str(pid) for pid in lab.stack.servers(victim)]
    lab.stack.machine.run("kill", "-STOP", *pids)
    try:
        time.sleep(seconds)
    finally:
        lab.stack.machine.try_run("kill", "-CONT", *pids)
    return f"{victim.name} for {seconds:.0f} s"


def hang(lab: Lab) -> str:
    """Halt a container's server and leave it to the watchdog."""
    victim = lab.any_of("frontend", "api", "cache")
    pids = [str(pid) for pid in lab.stack.servers(victim)]
    lab.stack.machine.run("kill", "-STOP", *pids)

    def restarted() -> bool:
        return lab.stack.refreshed(victim).life != victim.life

    try:
        wait_until(restarted, HUNG_SECONDS, f"the watchdog restarts {victim.name}", pause=1)
    finally:
        lab.stack.machine.try_run("kill", "-CONT", *pids)
    return victim.name


def cut_off(lab: Lab) -> str:
    """Take a container off all of its networks for some seconds.

    Not by `docker network disconnect`: an engine that was restarted under its containers cannot.
    """
    victim, seconds = lab.any_of(), lab.seconds()
    cables = {"pids": [victim.pid], "state": "down"}
    try:
        assert lab.stack.machine.program("links", cables), f"{victim.name} has no cable"
        time.sleep(seconds)
    finally:
        lab.stack.machine.program("links", cables | {"state": "up"})
    return f"{victim.name} for {seconds:.0f} s"


def fill_disk(lab: Lab) -> str:
    """Fill the database's disk, which is a small one for the time of the run."""
    database = lab.stack.one("database")
    psql = ["psql", "-X", "-q", "-U", "postgres", "-d", "stackyard"]
    words = [word for statement in SPEND for word in ("-c", statement)]
    try:
        disk(lab.stack, "fill")
        # Segments that are there already would take writes for long.
        spent = (lab.stack.try_exec(database, *psql, *words).code for _ in range(12))
        assert any(spent), "twelve new segments found room on a full disk"
        time.sleep(FULL_SECONDS)
    finally:
        disk(lab.stack, "drain")
    return f"for {FULL_SECONDS:.0f} s"


def restart_engine(lab: Lab) -> str:
    """Restart the engine; containers live on."""
    lab.stack.machine.run("systemctl", "restart", "docker.service", seconds=90)
    return "docker.service"


def kill_deploy(lab: Lab) -> str:
    """Kill a run that changes the api's memory, at a random task; the next run goes back."""
    number = lab.random.randint(*TASKS)
    more = f"stack_compose_api_memory={(lab.stack.settings.memory('api') >> 20) + 64}M"
    task = lab.controller.deploy_killed_at(
        number, "-e", f"env={lab.stack.env}", *lab.given, "-e", more
    )
    lab.controller.deploy(lab.stack.env, *lab.given)
    return f"at '{task}'" if task else "which had ended"


FAULTS: dict[str, Callable[[Lab], str]] = {
    "kill": kill,
    "freeze": freeze,
    "hang": hang,
    "cut off": cut_off,
    "full disk": fill_disk,
    "engine restart": restart_engine,
    "killed deploy": kill_deploy,
}


# The small disk


def disk(stack: Stack, action: str) -> None:
    """Lay the small disk, fill it, drain it or lift it."""
    volume = f"{stack.project}_database-data"
    found = stack.machine.run("docker", "volume", "inspect", "-f", "{{.Mountpoint}}", volume)
    request = {"action": action, "place": found.out.strip(), "room": ROOM}
    stack.machine.program("small_disk", request)


def change_disk(stack: Stack, action: str) -> None:
    """Lay or lift it, with the database stopped meanwhile."""
    stack.compose("stop", "database")
    try:
        disk(stack, action)
    finally:
        stack.compose("start", "database")
    stack.wait_healthy()


def left_behind(stack: Stack) -> bool:
    """Tell whether a run that was killed has left the small disk."""
    volume = f"{stack.project}_database-data"
    found = stack.machine.run("docker", "volume", "inspect", "-f", "{{.Mountpoint}}", volume)
    place = found.out.strip().rpartition("/")[0]
    return stack.machine.try_run("test", "-e", f"{place}/small-disk").code == 0
