"""A swarm of lab machines: its nodes, what runs where, and load through all of them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import testinfra

from .acceptance.machine import PROGRAMS, Machine, wait_until
from .controller import ROOT, Controller, Run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testinfra.host import Host

PROJECT = "stackyard"
DIRECTORY = Path("/opt/stackyard")
PORT = 8080
SETTLED_SECONDS = 180


@dataclass(frozen=True)
class Task:
    """A container of the stack on one node."""

    node: str
    service: str
    id: str
    about: dict[str, Any]

    @property
    def process(self) -> str:
        """Its first process, on its node."""
        return str(self.about["State"]["Pid"])

    @property
    def addresses(self) -> dict[str, str]:
        """Its address by network, without the project's name."""
        networks = self.about["NetworkSettings"]["Networks"]
        return {
            name.removeprefix(f"{PROJECT}_"): each["IPAddress"] for name, each in networks.items()
        }


class Swarm:
    """All nodes, seen from where the checks run."""

    def __init__(self, inventory: Path, groups: Path) -> None:
        """Take the inventory of the machines, and that of their parts."""
        self.inventory, self.groups = inventory, groups
        self.hosts: dict[str, Host] = {
            name: testinfra.get_host(f"ansible://{name}", ansible_inventory=str(inventory))
            for name in ("lab1", "lab2", "lab3")
        }
        self.nodes = {name: Machine(host) for name, host in self.hosts.items()}
        self.addresses = {
            name: host.ansible.get_variables()["ansible_host"] for name, host in self.hosts.items()
        }

    # Asking

    def manage(self, *command: str, via: str = "lab1") -> str:
        """Run docker on a manager; return what it prints."""
        return self.nodes[via].run("docker", *command).out

    def tasks(self, service: str, nodes: list[str] | None = None) -> list[Task]:
        """The running containers of a service, healthy or not."""
        found = []
        for name in nodes or self.nodes:
            label = f"label=com.docker.swarm.service.name={PROJECT}_{service}"
            ids = self.nodes[name].run("docker", "ps", "--quiet", "--filter", label).out.split()
            if ids:
                about = json.loads(self.nodes[name].run("docker", "inspect", *ids).out)
                found += [Task(name, service, each["Id"], each) for each in about]
        return found

    def one(self, service: str) -> Task:
        """The only container of a service."""
        (task,) = self.tasks(service)
        return task

    def running(self, via: str = "lab1") -> dict[str, tuple[int, int]]:
        """How many tasks of each service run, and how many are to."""
        shown = self.manage(
            "service", "ls", "--format", "{{.Name}} {{.Replicas}}", via=via
        ).splitlines()
        rows = (line.split()[:2] for line in shown)
        return {
            name.removeprefix(f"{PROJECT}_"): tuple(int(part) for part in count.split("/"))
            for name, count in rows
        }

    def where(self, service: str, via: str = "lab1") -> list[str]:
        """Nodes on which a manager knows running tasks of a service."""
        shown = self.manage(
            "service", "ps", f"{PROJECT}_{service}", "--filter", "desired-state=running",
            "--format", "{{.Node}} {{.CurrentState}}", via=via,
        )  # fmt: skip
        return sorted(line.split()[0] for line in shown.splitlines() if " Running " in line)

    def wait_settled(self, via: str = "lab1", seconds: float = SETTLED_SECONDS) -> float:
        """Wait until all services have all their tasks; return the seconds."""
        return wait_until(
            lambda: all(now == wanted > 0 for now, wanted in self.running(via).values()),
            seconds,
            "all tasks run",
            lambda: self.manage("stack", "ps", PROJECT, via=via),
            pause=1,
        )

    # Using

    def url(self, node: str, path: str = "") -> str:
        """An address of the gateway on a node."""
        return f"http://{self.addresses[node]}:{PORT}{path}"

    def ask(self, node: str, path: str, method: str = "GET", content: object = None) -> Any:
        """Ask through a node's port; return the JSON of the answer, None where there is none."""
        body = None if content is None else json.dumps(content).encode()
        headers = {"Content-Type": "application/json"} if body else {}
        asked = urllib.request.Request(self.url(node, path), body, headers, method=method)  # noqa: S310
        with urllib.request.urlopen(asked, timeout=15) as answer:  # noqa: S310
            text = answer.read()
        return json.loads(text) if text else None

    def answers(self, node: str, path: str = "/api/health") -> bool:
        """Tell whether there is a good answer through a node's port."""
        try:
            with urllib.request.urlopen(self.url(node, path), timeout=5) as answer:  # noqa: S310
                return answer.status == 200
        except OSError:
            return False

    def sql(self, query: str) -> list[list[str]]:
        """Ask the database, in its container."""
        task = self.one("database")
        command = ["psql", "-X", "-A", "-t", "-F", "\t", "-U", "postgres", "-d", "stackyard"]
        done = self.nodes[task.node].run("docker", "exec", task.id, *command, "-c", query)
        return [line.split("\t") for line in done.lines()]

    # Changing

    def play(self, playbook: str, *arguments: str, groups: Path | None = None) -> Run:
        """Run a playbook on all nodes."""
        controller = Controller(self.inventory, "lab")
        more = ("-i", str(groups or self.groups), "-e", "orchestrator=swarm")
        return controller.play(playbook, *more, *arguments)

    def deploy(self, *arguments: str, groups: Path | None = None) -> Run:
        """Run site.yml; it has to succeed."""
        run = self.play("site.yml", "-e", "env=prod", *arguments, groups=groups)
        if run.code != 0:
            pytest.fail(f"site.yml ended with {run.code}:\n{run.output}", pytrace=False)
        return run

    def stop_hard(self, node: str) -> str:
        """Take a machine's power; return what gives it back."""
        addresses = "{{.Name}} {{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        ids = subprocess.run(["docker", "ps", "-q"], capture_output=True, text=True, check=True)
        shown = subprocess.run(
            ["docker", "inspect", "--format", addresses, *ids.stdout.split()],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        (name,) = [
            line.split()[0].lstrip("/")
            for line in shown.splitlines()
            if self.addresses[node] in line.split()[1:]
        ]
        subprocess.run(["docker", "kill", name], check=True, capture_output=True)
        return name

    def start_again(self, node: str, name: str) -> None:
        """Give a machine its power back, and wait until its engine answers."""
        subprocess.run(["docker", "start", name], check=True, capture_output=True)
        # A new connection each time: while there is no SSH yet, asking raises.
        # Asked through a socket that systemd holds, an engine that hangs keeps one waiting.
        command = ["docker", "exec", name, "timeout", "10", "docker", "version"]
        wait_until(
            lambda: subprocess.run(command, capture_output=True, check=False).returncode == 0,
            90,
            "its engine answers",
        )
        wait_until(lambda: self.reaches(node), 60, "it can be logged in to")

    def reaches(self, node: str) -> bool:
        """Tell whether a node can be logged in to."""
        with suppress(RuntimeError):
            return self.nodes[node].try_run("true").code == 0
        return False


@contextmanager
def load(swarm: Swarm, rate: int = 30) -> Iterator[dict[str, dict[str, Any]]]:
    """Keep asking through every node's port; what came of it stands in the mapping by node."""
    until = ROOT / "build" / "steady-until"
    until.unlink(missing_ok=True)
    # Not as a file: its neighbours would stand before the library.
    program = (PROGRAMS / "steady.py").read_text(encoding="utf-8")
    processes = {}
    for node in swarm.nodes:
        request = {
            "url": swarm.url(node), "until": str(until), "seconds": 420, "rate": rate, "slow": 1,
            "least": 0,
        }  # fmt: skip
        command = [sys.executable, "-c", program, json.dumps(request)]
        processes[node] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    reports: dict[str, dict[str, Any]] = {}
    try:
        time.sleep(1)
        yield reports
    finally:
        until.touch()
        for node, process in processes.items():
            output, _ = process.communicate(timeout=60)
            reports[node] = json.loads(output)


def failures(reports: dict[str, dict[str, Any]]) -> str:
    """Return what failed through which node; empty where nothing did."""
    return "\n".join(
        f"{node}: {each['failed']} of {each['requests']}: {json.dumps(each['failures'])}"
        for node, each in reports.items()
        if each["failed"]
    )
