"""Running commands, and telling how far the bench is."""

from __future__ import annotations

import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

STARTED = time.monotonic()
TAIL_LINES = 30
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


class BenchError(Exception):
    """What went wrong and how to mend it, in one message."""


def say(text: str) -> None:
    """Print a progress line with the seconds since the bench began."""
    print(f"[{time.monotonic() - STARTED:5.0f} s] {text}", flush=True)


@dataclass
class Output:
    """What a command printed: lines with their time in seconds from its start, and its status."""

    status: int
    lines: list[tuple[float, str]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The lines without their times."""
        return "\n".join(line for _, line in self.lines)

    def save(self, path: Path) -> None:
        """Write the lines, each with its time in seconds."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{at:7.2f}  {line}\n" for at, line in self.lines), "utf-8")


@contextmanager
def _ended(process: subprocess.Popen[str], timeout: float) -> Iterator[threading.Event]:
    """Kill the process on the way out, or earlier once the timeout, in seconds, is over."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        process.kill()

    timer = threading.Timer(timeout, expire)
    timer.start()
    try:
        yield expired
    finally:
        timer.cancel()
        if process.poll() is None:
            process.kill()
        process.wait()


def run(command: Sequence[str], *, stdin: Path | str | None = None, timeout: float = 120) -> Output:
    """Run a command, standard error merged in; stdin is a file's path or a text.

    Raises BenchError after `timeout` seconds.
    """
    if isinstance(stdin, str):
        with tempfile.TemporaryFile("w+", encoding="utf-8") as text:
            text.write(stdin)
            text.seek(0)
            return _run(command, text, timeout)
    if stdin is not None:
        with stdin.open("rb") as stream:
            return _run(command, stream, timeout)
    return _run(command, subprocess.DEVNULL, timeout)


def _run(command: Sequence[str], stdin: IO[Any] | int, timeout: float) -> Output:
    start = time.monotonic()
    process = subprocess.Popen(
        list(command),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    lines = []
    with _ended(process, timeout) as expired:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append((time.monotonic() - start, ESCAPES.sub("", line.rstrip("\n"))))
        process.wait()
    output = Output(process.returncode, lines)
    if expired.is_set():
        raise BenchError(f"No end after {timeout:.0f} s: {_shown(command)}\n{tail(output)}")
    return output


def check(command: Sequence[str], *, stdin: Path | str | None = None, timeout: float = 120) -> str:
    """Run a command and return what it printed; raises BenchError where it fails."""
    output = run(command, stdin=stdin, timeout=timeout)
    if output.status != 0:
        raise BenchError(f"Status {output.status}: {_shown(command)}\n{tail(output)}")
    return output.text


def tail(output: Output) -> str:
    """Return the last lines, for a message."""
    return "\n".join(f"    {line}" for _, line in output.lines[-TAIL_LINES:])


def _shown(command: Sequence[str]) -> str:
    text = " ".join(command).replace("\n", " ")
    return text if len(text) <= 200 else f"{text[:200]}..."
