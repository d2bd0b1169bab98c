"""Real runs of ansible-playbook, as a person would type them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[1]


def command(inventory: Path, playbook: str, *arguments: str) -> list[str]:
    """Return the command line of a run, with the ansible-playbook beside this Python."""
    program = Path(sys.executable).parent / "ansible-playbook"
    return [str(program), "-i", str(inventory), playbook, *arguments]


def run_playbook(
    line: Sequence[str], *, seconds: float, environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Run the line to its end; return exit status and output.

    Raises TimeoutExpired after that many seconds.
    """
    done = subprocess.run(
        line,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", **(environment or {})},
    )
    return done.returncode, done.stdout


def docker(*arguments: str) -> str:
    """Return the output of a docker command; fail with its error where it does not succeed."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
