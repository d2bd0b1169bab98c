"""Making a backup."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from engine import Refusal, attempt, complaint, say
from journal import Journal, write_atomically
from repository import STANZA, Repository, moment

if TYPE_CHECKING:
    from pathlib import Path

    from stack import Stack

# pgBackRest's own numbers for its errors.
OTHER_DATABASE = (28, 51)
LOCKED = 50
LONGEST_WAIT_SECONDS = 600


def pgbackrest(stack: Stack, *arguments: str) -> None:
    """Run it beside the server; wait for one that a killed run left there."""
    start = time.monotonic()
    while True:
        done = attempt(["docker", "exec", stack.database, "pgbackrest", STANZA, *arguments])
        if done.returncode != LOCKED or time.monotonic() - start > LONGEST_WAIT_SECONDS:
            break
        say("another pgbackrest is at work in the database's container: waiting for it")
        time.sleep(5)
    if done.returncode != 0:
        error = Refusal(f"pgbackrest {arguments[-1]}: {complaint(done)}")
        error.code = done.returncode
        raise error


def begin(stack: Stack, repository: Repository) -> None:
    """Have the repository be one of this very database, and the log archived in it."""
    known = repository.place / "archive-of"
    identifier = stack.sql("SELECT system_identifier FROM pg_control_system()")
    if known.exists() and known.read_text(encoding="utf-8").strip() == identifier:
        return
    say(f"beginning to archive in {repository.place}")
    try:
        pgbackrest(stack, "stanza-create")
    except Refusal as refusal:
        if refusal.code not in OTHER_DATABASE:
            raise
        say("these are backups of another database, which stay; those of this one are added")
        pgbackrest(stack, "stanza-upgrade")
    owner = stack.backups.stat().st_uid
    write_atomically(known, f"{identifier}\n", owner)


def make(stack: Stack, journal: Journal, config: Path) -> None:
    """Make a full backup, let the oldest go, and note the newest for others to read."""
    if journal.phase == "switching":
        raise Refusal("a restore was cut short: finish it first, make restore")
    stack.require_running()
    repository = Repository(stack, config, f"{stack.project}-backup")
    start = time.monotonic()
    begin(stack, repository)
    pgbackrest(stack, "check")
    say("the log is archived; copying the data while they are in use")
    pgbackrest(stack, "--type=full", "backup")
    found = repository.backups()
    newest = found[-1]
    about = {
        "label": newest.label,
        "stopped": moment(newest.stop),
        "size": newest.size,
        "stored": newest.stored,
        "repository": repository.place.name,
    }
    owner = stack.backups.stat().st_uid
    write_atomically(stack.backups / "newest.json", json.dumps(about) + "\n", owner)
    say(
        f"backup {newest.label}: {newest.size / 1e6:.1f} MB, {newest.stored / 1e6:.1f} MB stored,"
        f" in {time.monotonic() - start:.1f} s; {len(found)} kept, the oldest of"
        f" {moment(found[0].stop)}"
    )
