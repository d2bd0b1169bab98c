"""A repository of backups: what is in it, and whether it can be trusted."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from engine import Refusal, attempt, complaint
from stack import REPOSITORIES, Stack

if TYPE_CHECKING:
    from pathlib import Path

STANZA = "--stanza=stackyard"
SEGMENT_BYTES = 16 * 1024 * 1024
SEGMENTS = 2**32 // SEGMENT_BYTES


class Backup(NamedTuple):
    """A backup: seconds since the epoch, bytes, and the segments that it needs to be consistent."""

    label: str
    start: int
    stop: int
    size: int
    stored: int
    archive_id: str
    first: str
    last: str
    end: int


def position(lsn: str) -> int:
    """Return where in the log a location such as 0/4000028 is, in bytes."""
    high, low = lsn.split("/")
    return int(high, 16) * 2**32 + int(low, 16)


def segment(timeline: int, place: int) -> str:
    """Return the name of the segment with that byte."""
    high, low = divmod(place // SEGMENT_BYTES, SEGMENTS)
    return f"{timeline:08X}{high:08X}{low:08X}"


def start_of(name: str) -> int:
    """Return where a segment begins."""
    return (int(name[8:16], 16) * SEGMENTS + int(name[16:24], 16)) * SEGMENT_BYTES


def moment(seconds: int) -> str:
    """Return a time for people and programs."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ")


