"""Real runs of the playbooks against one machine of an inventory, as a person would type them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
LONGEST_RUN_SECONDS = 600.0


@dataclass(frozen=True)
class Run:
    """A run of ansible-playbook that came to its end."""

    code: int
    output: str

    @property
    def changed(self) -> int:
        """How many tasks changed something."""
        return sum(int(count) for count in re.findall(r"changed=(\d+)", self.output))

    @property
    def errors(self) -> list[str]:
        """The error lines, without what Ansible puts in front; one that is broken in two, whole."""
        found = re.findall(
            r"^\[ERROR\]: (.*?)(?=^Origin: |^\s*$|^\w+: \[)", self.output, re.MULTILINE | re.DOTALL
        )
        return [
            re.sub(r"^(Task failed: )?(Action failed: |Module failed: )?", "", text).rstrip("\n")
            for text in found
        ]


class Controller:
    """Where ansible-playbook runs, with an inventory and one machine of it."""

    def __init__(self, inventory: Path, machine: str, root: Path = ROOT) -> None:
        """Take the inventory's path, the machine's name in it, and the checkout to run."""
        self.inventory = inventory
        self.machine = machine
        self.root = root

    def command(self, playbook: str, *arguments: str) -> list[str]:
        """Return the command line of a run, with the ansible-playbook beside this Python."""
        program = str(Path(sys.executable).parent / "ansible-playbook")
        # Preflight looks at the inventory itself, from localhost.
        limit = f"--limit={self.machine},localhost"
        return [program, "-i", str(self.inventory), limit, playbook, *arguments]

    def _start(self, playbook: str, arguments: tuple[str, ...]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(playbook, *arguments),
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(self.root / "ansible.cfg"),
                "ANSIBLE_NOCOLOR": "1",
                # Molecule sets it, and it has the last word.
                "ANSIBLE_FORCE_COLOR": "0",
            },
        )

    def play(self, playbook: str, *arguments: str) -> Run:
        """Run a playbook to its end; fail with what it said until then if it hangs."""
        process = self._start(playbook, arguments)
        try:
            output, _ = process.communicate(timeout=LONGEST_RUN_SECONDS)
        except subprocess.TimeoutExpired:
            kill_tree(process.pid)
            output, _ = process.communicate()
            seconds = f"{LONGEST_RUN_SECONDS:.0f} seconds"
            pytest.fail(f"{playbook} did not end within {seconds}:\n{output}", pytrace=False)
        return Run(process.returncode, output)

    def deploy(self, env: str = "prod", *arguments: str) -> Run:
        """Run site.yml; fail with its output unless it ends well."""
        run = self.play("site.yml", "-e", f"env={env}", *arguments)
        if run.code != 0:
            pytest.fail(f"site.yml ended with {run.code}:\n{run.output}", pytrace=False)
        return run

    def start(self, playbook: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a playbook and return its process; who calls waits for it."""
        return self._start(playbook, arguments)

    def play_killed_at(self, playbook: str, words: str, *arguments: str) -> str:
        """Start a playbook; kill it and all it started at the first line with these words.

        Returns what it printed until then; fails where it ends without such a line.
        """
        process = self._start(playbook, arguments)
        assert process.stdout
        output = ""
        with process.stdout:
            for line in process.stdout:
                output += line
                if words in line:
                    kill_tree(process.pid)
                    break
            else:
                pytest.fail(f"no line with {words!r}:\n{output}", pytrace=False)
        process.wait()
        return output

    def deploy_killed_at(self, number: int, *arguments: str) -> str:
        """Start site.yml; kill it and all it started after the task of that number.

        Returns the task's name, or nothing where the run ended before it came to that task.
        """
        process = self._start("site.yml", arguments)
        assert process.stdout
        tasks = 0
        task = ""
        with process.stdout:
            for line in process.stdout:
                if line.startswith("TASK ["):
                    tasks += 1
                    if tasks == number:
                        task = line.partition("[")[2].partition("]")[0]
                        # Ansible names a task with its first result: this is into the next.
                        time.sleep(0.7)
                        break
            kill_tree(process.pid)
        process.wait()
        return task


def kill_tree(root: int) -> None:
    """Kill a process and all that it has started."""
    for victim in reversed(_descendants(root)):
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)


def _descendants(root: int) -> list[int]:
    """Return the numbers of all processes below one, whatever their session."""
    parents = dict(_parents())
    found = [root]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found


def _parents() -> Iterator[tuple[int, int]]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            yield int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])
