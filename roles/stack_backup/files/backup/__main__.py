"""Backups of the stack's database: make one, try the newest one, return to one.

On a lab machine: python3 /opt/stackyard/bin/backup backup. The plays run the same.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import copies
import tables
from control import alone
from engine import Refusal, say
from journal import Journal
from maker import make
from repository import Repository
from restorer import Restorer
from scratch import Scratch, target_of
from stack import Stack

DIRECTORY = Path(__file__).resolve().parents[2]


def moment(text: str) -> datetime | None:
    """Read a time; it has to say its zone, and to be over."""
    if not text:
        return None
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        read = None
    if read is None or read.tzinfo is None:
        raise Refusal(f"TIME is '{text}': give a time with its zone, TIME='2026-11-23 09:00:00+00'")
    if read > datetime.now(UTC):
        raise Refusal(
            f"TIME is '{text}', and that is still to come: here it is {datetime.now(UTC)}"
        )
    return read.astimezone(UTC)


def drill(stack: Stack, config: Path) -> None:
    """Restore the newest backup beside the stack, say what is in it, and remove it again."""
    start = time.monotonic()
    stack.flush()
    scratch = Scratch(stack, f"{stack.project}_database-drill", f"{stack.project}-drill")
    repository = Repository(stack, config, scratch.container)
    scratch.create()
    try:
        backup = repository.pick("", None)
        repository.verify(backup)
        last = repository.end(backup)
        say(f"pgbackrest verify agrees with {backup.label}; restoring it into a scratch database")
        scratch.restore(repository, backup, target_of("", None))
        say("replaying what was written since")
        scratch.recover(config, repository.along(backup), 0)
        scratch.check_end(last)
        found = scratch.prove()
        say(f"as of {scratch.as_of() or 'the backup'}; its indexes and tables agree (pg_amcheck)")
        for line in tables.lines(found):
            say(f"  {line}")
    finally:
        scratch.clear()
    say(f"restored {backup.label} in {time.monotonic() - start:.0f} s, and removed the scratch")


def main() -> int:
    """Do what was asked for; print one line and return 1 where that cannot be done."""
    parser = argparse.ArgumentParser(prog="backup", description=__doc__)
    verbs = ("backup", "pack", "unpack", "prepare", "switch", "restore", "drill", "tables")
    parser.add_argument("verb", choices=verbs)
    parser.add_argument("--wait", action="store_true", help="wait for another backup or restore")
    parser.add_argument("--config", type=Path, default=DIRECTORY / "config/backup")
    parser.add_argument("--file", type=Path, help="of a packed repository")
    parser.add_argument("--label", default="", help="restore this backup")
    parser.add_argument("--time", default="", help="restore to this time, with its zone")
    parser.add_argument("--undo", action="store_true", help="return to before the last restore")
    options = parser.parse_args()
    request = {"label": options.label, "time": options.time, "undo": options.undo}
    try:
        stack = Stack(DIRECTORY)
        if options.verb == "tables":
            found = tables.read(stack.sql)
            print(json.dumps([table._asdict() for table in found]))
            return 0
        with alone(wait=options.wait):
            journal = Journal(DIRECTORY / "restore.json")
            restorer = Restorer(stack, journal, options.config, DIRECTORY / "config/backup")
            if options.verb == "backup":
                make(stack, journal, options.config)
            elif options.verb == "pack":
                repository = Repository(stack, options.config, f"{stack.project}-backup")
                copies.pack(repository, options.file)
            elif options.verb == "unpack":
                copies.unpack(stack, options.file)
            elif options.verb == "drill":
                drill(stack, options.config)
            else:
                if options.verb in ("prepare", "restore"):
                    restorer.prepare(request, moment(options.time))
                if options.verb in ("switch", "restore"):
                    restorer.switch(request)
    except Refusal as refusal:
        print(" ".join(str(refusal).split()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