class Repository:
    """The repository that a directory of settings names."""

    def __init__(self, stack: Stack, config: Path, container: str) -> None:
        """Take the settings, and the name that containers which read it may have."""
        self.stack = stack
        self.config = config
        self.container = container
        text = (config / "pgbackrest.conf").read_text(encoding="utf-8")
        self.path = re.findall(r"^repo1-path=(.+)$", text, re.M)[0]
        self.place = stack.backups / PurePosixPath(self.path).relative_to(REPOSITORIES)

    def ask(self, *arguments: str) -> str:
        """Run pgbackrest where the repository can only be read; return its output."""
        run = self.stack.one_off(self.container, "", self.config)
        image = self.stack.container()["Config"]["Image"]
        done = attempt([*run, "--rm", image, "pgbackrest", STANZA, *arguments])
        if done.returncode != 0:
            raise Refusal(f"the backups in {self.place} cannot be read: {complaint(done)}")
        return done.stdout

    def info(self) -> dict[str, Any]:
        """What pgBackRest says is in it; Refusal where that is nothing or nothing legible."""
        if not (self.place / "backup").is_dir():
            raise Refusal(self.nothing())
        (about,) = json.loads(self.ask("info", "--output=json"))
        if about["status"]["code"] not in (0, 2):
            # It goes on for lines; the first one names the file.
            reasons = [each["status"]["message"] for each in about.get("repo", [])]
            words = " ".join(reasons or [about["status"]["message"]]).split()
            raise Refusal(f"the backups in {self.place} cannot be read: {' '.join(words)[:300]}")
        return dict(about)

    def nothing(self) -> str:
        """Say that there is no backup, and whether there are some under other keys."""
        names = sorted(path.parent.name for path in self.place.parent.glob("*/backup"))
        how = "without a key" if self.place.name == "plain" else "with this key"
        if not names:
            return f"there is no backup in {self.place.parent}: make backup"
        made = ["without a key" if name == "plain" else f"with {name}" for name in names]
        return (
            f"no backup in {self.place.parent} was made {how}, there are those made "
            f"{' and '.join(made)}: give that key as stack_backup_key"
        )

    def backups(self) -> list[Backup]:
        """All backups, the newest last."""
        about = self.info()
        archives = {each["database"]["id"]: each["id"] for each in about["archive"]}
        return [
            Backup(
                each["label"], each["timestamp"]["start"], each["timestamp"]["stop"],
                each["info"]["size"], each["info"]["repository"]["size"],
                archives.get(each["database"]["id"], ""),
                each["archive"]["start"], each["archive"]["stop"], position(each["lsn"]["stop"]),
            )
            for each in about["backup"]
        ]  # fmt: skip

    def archive(self, backup: Backup) -> Path:
        """Where the log of the backup's database is."""
        return self.place / "archive/stackyard" / backup.archive_id

    def lineage(self, backup: Backup) -> dict[int, int]:
        """The newest timeline and those that it comes from, each with where it was left.

        After a restore to an earlier moment, what was written behind that moment belongs to a
        timeline that leads nowhere: neither it nor backups of it lead to what serves now.
        """
        histories = [path.name[:8] for path in self.archive(backup).glob("*.history")]
        written = [path.name[:8] for path in self.archive(backup).glob("0*")]
        newest = max([backup.first[:8], *written])
        left = {int(newest, 16): 2**63}
        if newest in histories:
            text = self.ask("repo-get", f"archive/stackyard/{backup.archive_id}/{newest}.history")
            for number, lsn in re.findall(r"^(\d+)\s+(\S+/\S+)", text, re.M):
                left[int(number)] = position(lsn)
        return left

    def along(self, backup: Backup) -> str:
        """The timeline to replay, as PostgreSQL is told.

        By its number it needs a history, which a repository lacks that began on a later timeline.
        """
        newest = max(self.lineage(backup))
        return "current" if newest == int(backup.first[:8], 16) else str(newest)

    def leads_on(self, backup: Backup, lineage: dict[int, int]) -> bool:
        """Whether from the backup on, the log leads to what serves now."""
        return backup.end <= lineage.get(int(backup.first[:8], 16), -1)

    def pick(self, label: str, until: datetime | None) -> Backup:
        """Choose the backup to restore: the newest that leads there, or the one named."""
        found = self.backups()
        if not found:
            raise Refusal(f"there is no backup in {self.place}: make backup")
        labels = [each.label for each in found]
        if label:
            if label not in labels:
                raise Refusal(f"there is no backup {label}; there are {', '.join(labels)}")
            return found[labels.index(label)]
        lineage = self.lineage(found[-1])
        fitting = [
            each
            for each in found
            if each.archive_id == found[-1].archive_id and self.leads_on(each, lineage)
        ]
        if until is not None:
            fitting = [each for each in fitting if each.stop <= until.timestamp()]
            if not fitting:
                raise Refusal(
                    f"no backup is from before {until}: the oldest ended {moment(found[0].stop)}"
                )
        if not fitting:
            raise Refusal(
                "no backup was made since the last restore went back behind all of them: choose"
                f" one, BACKUP={labels[-1]}"
            )
        return fitting[-1]

    def segments(self, backup: Backup) -> set[str]:
        """The names of the log's segments that are there."""
        found = self.archive(backup).glob("0*/0*")
        return {path.name[:24] for path in found if re.match(r"[0-9A-F]{24}-", path.name)}

    def verify(self, backup: Backup) -> None:
        """Read all of the backup, and look for the log that belongs to it; Refusal if it is bad.

        pgBackRest ends with 0 whatever it finds, and without a word where a manifest is missing.
        """
        bad = f"backup {backup.label} is damaged, and nothing was touched"
        more = ", choose another one: BACKUP=label"
        try:
            said = self.ask("verify", f"--set={backup.label}", "--output=text", "--verbose")
        except Refusal as refusal:
            raise Refusal(f"{bad}: {str(refusal).rpartition(': ')[2]}{more}") from None
        whole = re.search(
            rf"backup: {backup.label}, status: valid, total files checked: [1-9]", said
        )
        if "\nstatus: ok\n" not in f"\n{said}" or not whole:
            found = re.findall(r"(?:missing|invalid|other): [1-9]\d*", said)
            reason = ", ".join(found) or "its manifest cannot be read"
            raise Refusal(f"{bad}: {reason} (pgbackrest verify){more}")
        needed = range(start_of(backup.first), start_of(backup.last) + 1, SEGMENT_BYTES)
        timeline = int(backup.first[:8], 16)
        missing = {segment(timeline, place) for place in needed} - self.segments(backup)
        if missing:
            raise Refusal(f"{bad}: the archive lacks {min(missing)}{more}")

    def end(self, backup: Backup) -> str:
        """The last segment of the log that leads on from the backup; Refusal if it has a gap."""
        lineage = self.lineage(backup)
        # What a timeline wrote behind the place where it was left counts for nothing.
        places = {
            start_of(name): name
            for name in sorted(self.segments(backup))
            if start_of(name) < lineage.get(int(name[:8], 16), 0)
        }
        for place in range(start_of(backup.last), max(places), SEGMENT_BYTES):
            if place not in places:
                timeline = min(number for number, left in lineage.items() if place < left)
                raise Refusal(
                    f"the archive lacks {segment(timeline, place)}, so that what was written"
                    f" from there on is in no backup: TIME= before that, or BACKUP={backup.label}"
                )
        return places[max(places)]
