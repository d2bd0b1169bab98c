"""The watchdog restarts what stays unhealthy, and nothing else: on this machine's engine."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from .conftest import ROOT, docker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PROGRAM = ROOT / "roles/stack_boot/files/watchdog.py"
LONGEST_SECONDS = 40.0
# Unhealthy for so long, and the pause after the first restart, the second, and every further one.
SECONDS, PAUSES = 1.0, (2.0, 4.0, 5.0)
# What a restart of these containers takes, and then the health check that fails.
SLACK_SECONDS = 5.0


class Lab:
    """Containers of one project of its own, and the watchdogs that look at them."""

    def __init__(self, place: Path) -> None:
        self.project = f"stackyard-modules-{uuid.uuid4().hex[:8]}"
        self.hold = place / "hold"
        self.output = place / "output"
        self.stack = ExitStack()
        self.image = docker(
            *("image", "ls", "--filter=dangling=false", "--format={{.Repository}}:{{.Tag}}"),
            "stackyard/cache",
        ).partition("\n")[0]
        assert self.image, "no local image stackyard/cache: make up builds it"

    def run(self, service: str, *, cured: bool = False, needs: str = "", project: str = "") -> str:
        """Start a container that is unhealthy once it has /tmp/ill; a restart cures it, or not."""
        name = f"{project or self.project}-{service}-{uuid.uuid4().hex[:4]}"
        labels = {
            "project": project or self.project,
            "service": service,
            "oneoff": "False",
            "depends_on": needs,
        }
        docker(
            *("run", "--detach", "--init", "--user=0", f"--name={name}", "--network=none"),
            *(f"--label=com.docker.compose.{key}={value}" for key, value in labels.items()),
            *(["--tmpfs=/tmp"] if cured else []),
            *("--health-cmd=! cat /tmp/ill", "--health-interval=500ms", "--health-timeout=2s"),
            *("--health-retries=1", "--entrypoint=sleep", self.image, "infinity"),
        )
        self.stack.callback(docker, "rm", "--force", "--volumes", name)
        wait_until(lambda: state(name)[1] == "healthy", f"{name} is healthy")
        return name

    def watch(self, **options: float) -> None:
        """Start a watchdog."""
        given = {"seconds": SECONDS, "every": 0.2, "pause": PAUSES[0], "longest-pause": PAUSES[2]}
        words = [f"--{name}={value}" for name, value in (given | options).items()]
        output = self.stack.enter_context(self.output.open("ab"))
        process = subprocess.Popen(
            [sys.executable, PROGRAM, *words, f"--hold={self.hold}", self.project],
            stdout=output,
            stderr=output,
        )
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        wait_until(lambda: "watching" in self.said(), "the watchdog looks")

    def said(self) -> str:
        """Return all that it has said."""
        return self.output.read_text() if self.output.exists() else ""

    def lines(self, name: str) -> list[str]:
        """Return what it said about a container."""
        start = f"{name}: "
        return [each.removeprefix(start) for each in self.said().splitlines() if start in each]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A project of its own."""
    found = Lab(tmp_path)
    with found.stack:
        yield found


def state(name: str) -> tuple[str, str, str]:
    """Return when the container was started, its health, and whether it runs."""
    asked = "{{.State.StartedAt}} {{.State.Health.Status}} {{.State.Status}}"
    started, health, status = docker("inspect", f"--format={asked}", name).split()
    return started, health, status


