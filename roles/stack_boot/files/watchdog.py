#!/usr/bin/python3
"""Restart what stays unhealthy: the containers of one Compose project, one at a time.

Asks the engine over its socket every few seconds. A container that was unhealthy for so long
without interruption is restarted, each time after a longer pause, and with the time to end that its
service has. Left alone are containers that are stopped, those that wait for one that they need, and
all of them while a run holds the project. Every restart, and every reason against one, is a line.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import socket
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LABEL = "com.docker.compose"
# A run that was killed does not hold the project for good.
HELD_SECONDS = 3600
# So long a fellow that was restarted may take to its first health check's success.
RECOVERING_SECONDS = 90
ENGINE_SECONDS = 30
# The engine's own, where a container says nothing.
GRACE_SECONDS = 10


class EngineError(Exception):
    """The engine does not answer, or answers that it cannot."""


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


@dataclass(frozen=True)
class Container:
    """A container as the engine lists it."""

    id: str
    name: str
    service: str
    # healthy, unhealthy, or anything else: on its way, stopped, without a health check.
    health: str
    needs: tuple[str, ...]


class Engine:
    """The engine, behind its socket; raises EngineError."""

    def __init__(self, path: str, project: str) -> None:
        self.path = path
        self.project = project

    def ask(self, method: str, path: str, timeout: float = ENGINE_SECONDS) -> Any:
        """Send a request and return what its answer holds."""
        connection = Connection(self.path, timeout)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read()
            content = json.loads(body) if body else None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise EngineError(str(error) or type(error).__name__) from error
        finally:
            connection.close()
        if answer.status >= 400:
            raise EngineError(str((content or {}).get("message", answer.status)))
        return content

    def listed(self, **more: list[str]) -> list[dict[str, Any]]:
        """Return the project's containers, stopped ones too."""
        labels = [f"{LABEL}.project={self.project}", f"{LABEL}.oneoff=False"]
        filters = urllib.parse.quote(json.dumps({"label": labels, **more}))
        return list(self.ask("GET", f"/containers/json?all=1&filters={filters}"))

    def containers(self) -> list[Container]:
        """Return the project's containers by name."""
        # Asked by a filter: of a paused container the list does not say how it is.
        ill = {
            each["Id"] for each in self.listed(health=["unhealthy"], status=["running", "paused"])
        }
        found = []
        for each in self.listed():
            labels = each["Labels"]
            health = "healthy" if "(healthy)" in each["Status"] else each["State"]
            needs = labels.get(f"{LABEL}.depends_on", "").split(",")
            found.append(
                Container(
                    id=each["Id"],
                    name=each["Names"][0].lstrip("/"),
                    service=labels[f"{LABEL}.service"],
                    health="unhealthy" if each["Id"] in ill else health,
                    needs=tuple(need.partition(":")[0] for need in needs if need),
                )
            )
        return sorted(found, key=lambda container: container.name)

    def complaint(self, container: Container) -> str:
        """Return the first line of what its last health check said."""
        log = self.ask("GET", f"/containers/{container.id}/json")["State"]["Health"]["Log"]
        lines = log[-1]["Output"].strip().splitlines() if log else []
        return lines[0][:200] if lines else "nothing"

    def restart(self, container: Container) -> None:
        """Restart it; its service's own time to end, then it is killed."""
        config = self.ask("GET", f"/containers/{container.id}/json")["Config"]
        grace = config.get("StopTimeout") or GRACE_SECONDS
        self.ask("POST", f"/containers/{container.id}/restart", grace + 2 * ENGINE_SECONDS)


@dataclass
class Case:
    """What is remembered of a container; times are of the monotonic clock."""

    unhealthy_since: float | None = None
    healthy_since: float | None = None
    restarts: int = 0
    restarted: float = float("-inf")
    told: str = ""


