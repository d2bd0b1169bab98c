"""One at a time: a backup, a restore and a drill keep out of each other's way."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from engine import Refusal, say, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_WAIT_SECONDS = 1800


def locked(handle: int) -> bool:
    """Try to take the lock; the kernel gives it back when this process ends, however it ends."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def alone(*, wait: bool) -> Iterator[None]:
    """Hold the lock on this program's own directory; wait for it, or raise Refusal."""
    handle = os.open(Path(__file__).parent, os.O_RDONLY)
    try:
        if not locked(handle):
            if not wait:
                raise Refusal("another backup, restore or drill is at work: run this again later")
            say("another backup, restore or drill is at work: waiting for it")
            if not wait_for(lambda: locked(handle), LONGEST_WAIT_SECONDS, "waiting for it"):
                raise Refusal(f"it is still at work after {LONGEST_WAIT_SECONDS} s")
        yield
    finally:
        os.close(handle)
