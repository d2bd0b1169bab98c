"""Runs of site.yml that have to be refused, and a look at the machine before and after each.

They need a lab machine with a healthy stack, over SSH. Nothing on it is made worse for others:
where a case takes a worse machine, its run sees one that nobody else sees.
"""

from __future__ import annotations

import difflib
import itertools
import json
import os
import re
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ..controller import LONGEST_RUN_SECONDS, Controller, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from testinfra.host import Host

    from ..acceptance.machine import Machine
    from ..acceptance.stack import Stack

    Attempt = Callable[["Case"], "Outcome"]

# What ansible-playbook ends with when a machine failed, and nothing worse happened.
REFUSED = 2

# What a message shows where its template failed, or where data was printed raw.
ARTEFACTS = re.compile(
    r"\{\{|\{%|undefined|Traceback|<class|object has no|None\b|  |\n|\\n|\[\{|'\{'"
)

# What no refused run may alter: files as a process of the machine sees them, and the engine's own.
# Not the log that the database archives: it sends a segment a minute while there are writes.
LOOK = r"""
set -euo pipefail
files() {
  nsenter --mount --target="$process" find /opt /etc/docker \
    -path '*/backups/*/archive' -prune -o "$@" | sort
}
process=$1
files -printf '%p %M %U:%G %s %t %l\n'
files -type f -exec sha256sum {} +
docker ps --all --quiet --no-trunc | xargs --no-run-if-empty docker inspect --format \
  '{{.Name}} {{.Id}} {{.Image}} {{.State.Status}} {{.State.StartedAt}} {{.RestartCount}}'
# What was made in the same second is listed in any order.
{
  docker volume ls --format 'volume {{.Name}}'
  docker network ls --no-trunc --format 'network {{.Name}} {{.ID}}'
  docker image ls --all --no-trunc --format 'image {{.Repository}}:{{.Tag}} {{.ID}}'
} | sort
"""

# In a mount namespace: puts a copy of a directory in its place, to be spoilt.
OWN = """
set -e
own() {
  copy=$RUNTIME_DIRECTORY/$(echo "$1" | tr / _)
  cp --archive "$1" "$copy"
  mount --bind "$copy" "$1"
}
"""
FIRST_PORT = 2200


@dataclass(frozen=True)
class Case:
    """A bad input: what is given to ansible-playbook, and what each of its error lines has to hold.

    `fleet` has the host variables of machines of an inventory's `group`: all are the one at hand.
    `parts` has the machines of its other groups.
    `worse` is a shell script that spoils the machine, for this case alone.
    """

    name: str
    arguments: Sequence[str]
    says: Sequence[Sequence[str]]
    fleet: Sequence[Mapping[str, Any]] = ()
    group: str = "lab"
    worse: str = ""
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def difference(before: list[str], after: list[str]) -> str:
    """Return the lines that went (-) and came (+); nothing where the machine is the same."""
    lines = difflib.unified_diff(before, after, n=0, lineterm="")
    return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


@dataclass
class Outcome:
    """How a case ended: its run, and what the machine was before and after."""

    case: Case
    run: Run
    before: list[str] = field(repr=False)
    after: list[str] = field(repr=False)
    meanwhile: set[str]

    def assert_refused(self) -> None:
        """Fail unless the run was refused with the case's lines alone, and altered nothing."""
        self.assert_nothing_altered()
        assert self.run.code == REFUSED, f"exit {self.run.code}:\n{self.run.output}"
        errors = self.run.errors
        assert errors, self.run.output
        for texts in self.case.says:
            saying = [error for error in errors if all(text in error for text in texts)]
            assert len(saying) == 1, f"{len(saying)} say {texts} of:\n" + "\n".join(errors)
            assert not ARTEFACTS.search(saying[0]), saying[0]
        assert len(errors) == len(self.case.says), "\n".join(errors)

    def assert_nothing_altered(self) -> None:
        """Fail where anything on the machine differs, or Ansible says that it changed something."""
        altered = difference(self.before, self.after)
        others = ", ".join(sorted(self.meanwhile)) or "nothing"
        assert not altered, f"altered, while {others} ran too:\n{altered}\n{self.run.output}"
        assert "changed=" in self.run.output, self.run.output
        assert self.run.changed == 0, self.run.output


