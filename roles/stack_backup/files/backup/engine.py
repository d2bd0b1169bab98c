"""Commands on this machine, and what is told of them."""

from __future__ import annotations

import json
import re
import subprocess
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Refusal(Exception):
    """One line that says what is wrong and what to type; the status of what failed."""

    code = 0


def say(text: str) -> None:
    """Print at once: a journal or a person may be reading."""
    print(text, flush=True)


def attempt(command: Sequence[str], stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, whatever comes of it."""
    return subprocess.run(
        list(command),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        check=False,
    )


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """Return the line that tells why: the first error's, or the last line."""
    lines = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines()]
    lines = [line for line in lines if line]
    told = [line for line in lines if not re.search(r"\bP\d+ +(INFO|WARN|DETAIL):", line)]
    errors = [line for line in told if re.search(r"\b(ERROR|FATAL|PANIC|error)\b", line)]
    # pgBackRest numbers its errors and goes on about them in lines of their own.
    said = (errors or lines[-1:] or ["no reason given"])[0]
    return re.sub(r"^(P\d+ +)?ERROR: +", "", said)[:300]


def run(*command: str, stdin: str | None = None, what: str = "") -> str:
    """Run a command that has to succeed; raise Refusal with its reason."""
    done = attempt(command, stdin)
    if done.returncode != 0:
        raise Refusal(f"{what or ' '.join(command[:3])}: {complaint(done)}")
    return done.stdout


def inspect(kind: str, name: str) -> dict[str, Any] | None:
    """Return what the engine knows of a container or volume, None where there is none."""
    done = attempt(["docker", kind, "inspect", name])
    return json.loads(done.stdout)[0] if done.returncode == 0 else None


def wait_for(condition: Callable[[], bool], seconds: float, doing: str) -> bool:
    """Ask until it holds or time is up; say what goes on every ten seconds."""
    start = told = time.monotonic()
    while not condition():
        now = time.monotonic()
        if now - start > seconds:
            return False
        if now - told >= 10:
            told = now
            say(f"{doing}: {now - start:.0f} s")
        time.sleep(0.2)
    return True
