"""The fleet: three machines with variables of their own, and what people type for all of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
import testinfra

from tests.acceptance.settings import Settings
from tests.acceptance.stack import Stack
from tests.controller import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = ("lab1", "lab2", "lab3")


@dataclass(frozen=True)
class Said:
    """A command that came to its end, with its standard output and its errors."""

    code: int
    out: str
    err: str

    @property
    def recap(self) -> dict[str, str]:
        """Ansible's own line of each machine that it had to do with."""
        return dict(re.findall(r"^(lab\d) +: (.*)$", self.out, re.MULTILINE))

    @property
    def summary(self) -> str:
        """What stands after that."""
        return re.split(r"^(?:lab\d|localhost) +: .*\n", self.out, flags=re.MULTILINE)[-1]

    @property
    def to_type(self) -> str:
        """The command that the summary names."""
        return self.summary.partition("Mend that, then type:")[2].strip()


class Fleet:
    """The machines by name, and runs on all of them."""

    def __init__(self, inventory: Path) -> None:
        """Take the inventory's path."""
        self.inventory = inventory
        # What is typed is not part of the make that runs the checks.
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MAKE", "MFLAGS"))
        }
        self.variables: dict[str, Mapping[str, Any]] = {}
        self.stacks: dict[str, Stack] = {}
        for name in NAMES:
            host = testinfra.get_host(f"ansible://{name}", ansible_inventory=str(inventory))
            self.variables[name] = host.ansible.get_variables()
            self.stacks[name] = Stack(host, Settings(self.variables[name], {}))

    def type(self, command: str) -> Said:
        """Type a command in the checkout."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
            env={**self.environment, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"},
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def make(self, words: str) -> Said:
        """Type make with this inventory."""
        return self.type(f"make -s {words} INVENTORY={self.inventory}")

    def status(self) -> dict[str, dict[str, Any]]:
        """Return what make status says of each machine."""
        said = self.make("status JSON=1")
        return {each["machine"]: each for each in json.loads(said.out)["machines"]}

    def address(self, name: str) -> str:
        """Return where the controller reaches the machine."""
        return str(self.variables[name]["ansible_host"])

    def answers(self, name: str, port: int) -> bool:
        """Tell whether the machine's stack answers at a port, over the network."""
        try:
            with urlopen(f"http://{self.address(name)}:{port}/health", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False


@pytest.fixture(scope="session")
def fleet(pytestconfig: pytest.Config) -> Fleet:
    """The fleet of the scenario's inventory."""
    return Fleet(Path(pytestconfig.getoption("--ansible-inventory")).resolve())