class Lab:
    """A lab machine to run cases against."""

    def __init__(
        self, machine: Machine, controller: Controller, variables: Mapping[str, Any], folder: Path
    ) -> None:
        """Take the machine, its inventory's runs and variables, and a folder for inventories."""
        self.machine = machine
        self.controller = controller
        self._connection = {
            name: value for name, value in variables.items() if name.startswith("ansible_")
        }
        self._folder = folder
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._underway: dict[str, set[str]] = {}
        self.found = self.look()

    def look(self, process: str = "1") -> list[str]:
        """Return what no refused run may alter, as a process of the machine sees it."""
        return self.machine.run("bash", "-c", LOOK, "look", process).lines()

    @contextmanager
    def worse(self, script: str) -> Iterator[tuple[int, str]]:
        """Spoil the machine for who comes through a port of its own.

        Behind the port is an sshd in its own mount namespace, where the script has run before it.
        Whatever that mounted, copied and started ends with it. Returns port and process number.
        """
        number = next(self._numbers)
        unit, port = f"refusals-{number}", FIRST_PORT + number
        properties = [
            *("Type=notify", "PrivateMounts=yes", f"RuntimeMaxSec={LONGEST_RUN_SECONDS}"),
            *(f"RuntimeDirectory={unit}", "RuntimeDirectoryMode=0700"),
        ]
        sshd = f"exec /usr/sbin/sshd -D -o PidFile=none -p {port}"
        made = self.machine.try_run(
            *("systemd-run", "--quiet", "--collect", f"--unit={unit}"),
            *(f"--property={each}" for each in properties),
            *("sh", "-c", f"{OWN}{script}\n{sshd}"),
        )
        if made.code != 0:
            journal = self.machine.try_run("journalctl", "--unit", unit, "--lines=20")
            pytest.fail(f"{made}\n{journal.text}", pytrace=False)
        try:
            show = ["systemctl", "show", "--property=MainPID", "--value", unit]
            yield port, self.machine.run(*show).out.strip()
        finally:
            self.machine.run("systemctl", "stop", unit)

    def _controller(self, case: Case) -> Controller:
        """Return runs against the machine, under the names that the case's inventory has for it."""
        if not case.fleet:
            return self.controller
        hosts = {
            f"lab{number}": {**self._connection, **variables}
            for number, variables in enumerate(case.fleet, start=1)
        }
        path = self._folder / f"{case.name}.yml".replace(" ", "-")
        groups = {name: {"hosts": dict.fromkeys(parts)} for name, parts in case.parts.items()}
        text = yaml.safe_dump({case.group: {"hosts": hosts}, **groups})
        path.write_text(text, encoding="utf-8")
        return Controller(path, "all")

    @contextmanager
    def _meanwhile(self, name: str) -> Iterator[set[str]]:
        """Collect the names of the cases that run during this one."""
        with self._lock:
            for others in self._underway.values():
                others.add(name)
            self._underway[name] = set(self._underway)
        try:
            yield self._underway[name]
        finally:
            with self._lock:
                del self._underway[name]

    def attempt(self, case: Case) -> Outcome:
        """Run site.yml as the case wants it; compare the machine after it with that of before.

        Where no case makes the machine worse, it is at all times as it was found.
        """
        worse = self.worse(case.worse) if case.worse else nullcontext((None, "1"))
        with self._meanwhile(case.name) as meanwhile, worse as (port, process):
            through = ["-e", f"ansible_port={port}"] if port else []
            before = self.look(process) if case.worse else self.found
            run = self._controller(case).play("site.yml", *case.arguments, *through)
            after = self.look(process)
        return Outcome(case, run, before, after, meanwhile)


@pytest.fixture(scope="module")
def lab(
    host: Host, stack: Stack, controller: Controller, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lab]:
    """Return the machine with its stack healthy; at the end, it is as it was."""
    # What a run that was killed left.
    stack.machine.run("systemctl", "stop", "refusals-*")
    stack.wait_healthy()
    folder = tmp_path_factory.mktemp("inventories")
    lab = Lab(stack.machine, controller, host.ansible.get_variables(), folder)
    yield lab
    altered = difference(lab.found, lab.look())
    units = stack.machine.run("systemctl", "list-units", "--all", "--no-legend", "refusals-*").out
    assert not altered + units, f"left behind:\n{altered}\n{units}"


@pytest.fixture(scope="module")
def attempt(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Attempt]:
    """Return the outcome of a case. Those of the file run from now on, a core each.

    A file whose cases come as far as the lock has them run one after another: SIDE_BY_SIDE = 1.
    """
    cases = {
        item.callspec.params["case"].name: item.callspec.params["case"]
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.path == request.path
        and "case" in getattr(getattr(item, "callspec", None), "params", {})
    }
    workers = getattr(request.module, "SIDE_BY_SIDE", os.cpu_count())
    with ThreadPoolExecutor(max_workers=workers) as pool:
        started: dict[str, Future[Outcome]] = {
            name: pool.submit(lab.attempt, case) for name, case in cases.items()
        }
        yield lambda case: (started.get(case.name) or pool.submit(lab.attempt, case)).result()
        pool.shutdown(cancel_futures=True)


def variables(**values: object) -> list[str]:
    """Return -e arguments: text as name=value, anything else as JSON."""
    return [
        argument
        for name, value in values.items()
        for argument in (
            "-e",
            f"{name}={value}" if isinstance(value, str) else json.dumps({name: value}),
        )
    ]