def make_ill(name: str) -> None:
    """Have its health check fail."""
    docker("exec", name, "sh", "-c", "echo no more; echo of it is too late >/tmp/ill")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Ask until it holds; fail, saying what was waited for, when that takes too long."""
    end = time.monotonic() + LONGEST_SECONDS
    while not condition():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.1)


def test_unhealthy_container_is_restarted_and_it_says_why(lab: Lab) -> None:
    ill, well = lab.run("api", cured=True), lab.run("api")
    before = state(ill)[0], state(well)[0]
    lab.watch()
    make_ill(ill)
    wait_until(lambda: state(ill)[0] != before[0], "it is restarted")
    wait_until(lambda: "healthy again" in lab.lines(ill), "it is healthy again")
    assert state(well)[0] == before[1]
    first, *rest = lab.lines(ill)
    assert first.startswith("unhealthy for ")
    assert first.endswith("it said: of it is too late"), first
    assert rest == ["restarted", "healthy again"]
    assert lab.lines(well) == []


def test_container_that_is_unhealthy_for_a_moment_is_left_alone(lab: Lab) -> None:
    name = lab.run("api", cured=True)
    before = state(name)
    lab.watch(seconds=4)
    make_ill(name)
    wait_until(lambda: state(name)[1] == "unhealthy", "it is unhealthy")
    time.sleep(1)
    docker("exec", name, "rm", "/tmp/ill")
    wait_until(lambda: state(name)[1] == "healthy", "it is healthy")
    time.sleep(5)
    assert state(name) == before
    assert lab.lines(name) == []


def test_paused_container_is_restarted(lab: Lab) -> None:
    name = lab.run("cache")
    before = state(name)[0]
    lab.watch()
    docker("pause", name)
    wait_until(lambda: state(name)[0] != before, "it is restarted")
    wait_until(lambda: state(name)[1:] == ("healthy", "running"), "it runs and is healthy")


def test_each_restart_waits_longer_for_the_next(lab: Lab) -> None:
    name = lab.run("api")
    lab.watch()
    make_ill(name)
    seen = [state(name)[0]]
    moments = []
    for _ in range(len(PAUSES) + 2):
        wait_until(lambda: state(name)[0] != seen[-1], f"restart {len(seen)}")
        seen.append(state(name)[0])
        moments.append(time.monotonic())
    waited = [after - before for before, after in zip(moments, moments[1:], strict=False)]
    for pause, found in zip((*PAUSES, PAUSES[-1]), waited, strict=True):
        assert pause - 0.5 <= found <= pause + SLACK_SECONDS, waited
    # Once for each restart that has to wait, however often it looked.
    told = [each for each in lab.lines(name) if each.startswith("unhealthy after")]
    assert len(told) in (len(PAUSES) + 1, len(PAUSES) + 2), lab.said()


def test_container_that_was_healthy_for_long_begins_anew(lab: Lab) -> None:
    name = lab.run("api", cured=True)
    lab.watch(forgiven=2, pause=3600)
    for _ in range(2):
        before = state(name)[0]
        make_ill(name)
        wait_until(lambda was=before: state(name)[0] != was, "it is restarted")  # type: ignore[misc]
        wait_until(lambda: state(name)[1] == "healthy", "it is healthy")
        time.sleep(3)
    assert not [each for each in lab.lines(name) if each.startswith("unhealthy after")]


def test_container_waits_for_the_one_that_it_needs(lab: Lab) -> None:
    database = lab.run("database", cured=True)
    api = lab.run("api", needs="database:service_healthy:false")
    before = state(api)[0]
    # Stopped, it is nobody's to restart; and whoever needs it has to wait.
    docker("stop", "--time=1", database)
    lab.watch(seconds=3)
    make_ill(api)
    wait_until(lambda: lab.lines(api) != [], "it says why not")
    time.sleep(4)
    assert (state(api)[0], state(database)[2]) == (before, "exited")
    assert lab.lines(api) == ["unhealthy, left alone: it needs database, not healthy either"]
    docker("start", database)
    wait_until(lambda: state(database)[1] == "healthy", "the database is healthy")
    ready = time.monotonic()
    wait_until(lambda: state(api)[0] != before, "it is restarted after all")
    # As long as ever after that.
    assert time.monotonic() - ready > 2


def test_one_replica_is_restarted_at_a_time(lab: Lab) -> None:
    names = [lab.run("api", cured=True) for _ in range(2)]
    for name in names:
        make_ill(name)
    lab.watch()
    for name in names:
        wait_until(lambda who=name: "healthy again" in lab.lines(who), f"{name} is back")  # type: ignore[misc]
    order = [line.partition(": ") for line in lab.said().splitlines()]
    first = next(name for name, _, text in order if text == "restarted")
    words = [text for name, _, text in order if name == first]
    back = [name for name, _, text in order if text in ("restarted", "healthy again")]
    assert words[-1] == "healthy again"
    assert back == [first, first, *[name for name in names if name != first] * 2], lab.said()


def test_others_and_those_that_are_held_are_left_alone(lab: Lab) -> None:
    other, mine = lab.run("api", project=f"{lab.project}-other"), lab.run("api", cured=True)
    before = state(other)[0], state(mine)[0]
    lab.hold.touch()
    lab.watch()
    make_ill(other)
    make_ill(mine)
    wait_until(lambda: lab.lines(mine) != [], "it says why not")
    time.sleep(3)
    assert (state(other)[0], state(mine)[0]) == before
    assert lab.lines(mine) == [f"unhealthy, left alone: {lab.hold} is there"]
    lab.hold.unlink()
    wait_until(lambda: state(mine)[0] != before[1], "it is restarted once nobody holds it")
    assert state(other)[0] == before[0]


def test_engine_that_is_away_is_waited_for(lab: Lab, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, PROGRAM, "--every=0.1", f"--socket={tmp_path}/none.sock", lab.project],
        stdout=subprocess.PIPE,
        text=True,
    )
    time.sleep(1.5)
    assert process.poll() is None
    process.terminate()
    output, _ = process.communicate(timeout=5)
    assert output.count("waiting for the engine: ") == 1, output
