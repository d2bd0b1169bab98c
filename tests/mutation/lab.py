"""The running stack: broken by a mutation, started, judged, and mended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import testinfra

from ..acceptance.machine import Machine, Result
from ..acceptance.settings import SERVICES, Settings
from ..acceptance.stack import Stack
from .checks import CannotTell, Verdict, failing, judge
from .mutation import Access, Commands, Create, DoesNotApply, Edit, Mutation, Replace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ON_MACHINE = Path(__file__).with_name("on_machine.py")
# Long enough for what will be healthy; what will not be is judged as it is then.
START_SECONDS = 20
MEND_SECONDS = 60
# Everything as it was, and nothing that was not there.
PUT_BACK = """
cp -a "$1/." "$2/" && cd "$2" && find . -depth | while IFS= read -r each; do
  [ -e "$1/$each" ] || rm -r "$each"
done
"""


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let nobody's Ctrl-C stop the mending."""
    kept = [(each, signal.signal(each, signal.SIG_IGN)) for each in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for each, handler in kept:
            signal.signal(each, handler)


class Lab:
    """One stack, in prod, on one lab machine."""

    def __init__(self, hosts: str, inventory: str, given: Mapping[str, str]) -> None:
        """Keep the project's files as they are now, or as they were before an interrupted run."""
        # testinfra looks for Ansible's programs by name.
        here = str(Path(sys.executable).parent)
        os.environ["PATH"] = os.pathsep.join([here, os.environ.get("PATH", os.defpath)])
        found = testinfra.get_hosts([hosts], ansible_inventory=inventory)
        if len(found) != 1:
            raise CannotTell(f"{hosts} is {len(found)} machines: name one, --hosts=ansible://NAME")
        (host,) = found
        self._arguments = [f"--hosts={hosts}", f"--ansible-inventory={inventory}"]
        self._arguments += [f"--set={name}={value}" for name, value in given.items()]
        settings = Settings(host.ansible.get_variables(), given)
        self.machine = Machine(host)
        self.directory = settings.directory
        self._kept = f"{settings.directory}.unmutated"
        interrupted = self.machine.try_run("test", "-d", self._kept).code == 0
        if interrupted:
            self._put_back()
        self.stack = Stack(host, settings)
        if self.stack.env != "prod":
            raise CannotTell("the mutations are of a stack in prod: make up ENV=prod")
        if interrupted:
            self._start_all()
        else:
            self.machine.run("cp", "-a", self.directory, self._kept)
        self.stack.wait_healthy()
        self._made = self._made_from()
        self._volumes, self._networks = self._all_volumes(), self._all_networks()

    def close(self) -> None:
        """Leave the stack as it was found."""
        with uninterrupted():
            self._put_back()
            self._start_all()
            self.machine.run("rm", "-r", self._kept)
            self.stack.release()

    def failing(self, mutations: list[Mutation]) -> list[str]:
        """Return the checks that do not pass without a mutation."""
        files = sorted({file for each in mutations for file in each.noticed_by})
        found = failing([*map(_path, files), *self._arguments]) if files else []
        for words in sorted({(each.noticed_by, each.disruptive) for each in mutations}):
            if words[1]:
                found += failing([*map(_path, words[0]), *self._disruptive(words[1])])
        return found

    def judge(self, mutation: Mutation) -> Verdict:
        """Break the stack, ask the checks, mend the stack; the watchdog leaves it alone."""
        try:
            self.stack.hold()
            self._break(mutation)
            refusal = self._start(mutation)
            if refusal:
                return Verdict("refused", message=refusal)
            more = self._disruptive(mutation.disruptive) if mutation.disruptive else self._arguments
            return judge([*map(_path, mutation.noticed_by), *more])
        finally:
            with uninterrupted():
                self._mend(mutation)

    def _disruptive(self, words: str) -> list[str]:
        return [*self._arguments, "--disruptive", "-k", words]

    # Breaking

    def _break(self, mutation: Mutation) -> None:
        for change in mutation.changes:
            if isinstance(change, Commands):
                self._command(change.run)
            else:
                self._on_machine(self._step(change))

    def _step(self, change: Any) -> dict[str, Any]:
        match change:
            case Edit():
                text = self.machine.read(f"{self.directory}/{change.file}")
                return {"path": change.file, "write": change.applied(text)}
            case Replace():
                return {"path": change.file, "replace": [change.old, change.new]}
            case Access():
                return {"path": change.file, "mode": change.mode, "owner": change.owner}
            case Create():
                return {"path": change.file, "create": change.text}
        raise AssertionError(change)

    def _on_machine(self, step: dict[str, Any]) -> None:
        request = json.dumps({"directory": self.directory, "steps": [step]})
        source = ON_MACHINE.read_text(encoding="utf-8")
        result = self.machine.try_run("python3", "-c", source, request)
        if result.code:
            raise DoesNotApply(result.text)

    def _command(self, line: str) -> None:
        line = line.replace("{project}", self.stack.project)
        result = self.machine.try_run("sh", "-c", line, folder=self.directory)
        if result.code:
            raise DoesNotApply(str(result))

    # Starting

    def _start(self, mutation: Mutation) -> str:
        """Have Compose start what changed; return why it refused, if it did."""
        if not mutation.start:
            return ""
        judged = self.stack.try_compose("config", "--quiet")
        if judged.code:
            return _last_line(judged)
        result = self._up(mutation, START_SECONDS)
        if result and result.code and "Error response from daemon" in result.text:
            return _last_line(result)
        # Who talks to what was replaced has to notice that first.
        with contextlib.suppress(pytest.fail.Exception):
            self.stack.wait_healthy(5 if result and result.code == 0 else 0)
        return ""

    def _up(self, mutation: Mutation, seconds: int) -> Result | None:
        """Start the services that the mutation changes, or all where a network changes."""
        active = {"docker-compose.yml", f"docker-compose.{self.stack.env}.yml"}
        places = mutation.places(active)
        # Compose leaves a network as it is for as long as it is there.
        if any(way[0] == "networks" and len(way) > 1 for way in places):
            self.stack.compose("down")
            return self._compose_up(seconds)
        changed = sorted({way[1] for way in places if way[0] == "services"})
        if mutation.restart:
            # The file is mounted: Compose does not see that it changed.
            return self._compose_up(seconds, "--force-recreate", *mutation.restart)
        if set(changed) - set(SERVICES):
            return self._compose_up(seconds)
        # By name, or Compose would also replace everything that waits for what is replaced.
        return self._compose_up(seconds, *changed) if changed else None

    def _compose_up(self, seconds: int, *more: str) -> Result:
        # Without -V, a new container gets the old one's volume, whatever the file says.
        words = ["up", "-d", "-V", "--remove-orphans", "--wait", f"--wait-timeout={seconds}", *more]
        return self.stack.try_compose(*words, seconds=seconds + 15)

    # Mending

    def _mend(self, mutation: Mutation) -> None:
        for change in reversed(mutation.changes):
            if isinstance(change, Commands):
                self._command(change.undo)
        strays = self._all_volumes()
        self._put_back()
        if mutation.start:
            self._up(mutation, MEND_SECONDS)
        try:
            self.stack.wait_healthy(15)
        except pytest.fail.Exception:
            self.stack.compose("down")
            self._start_all()
        if self._made_from() != self._made:
            raise CannotTell(f"{mutation.name}: the stack is not as it was before")
        for name in (strays | self._all_volumes()) - self._volumes:
            self.machine.run("docker", "volume", "rm", name)
        for name in self._all_networks() - self._networks:
            self.machine.run("docker", "network", "rm", name)

    def _put_back(self) -> None:
        self.machine.run("sh", "-c", PUT_BACK, "sh", self._kept, self.directory)

    def _start_all(self) -> None:
        self._compose_up(MEND_SECONDS)
        self.stack.wait_healthy()

    def _made_from(self) -> list[tuple[str, str]]:
        """The containers, and what Compose made each from."""
        label = "com.docker.compose.config-hash"
        return sorted(
            (each.service, each.data["Config"]["Labels"][label]) for each in self.stack.containers()
        )

    def _all_volumes(self) -> set[str]:
        mounted = {
            mount["Name"]
            for container in self.stack.containers()
            for mount in container.mounts.values()
            if mount["Type"] == "volume"
        }
        return mounted | self._listed("volume")

    def _all_networks(self) -> set[str]:
        return self._listed("network")

    def _listed(self, kind: str) -> set[str]:
        label = f"label=com.docker.compose.project={self.stack.project}"
        asked = self.machine.run("docker", kind, "ls", "--filter", label, "--format", "{{.Name}}")
        return set(asked.lines())


def _path(file: str) -> str:
    return f"tests/acceptance/test_{file}.py"


def _last_line(result: Result) -> str:
    return result.text.splitlines()[-1] if result.text else f"exit {result.code}"
