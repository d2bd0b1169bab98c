"""Returning to a backup: everything that takes long beside the serving database, then one step."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import tables
from engine import Refusal, run, say
from repository import Repository
from scratch import Scratch, target_of
from stack import DATA
from switch import exchange, try_exchange

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from journal import Journal
    from stack import Stack


class Restorer:
    """A restore in the phases that the journal knows."""

    def __init__(self, stack: Stack, journal: Journal, config: Path, own: Path) -> None:
        """Take the settings of the repository to restore from, and of the one in use."""
        self.stack = stack
        self.journal = journal
        self.scratch = Scratch(stack, stack.previous_volume, f"{stack.project}-restore")
        self.repository = Repository(stack, config, self.scratch.container)
        self.own = Repository(stack, own, self.scratch.container)

    def directory(self, volume: str) -> Path:
        """Where a volume's data are."""
        return self.stack.data(volume)

    def number(self, volume: str) -> int:
        """What tells a volume's data from another's, wherever they are moved to."""
        return self.directory(volume).stat().st_ino

    def require_previous(self) -> None:
        """Refuse to return to what is not there."""
        entry = self.journal.entry
        there = {"done": "previous", "prepared": "arriving"}.get(self.journal.phase, "")
        undo = self.journal.phase == "done" or entry.get("request", {}).get("undo")
        if not there or not undo or entry[there] != self.number(self.stack.previous_volume):
            raise Refusal("there are no data from before a restore to return to")

    def settle(self, request: dict[str, Any]) -> bool:
        """Finish or take back a switch that was cut short; tell whether it was this one."""
        if self.journal.phase != "switching":
            return False
        entry = dict(self.journal.entry)
        if self.number(self.stack.data_volume) != entry["arriving"]:
            say("a restore was cut short before its switch: the database is as it was")
            self.stack.start()
            self.stack.wait_healthy("database", "cache")
            self.journal.write("none")
            return False
        say("a restore was cut short after its switch: finishing it")
        self.finish(entry)
        return bool(entry["request"] == request)

    def prepare(self, request: dict[str, Any], until: datetime | None) -> None:
        """Have a proven database in the previous volume, while the stack serves."""
        if self.settle(request):
            say("that was this restore: it is done")
            return
        if request["undo"]:
            self.require_previous()
            say("having the data from before the last restore begin a history of their own")
            self.adopt()
            self.journal.write(
                "prepared", request=request, arriving=self.number(self.stack.previous_volume)
            )
            return
        self.stack.flush()
        self.scratch.remove_container()
        backup = self.repository.pick(request["label"], until)
        self.repository.verify(backup)
        last = "" if until or request["label"] else self.repository.end(backup)
        try_exchange(self.directory(self.stack.data_volume))
        say(f"restoring {backup.label} beside the serving database, which goes on")
        self.journal.write("preparing")
        self.scratch.restore(self.repository, backup, target_of(request["label"], until))
        say("replaying what was written since")
        # A backup by its name is complete in itself, whatever timelines came after it.
        along = "current" if request["label"] else self.repository.along(backup)
        self.scratch.recover(self.repository.config, along, self.timelines())
        if last:
            self.scratch.check_end(last)
        as_of = self.scratch.as_of()
        self.scratch.settle_in()
        found = self.scratch.prove()
        self.scratch.stop()
        arriving = self.number(self.stack.previous_volume)
        self.journal.write("prepared", request=request, arriving=arriving)
        say(
            f"proven, as of {as_of or f'the end of {backup.label}'}: it starts, and can all be read"
        )
        for line in tables.lines(found):
            say(f"  {line}")

    def adopt(self) -> None:
        """Have the database in the previous volume begin a timeline of its own.

        Whoever restores the newest later is then led to it, not to what was given up for it.
        """
        self.scratch.remove_container()
        self.scratch.command(self.own.config, "touch", f"{DATA}/recovery.signal")
        self.scratch.recover(self.own.config, "current", self.timelines())
        self.scratch.settle_in()
        self.scratch.prove()
        self.scratch.stop()

    def timelines(self) -> int:
        """The newest timeline that the repository in use or the serving database knows."""
        names = [path.name[:8] for path in self.own.place.glob("archive/stackyard/*/0*")]
        known = [int(name, 16) for name in names]
        if self.stack.running():
            known.append(int(self.stack.sql("SELECT timeline_id FROM pg_control_checkpoint()")))
        return max(known, default=0)

    def switch(self, request: dict[str, Any]) -> None:
        """Put what was prepared in the place of what serves."""
        if self.journal.phase == "done" and self.journal.entry["request"] == request:
            return
        entry = self.journal.entry
        if self.journal.phase != "prepared" or entry["request"] != request:
            raise Refusal("no restore of this kind is prepared: make restore")
        arriving = self.number(self.stack.previous_volume)
        if arriving != entry["arriving"]:
            raise Refusal("what was prepared is not there any more: make restore")
        schema = self.stack.schema()
        entry = {"request": request, "arriving": arriving, "schema": schema}
        entry["previous"] = self.number(self.stack.data_volume)
        self.journal.write("switching", **entry)
        start = time.monotonic()
        self.stack.stop()
        self.exchange()
        self.stack.start()
        self.finish(entry)
        say(f"the apis were without the database for {time.monotonic() - start:.1f} s")

    def exchange(self) -> None:
        """Exchange the two volumes' data."""
        exchange(self.directory(self.stack.data_volume), self.directory(self.stack.previous_volume))

    def finish(self, entry: dict[str, Any]) -> None:
        """Have what arrived serve, or take it back where it does not."""
        self.stack.start()
        if not self.stack.wait_healthy("database", "cache"):
            self.take_back("the database")
        if self.stack.schema() != entry["schema"]:
            # An api brings the schema up when it starts.
            run("docker", "restart", *self.stack.of("api"))
        if not self.stack.wait_healthy("api"):
            self.take_back("an api")
        self.journal.write("done", request=entry["request"], previous=entry["previous"])
        self.stack.flush()
        say(
            f"the restored data serve; those from before are in the volume"
            f" {self.stack.previous_volume} until the next restore: make restore UNDO=1"
        )

    def take_back(self, who: str) -> None:
        """Return to the data from before, and say so."""
        say(f"{who} does not become healthy with the restored data: taking them back")
        self.stack.stop()
        self.exchange()
        self.stack.start()
        # Not before: killed in between, the next run starts what this one stopped.
        self.journal.write("none")
        self.stack.wait_healthy("database", "cache", "api")
        raise Refusal(
            f"{who} did not become healthy with the restored data: the data from before serve again"
        )
