"""Commands on a lab machine, as root, wherever the checks themselves run."""

from __future__ import annotations

import json
import re
import shlex
import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from testinfra.host import Host

PROGRAMS = Path(__file__).parent / "on_machine"
SECONDS = 60
LONGEST_SHOWN = 3000
# What the way there adds to a command's errors, where host keys are not kept.
SSH_REMARK = re.compile(r"^Warning: Permanently added .*\r?\n", re.MULTILINE)


@dataclass(frozen=True)
class Result:
    """A command with its exit code and its two outputs."""

    command: str
    code: int
    # Out of the reach of pytest, which shows values: an output may hold what nobody may see.
    out: str = field(repr=False)
    err: str = field(repr=False)
    seconds: float = 0

    @property
    def text(self) -> str:
        """Both outputs."""
        return f"{self.out}{self.err}".strip()

    def __str__(self) -> str:
        """For messages: the command, what it ended with, and the end of what it said."""
        shown = self.command if len(self.command) < 400 else f"{self.command[:400]} ..."
        return f"$ {shown}\nexit {self.code}: {self.text[-LONGEST_SHOWN:]}"

    def lines(self) -> list[str]:
        """The lines of the standard output."""
        return self.out.splitlines()


class Machine:
    """A lab machine."""

    # What was run by the check at hand, on whatever machine: evidence for the report.
    heard: ClassVar[list[Result]] = []

    def __init__(self, host: Host) -> None:
        """Take testinfra's host, however that is connected."""
        self._host = host

    @cached_property
    def _as_root(self) -> list[str]:
        # Not testinfra's --sudo alone: a machine where root logs in may have no sudo at all.
        return [] if self._host.check_output("id -u") == "0" else ["sudo", "-n"]

    def try_run(
        self,
        *command: str,
        folder: str = "",
        seconds: float = SECONDS,
        shown: str = "",
        short: Callable[[str], str] | None = None,
    ) -> Result:
        """Run the command as root, `seconds` at most, and return what came of it.

        Where nobody would want to read that, evidence has `shown` in the place of the command, and
        what `short` makes of the output.
        """
        line = ["timeout", "-k", "5", str(seconds), *command]
        if folder:
            line = ["env", "-C", folder, *line]
        as_root = self._as_root
        start = time.monotonic()
        done = self._host.run(shlex.join([*as_root, *line]))
        took = time.monotonic() - start
        errors = SSH_REMARK.sub("", done.stderr)
        result = Result(shlex.join(command), done.rc, done.stdout, errors, took)
        said = short(result.out) if short and result.code == 0 else result.out
        self.heard.append(replace(result, command=shown or result.command, out=said))
        return result

    def run(self, *command: str, **options: Any) -> Result:  # noqa: ANN401
        """Run the command as root, with try_run's options; it has to succeed."""
        result = self.try_run(*command, **options)
        assert result.code == 0, str(result)
        return result

    def program(self, name: str, request: object, seconds: float = SECONDS) -> Any:  # noqa: ANN401
        """Run the Python program `on_machine/name`.py there: JSON in, JSON out."""
        source = (PROGRAMS / f"{name}.py").read_text(encoding="utf-8")
        asked = json.dumps(request)
        shown = f"on_machine/{name}.py {asked}"
        result = self.try_run("python3", "-c", source, asked, seconds=seconds, shown=shown)
        assert result.code == 0, f"on_machine/{name}.py ended with {result.code}: {result.text}"
        return json.loads(result.out)

    def read(self, path: str) -> str:
        """Return a file's text."""
        return self.run("cat", path).out


def wait_until(
    condition: Callable[[], bool],
    seconds: float,
    what: str,
    seen: Callable[[], str] | None = None,
    pause: float = 0.3,
) -> float:
    """Ask until the condition holds; return how many seconds that took.

    Fails after `seconds`, saying `what` was waited for and what `seen()` shows then.
    """
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds:
            shown = f"\n{seen()}" if seen else ""
            pytest.fail(f"waited {seconds:.0f} s in vain until {what}{shown}", pytrace=False)
        time.sleep(pause)
    return time.monotonic() - start
