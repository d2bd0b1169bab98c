"""What the bench made on this machine's engine, and removing it."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.shell import BenchError, run, say

# What the names of its scratch directories begin with.
SCRATCH = "stackyard-bench-"

# On every container, volume and image that the bench makes, so that a killed one's can be told.
LABEL = "stackyard.bench=machine"

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def remove(name: str) -> None:
    """Remove a machine with its volume, however much of it there is; not to be interrupted."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        run(["docker", "rm", "--force", "--volumes", name])
        gone = run(["docker", "volume", "rm", "--force", name])
        if gone.status != 0:
            say(f"{name} is left behind, and removed at the next start: {gone.text}")
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def remove_leftovers() -> None:
    """Remove what a bench that was killed left behind; to be called with the lock held."""
    containers = run(["docker", "ps", "-aq", "--no-trunc", f"--filter=label={LABEL}"]).text.split()
    volumes = run(["docker", "volume", "ls", "-q", f"--filter=label={LABEL}"]).text.split()
    if containers or volumes:
        say("Removing what an earlier bench left behind")
    if containers:
        run(["docker", "rm", "--force", *containers])
    if volumes:
        run(["docker", "volume", "rm", "--force", *volumes])
    for parent in {tempfile.gettempdir(), "/var/tmp"}:
        for directory in Path(parent).glob(f"{SCRATCH}*"):
            if directory.lstat().st_uid == os.getuid() and not directory.is_symlink():
                shutil.rmtree(directory, ignore_errors=True)


def stop_in_order() -> None:
    """Let a signal end the bench as an interrupt from the keyboard does: by way of the clean-up."""

    def end(number: int, _frame: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    for number in SIGNALS:
        signal.signal(number, end)


@contextmanager
def only_bench() -> Iterator[None]:
    """Hold this machine's lock; raises BenchError where another bench has it."""
    path = Path(tempfile.gettempdir()) / "stackyard-bench.lock"
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchError("Another bench runs on this machine: wait for its end.") from None
        yield
