"""The stack of tests/inventory.yml, through real runs of the playbooks."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..playbook import ROOT, command, docker, run_playbook

if TYPE_CHECKING:
    from collections.abc import Iterator

INVENTORY = ROOT / "tests/inventory.yml"
PROJECT = "stackyard-test"
STACK_DIR = Path("/opt") / PROJECT
URL = "http://127.0.0.1:20080"
LONGEST_RUN_SECONDS = 900.0


@dataclass(frozen=True)
class Run:
    """A finished run of ansible-playbook."""

    code: int
    output: str

    @property
    def changed(self) -> int:
        """How many tasks changed something, over all machines."""
        return sum(int(count) for count in re.findall(r"changed=(\d+)", self.output))


def play(playbook: str, *arguments: str) -> Run:
    """Run a playbook against the test stack; raise TimeoutExpired if it hangs."""
    line = command(INVENTORY, playbook, *arguments)
    return Run(*run_playbook(line, seconds=LONGEST_RUN_SECONDS))


def deploy(env: str = "prod", *arguments: str) -> Run:
    """Run site.yml; fail with its output unless it ends well."""
    run = play("site.yml", "-e", f"env={env}", *arguments)
    assert run.code == 0, run.output
    return run


def descendants(root: int) -> list[int]:
    """Return the numbers of all processes below one, whatever their session."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [root]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found


def deploy_killed_at(task: str, *arguments: str) -> str:
    """Start site.yml and kill it, and all it started, once the task is under way.

    Returns what it printed; fails where it never came to the task.
    """
    process = subprocess.Popen(
        command(INVENTORY, "site.yml", "-e", "env=prod", *arguments),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    output = ""
    for line in process.stdout:
        output += line
        if line.startswith("TASK") and task in line:
            break
    else:
        pytest.fail(f"the run never came to {task!r}:\n{output}")
    # Into the task, not before it: its module has to be running.
    time.sleep(0.7)
    for victim in reversed(descendants(process.pid)):
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()
    process.stdout.close()
    return output


def request(path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the JSON answer of the stack's api; raise on a status that is not 2xx."""
    data = json.dumps(body).encode() if body is not None else None
    headers = {"Content-Type": "application/json"}
    question = urllib.request.Request(f"{URL}/api{path}", data=data, headers=headers)
    with urllib.request.urlopen(question, timeout=10) as answer:
        return json.load(answer)


def leftovers() -> dict[str, str]:
    """Return containers, volumes and networks that the engine has of the test stack."""
    mine = ["--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}"]
    return {
        "containers": docker("ps", "--all", *mine),
        "volumes": docker("volume", "ls", *mine),
        "networks": docker("network", "ls", *mine),
    }


def secret_values() -> list[str]:
    """Return every secret text of the stack: passwords, and the lines of the private key."""
    values = []
    for path in (STACK_DIR / "secrets").iterdir():
        text = path.read_text()
        if "PRIVATE KEY" in text:
            key = text.partition("PRIVATE KEY-----\n")[2].partition("-----END")[0]
            values += key.split()
        elif path.name != "cache_users":
            values.append(text.strip())
    assert len(values) >= 5
    return values


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.fail("these runs need root: sudo make test", pytrace=False)


def images() -> set[str]:
    """Return the references of the project's images that the engine has."""
    return set(docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "stackyard/*").split())


@pytest.fixture
def without_new_images() -> Iterator[None]:
    """Remove the images that the test built, and the containers that use them."""
    before = images()
    yield
    added = images() - before
    if added:
        assert play("playbooks/destroy.yml", "-e", f"confirm={PROJECT}").code == 0
        docker("image", "rm", *sorted(added))
