"""What the stack was asked to be: read where it is set, never from what was rendered."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ..drawing import NEEDS, NETWORKS, RESTART, SERVICES

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NEEDS", "NETWORKS", "RESTART", "SERVICES"]

ROOT = Path(__file__).parents[2]
DEFAULTS = ROOT / "roles/stack_compose/defaults/main.yml"
SHARED = ROOT / "playbooks/group_vars/all/stack.yml"
SECRETS = ROOT / "playbooks/group_vars/all/stack_secrets.yml"

UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3}

# In dev, who has a debug port besides, and how the names of the networks for these begin.
DEBUG_NETWORK = "debug"
DEBUGGED = {"api", "database", "cache"}
# Where each one's own clients find it.
PORTS = {"gateway": 8080, "frontend": 8080, "api": 8000, "database": 5432, "cache": 6379}
# The name that the kernel has for each server's processes.
SERVERS = {
    "gateway": "haproxy",
    "frontend": "nginx",
    "api": "python3",
    "database": "postgres",
    "cache": "redis-server",
}


@dataclass(frozen=True)
class SecretFile:
    """A secret's file: its name, its reader, and the uid that owns it."""

    name: str
    service: str
    owner: int


class Settings:
    """Defaults, overlaid by the inventory and by what was given at deploy time."""

    def __init__(self, variables: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        """Take the inventory's variables of one machine, and what --set gave."""
        defaults = yaml.safe_load(DEFAULTS.read_text(encoding="utf-8"))
        self._values = {**defaults, **variables, **given}
        shared = yaml.safe_load(SHARED.read_text(encoding="utf-8"))
        self.uids: dict[str, int] = {**shared["stack__uids"], **self._values.get("stack__uids", {})}

    def value(self, name: str) -> str:
        """Return a setting as text."""
        text = str(self._values[name])
        if "{{" in text:
            pytest.fail(f"{name} is the expression {text}: give its value, --set {name}=VALUE")
        return text

    def number(self, name: str) -> int:
        """Return a whole number."""
        return int(self.value(name))

    @property
    def directory(self) -> str:
        """The stack's directory on the machine."""
        return str(self._values.get("stack_dir") or "/opt/stackyard")

    @property
    def project(self) -> str:
        """The Compose project's name."""
        return str(self._values.get("stack_project") or "stackyard")

    @property
    def swarm(self) -> bool:
        """Whether Docker Swarm runs the stack, rather than Compose."""
        return str(self._values.get("orchestrator") or "compose") == "swarm"

    @property
    def counts(self) -> dict[str, int]:
        """How many containers each service has to have."""
        return dict.fromkeys(SERVICES, 1) | {
            service: self.number(f"stack_compose_{service}_replicas")
            for service in ("frontend", "api")
        }

    def memory(self, service: str) -> int:
        """The service's memory limit in bytes."""
        text = self.value(f"stack_compose_{service}_memory")
        return int(text[:-1]) * UNITS[text[-1]]

    def cpus(self, service: str) -> float:
        """The service's CPU limit in cores."""
        return float(self.value(f"stack_compose_{service}_cpus"))

    def secret_files(self) -> list[SecretFile]:
        """The secrets' files. A file has one reader, whose name it begins with."""
        definitions = yaml.safe_load(SECRETS.read_text(encoding="utf-8"))
        files = []
        for secret in definitions["stack_secrets_definitions"]:
            for entry in secret["files"]:
                match = re.search(r"stack__uids\.(\w+)", entry["owner"])
                assert match, f"{SECRETS}: the owner of {entry['name']} is not one of stack__uids"
                service = entry["name"].split("_")[0]
                files.append(SecretFile(entry["name"], service, self.uids[match[1]]))
        return files
