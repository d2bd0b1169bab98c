"""The project's modules, each run as Ansible runs it: a process of its own, arguments as JSON."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.sources import command

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Result:
    """What a module answered, and all that it printed."""

    answer: dict[str, Any]
    output: str

    @property
    def changed(self) -> bool:
        """Tell whether it says that it changed something."""
        assert not self.failed, self.answer
        return bool(self.answer["changed"])

    @property
    def failed(self) -> bool:
        """Tell whether it failed."""
        return bool(self.answer.get("failed"))

    @property
    def message(self) -> str:
        """Return the one line of a failure."""
        assert self.failed, self.answer
        text = str(self.answer["msg"])
        assert "\n" not in text
        return text


@dataclass(frozen=True)
class Module:
    """A module's file."""

    path: Path

    def __call__(self, *, check: bool = False, path: str = "", **arguments: Any) -> Result:
        """Run it; `path` stands for the PATH of its process where it is given."""
        given = {"_ansible_check_mode": check, "_ansible_diff": True, **arguments}
        done = subprocess.run(
            command(self.path),
            input=json.dumps({"ANSIBLE_MODULE_ARGS": given}),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PATH": path or os.environ["PATH"]},
        )
        assert done.stdout.strip(), done.stderr
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return Result(json.loads(done.stdout), done.stdout + done.stderr)


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.fail("modules give files to other users: run this as root", pytrace=False)


def listing(top: Path) -> dict[str, tuple[int, int, int, int, bytes]]:
    """Return mode, owner, group, time of change and content of all below a directory."""
    found = {}
    for path in sorted(top.rglob("*")):
        about = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(top))] = (
            about.st_mode & 0o7777,
            about.st_uid,
            about.st_gid,
            about.st_ctime_ns,
            content,
        )
    return found


def docker(*arguments: str) -> str:
    """Return the output of a docker command; fail with its error where it does not succeed."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
