"""One database directory in another's place, in one step that happens or does not."""

from __future__ import annotations

import ctypes
import fcntl
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from engine import Refusal

if TYPE_CHECKING:
    from pathlib import Path

AT_FDCWD = -100
RENAME_EXCHANGE = 2


def rename(first: Path, second: Path) -> None:
    """Exchange two directories of one file system by renameat2(2), which Python has not."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(first), os.fsencode(second)
    if libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise Refusal(f"{first} and {second} cannot be exchanged: {reason}")


def sync(path: Path) -> None:
    """Have a directory's entries on disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(handle)
    os.close(handle)


def exchange(first: Path, second: Path) -> None:
    """Exchange two data directories that no server has: the image's servers lock theirs."""
    with ExitStack() as held:
        for path in (first, second):
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            held.callback(os.close, handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Refusal(f"{path} is in use by a server: stop that, then try again") from None
        rename(first, second)
    for path in (first, second):
        sync(path.parent)


def try_exchange(place: Path) -> None:
    """Refuse a file system that cannot, before anything is stopped for it."""
    pair = [place.parent / f".exchange-{number}" for number in (1, 2)]
    for path in pair:
        path.mkdir(exist_ok=True)
    try:
        rename(*pair)
    finally:
        for path in pair:
            path.rmdir()