class Watchdog:
    """Looks at all containers, again and again."""

    def __init__(self, engine: Engine, options: argparse.Namespace) -> None:
        self.engine = engine
        self.options = options
        self.cases: dict[str, Case] = {}
        self.away = ""

    def pause(self, case: Case) -> float:
        """Return the seconds that have to pass after the last restart: twice as many each time."""
        steps = min(case.restarts - 1, 30)
        return float(min(self.options.pause * 2**steps, self.options.longest_pause))

    def held(self) -> str:
        """Return why the whole project is to be left alone, or nothing."""
        for hold in self.options.hold:
            with contextlib.suppress(OSError):
                if time.time() - Path(hold).stat().st_mtime < HELD_SECONDS:
                    return f"{hold} is there"
        return ""

    def excuse(self, container: Container, containers: list[Container]) -> str:
        """Return which service that it needs is not healthy, or nothing."""
        healthy = {each.service for each in containers if each.health == "healthy"}
        missing = [need for need in container.needs if need not in healthy]
        return f"it needs {' and '.join(missing)}, not healthy either" if missing else ""

    def recovering(self, container: Container, containers: list[Container], now: float) -> str:
        """Return which fellow was restarted a moment ago and is on its way, or nothing."""
        for each in containers:
            if each.service == container.service and each.health not in ("healthy", "unhealthy"):
                case = self.cases.get(each.id)
                if case and now - case.restarted < RECOVERING_SECONDS:
                    return f"{each.name} is on its way first"
        return ""

    def tell(self, container: Container, text: str) -> None:
        """Say it, unless it is what was said last about this container."""
        case = self.cases[container.id]
        if case.told != text:
            case.told = text
            say(f"{container.name}: {text}")

    def look(self, now: float) -> None:
        """Look at every container once, and do what is due."""
        containers = self.engine.containers()
        known = self.cases
        self.cases = {each.id: known.get(each.id, Case()) for each in containers}
        held = self.held()
        # Those that are well first: others may have waited for them.
        for each in sorted(containers, key=lambda container: container.health == "unhealthy"):
            case = self.cases[each.id]
            if each.health != "unhealthy":
                self.well(each, case, now)
                continue
            case.healthy_since = None
            excuse = held or self.excuse(each, containers)
            if excuse:
                case.unhealthy_since = None
                self.tell(each, f"unhealthy, left alone: {excuse}")
                continue
            if case.unhealthy_since is None:
                case.unhealthy_since = now
            if now - case.unhealthy_since >= self.options.seconds:
                self.due(each, containers, now)
                # A restart takes its time, so what was seen of the others is old.
                if case.restarted >= now:
                    return

    def well(self, container: Container, case: Case, now: float) -> None:
        """Note that a container is healthy, or not unhealthy at least."""
        case.unhealthy_since = None
        if container.health != "healthy":
            case.healthy_since = None
            return
        if case.told:
            say(f"{container.name}: healthy again")
            case.told = ""
        if case.healthy_since is None:
            case.healthy_since = now
        if now - case.healthy_since >= self.options.forgiven:
            case.restarts = 0

    def due(self, container: Container, containers: list[Container], now: float) -> None:
        """Restart a container that was unhealthy for long enough, unless it is too early for it."""
        case = self.cases[container.id]
        early = case.restarted + self.pause(case) - now if case.restarts else 0
        if early > 0:
            when = time.strftime("%H:%M:%S", time.localtime(time.time() + early))
            # The second may differ from one look to the next.
            if not case.told.startswith("unhealthy after"):
                self.tell(container, f"unhealthy after {case.restarts} restarts: next at {when}")
            return
        fellow = self.recovering(container, containers, now)
        if fellow:
            self.tell(container, f"unhealthy, left alone: {fellow}")
            return
        seconds = now - (case.unhealthy_since or now)
        complaint = self.engine.complaint(container)
        self.tell(container, f"unhealthy for {seconds:.0f} s, restarting it; it said: {complaint}")
        notify("WATCHDOG=1")
        try:
            self.engine.restart(container)
            say(f"{container.name}: restarted")
        except EngineError as error:
            say(f"{container.name}: cannot be restarted: {error}")
        case.restarts += 1
        case.restarted = time.monotonic()
        case.unhealthy_since = None

    def watch(self) -> None:
        """Look for ever; an engine that is away is waited for."""
        seconds = f"{self.options.seconds:g} s"
        say(f"watching {self.engine.project}: restarting what is unhealthy for {seconds}")
        notify("READY=1")
        while True:
            try:
                self.look(time.monotonic())
                if self.away:
                    say("the engine answers again")
                self.away = ""
            except EngineError as error:
                if not self.away:
                    say(f"waiting for the engine: {error}")
                self.away = str(error)
                # Nobody knows what was meanwhile.
                for case in self.cases.values():
                    case.unhealthy_since = None
            notify("WATCHDOG=1")
            time.sleep(self.options.every)


def say(text: str) -> None:
    """Write a line; the journal has the time."""
    print(text, flush=True)


def notify(state: str) -> None:
    """Tell systemd, where that is who started this."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(state.encode(), address)


def main() -> None:
    """Watch the project that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", help="whose containers, as Compose calls it")
    parser.add_argument("--seconds", type=float, default=30, help="unhealthy for so long")
    parser.add_argument("--every", type=float, default=2, help="seconds between two looks")
    parser.add_argument("--pause", type=float, default=30, help="seconds after the first restart")
    parser.add_argument("--longest-pause", type=float, default=1800, help="seconds at most")
    parser.add_argument("--forgiven", type=float, default=600, help="healthy for so long: as new")
    parser.add_argument(
        "--hold",
        action="append",
        default=[],
        help="while this file is there, for an hour at most, nothing is done; may be repeated",
    )
    parser.add_argument("--socket", default="/run/docker.sock", help="the engine's")
    options = parser.parse_args()
    Watchdog(Engine(options.socket, options.project), options).watch()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
