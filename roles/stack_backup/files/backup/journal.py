"""How far a restore came: what a killed one left is read from here."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any


class Journal:
    """A file with one phase.

    preparing  the previous volume holds what is being restored: worth nothing
    prepared   it holds a proven database that may become the serving one
    switching  either may be the serving one; `arriving` says which directory is to be
    done       it holds what served before: `previous` is its directory
    """

    def __init__(self, path: Path) -> None:
        """Read it, where there is one."""
        self.path = path
        self.entry: dict[str, Any] = {"phase": "none"}
        if path.exists():
            self.entry = json.loads(path.read_text(encoding="utf-8"))

    @property
    def phase(self) -> str:
        """The phase."""
        return str(self.entry["phase"])

    def write(self, phase: str, **about: Any) -> None:
        """Go over to a phase, on disk before this returns."""
        self.entry = {"phase": phase, **about}
        write_atomically(self.path, json.dumps(self.entry) + "\n")


def write_atomically(path: Path, text: str, owner: int | None = None) -> None:
    """Write the text beside its place and rename it there; survive a crash of the machine.

    It belongs to who runs this, where no owner is given.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    if owner is not None:
        os.chown(temporary, owner, owner)
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
