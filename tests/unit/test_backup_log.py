"""A repository of backups: which backup leads to where, and whether the log behind it is whole."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sources import load_siblings

if TYPE_CHECKING:
    from types import ModuleType

PROGRAM = Path(__file__).parents[2] / "roles/stack_backup/files/backup"
modules: list[ModuleType] = load_siblings(PROGRAM, "engine", "repository", "stack")
engine, repository, stack = modules
Refusal = engine.Refusal
MIB = 2**20
SEGMENT = 16 * MIB
LOG = 2**32
ARCHIVE = "17-1"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PLACES = st.integers(0, 2**64 - 1)
TIMELINES = st.integers(1, 2**31 - 1)


def lsn(place: int) -> str:
    """Return a place in the log as PostgreSQL writes it."""
    return f"{place >> 32:X}/{place & 0xFFFFFFFF:X}"


# Names and places.


@pytest.mark.parametrize(("place", "name"), [
    (0, "000000010000000000000000"),
    (SEGMENT - 1, "000000010000000000000000"),
    (SEGMENT, "000000010000000000000001"),
    # 256 segments are one log file of 4 GiB; its last one is FF.
    (LOG - 1, "0000000100000000000000FF"),
    (LOG, "000000010000000100000000"),
    (LOG + SEGMENT, "000000010000000100000001"),
    (256 * LOG - 1, "00000001000000FF000000FF"),
    (256 * LOG, "000000010000010000000000"),
    (2**64 - 1, "00000001FFFFFFFF000000FF"),
])  # fmt: skip
def test_segment_of_a_place(place: int, name: str) -> None:
    assert repository.segment(1, place) == name
    assert repository.start_of(name) == place - place % SEGMENT


@pytest.mark.parametrize(("text", "place"), [
    ("0/0", 0), ("0/4000028", 4 * SEGMENT + 0x28), ("1/0", LOG), ("A/FF000000", 11 * LOG - SEGMENT),
    ("a/ff000000", 11 * LOG - SEGMENT), ("FFFFFFFF/FFFFFFFF", 2**64 - 1),
])  # fmt: skip
def test_location_in_bytes(text: str, place: int) -> None:
    assert repository.position(text) == place


def test_timeline_is_the_names_first_part_in_hexadecimal() -> None:
    assert repository.segment(26, 0) == "0000001A0000000000000000"


@given(place=PLACES, timeline=TIMELINES)
def test_name_and_place_are_each_others_inverse(place: int, timeline: int) -> None:
    name = repository.segment(timeline, place)
    start = repository.start_of(name)
    assert len(name) == 24
    assert start <= place < start + SEGMENT
    assert repository.segment(timeline, start) == name
    assert int(name[:8], 16) == timeline
    assert repository.position(lsn(place)) == place


@given(first=PLACES, second=PLACES, timeline=TIMELINES)
def test_names_are_in_the_order_of_their_places(first: int, second: int, timeline: int) -> None:
    names = repository.segment(timeline, first), repository.segment(timeline, second)
    assert (names[0] < names[1]) == (first // SEGMENT < second // SEGMENT)


@given(number=st.integers(0, 2**40 - 2), timeline=TIMELINES)
def test_the_next_segment_begins_where_one_ends(number: int, timeline: int) -> None:
    name = repository.segment(timeline, number * SEGMENT)
    after = repository.segment(timeline, repository.start_of(name) + SEGMENT)
    assert repository.start_of(after) - repository.start_of(name) == SEGMENT
    low = int(name[16:], 16)
    assert int(after[16:], 16) == (0 if low == 0xFF else low + 1)
    assert int(after[8:16], 16) == int(name[8:16], 16) + (low == 0xFF)


# A repository.


@dataclass
class Archive:
    """A repository on disk, and what pgbackrest says of it."""

    place: Path
    backups: list[dict[str, Any]] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=lambda: {"code": 0, "message": "ok"})
    said: str = ""

    def folder(self, archive: str = ARCHIVE) -> Path:
        """Return the directory of a database's log."""
        found = self.place / "archive/stackyard" / archive
        found.mkdir(parents=True, exist_ok=True)
        return found

    def write(self, timeline: int, numbers: Any, archive: str = ARCHIVE) -> None:
        """Archive these segments of a timeline."""
        for number in numbers:
            name = repository.segment(timeline, number * SEGMENT)
            path = self.folder(archive) / name[:16] / f"{name}-{'0' * 40}.zst"
            path.parent.mkdir(exist_ok=True)
            path.touch()

    def branch(self, timeline: int, *left: tuple[int, int]) -> None:
        """Archive the history of a timeline: those that it comes from, and where they were left."""
        lines = [f"{number}\t{lsn(place)}\tno recovery target specified" for number, place in left]
        text = "\n\n".join(lines) + "\n"
        (self.folder() / f"{timeline:08X}.history").write_text(text)

    def backup(
        self,
        name: str,
        timeline: int,
        first: int,
        last: int,
        *,
        minutes: int = 0,
        database: int = 1,
    ) -> None:
        """Have a backup, which needs these segments, and ends in the middle of the last one."""
        stop = int((NOON + timedelta(minutes=minutes)).timestamp())
        self.backups.append({
            "label": name,
            "timestamp": {"start": stop - 5, "stop": stop},
            "info": {"size": 10, "repository": {"size": 5}},
            "database": {"id": database},
            "archive": {
                "start": repository.segment(timeline, first * SEGMENT),
                "stop": repository.segment(timeline, last * SEGMENT),
            },
            "lsn": {"stop": lsn(last * SEGMENT + SEGMENT // 2)},
        })  # fmt: skip

    def pgbackrest(self, *arguments: str) -> str:
        """Answer as it does."""
        verb, *rest = arguments
        if verb == "repo-get":
            return (self.place / rest[0]).read_text()
        if verb == "verify":
            return self.said
        assert verb == "info"
        archives = [
            {"id": ARCHIVE, "database": {"id": 1}},
            {"id": "17-2", "database": {"id": 2}},
        ]
        about = {"status": self.status, "archive": archives, "backup": self.backups}
        return json.dumps([about])


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """An empty repository."""
    place = tmp_path / "backups/plain"
    (place / "backup").mkdir(parents=True)
    return Archive(place)


def opened(archive: Archive) -> Any:
    """Return it as the program sees it."""
    top = archive.place.parents[1]
    (top / ".env").write_text("COMPOSE_PROJECT_NAME=lab\n")
    (top / "pgbackrest.conf").write_text(
        f"[global]\nrepo1-path={stack.REPOSITORIES}/{archive.place.name}\n"
    )
    found = repository.Repository(stack.Stack(top), top, "lab-backup")
    found.ask = archive.pgbackrest
    return found


def refusal(action: Any, *arguments: Any) -> str:
    """Return the line of what cannot be done."""
    with pytest.raises(Refusal) as caught:
        action(*arguments)
    return str(caught.value)


def grown(archive: Archive) -> Archive:
    """Fill it: timeline 2 left 1 within segment 5 and is given up; 3 left 1 within segment 8.

    ```
    1  0 1 [a 2 3] 4 5 6 [b 6 7] 8 9 [c 9]
    2              5 6 [d 6]
    3                          8 9 [e 9 A] B C
    ```
    """
    five, eight = 5 * SEGMENT + 100, 8 * SEGMENT + 100
    archive.write(1, range(10))
    archive.write(2, (5, 6))
    archive.branch(2, (1, five))
    archive.write(3, range(8, 13))
    archive.branch(3, (1, eight))
    archive.backup("a", 1, 2, 3, minutes=0)
    archive.backup("d", 2, 6, 6, minutes=10)
    archive.backup("b", 1, 6, 7, minutes=20)
    archive.backup("c", 1, 9, 9, minutes=30)
    archive.backup("e", 3, 9, 10, minutes=40)
    return archive


def named(found: Any, label: str) -> Any:
    """Return a backup by its label."""
    return next(each for each in found.backups() if each.label == label)


def test_lineage_is_the_newest_timeline_and_those_that_it_comes_from(archive: Archive) -> None:
    found = opened(grown(archive))
    for label in "abcde":
        assert found.lineage(named(found, label)) == {3: 2**63, 1: 8 * SEGMENT + 100}


def test_lineage_of_a_first_timeline_is_itself(archive: Archive) -> None:
    archive.write(1, (1, 2))
    archive.backup("a", 1, 1, 1)
    found = opened(archive)
    assert found.lineage(named(found, "a")) == {1: 2**63}
    assert found.along(named(found, "a")) == "current"


def test_lineage_over_several_branches(archive: Archive) -> None:
    """Numbers are decimal in a history and hexadecimal in a name."""
    archive.backup("a", 1, 1, 1)
    archive.write(1, range(1, 30))
    archive.write(26, range(20, 40))
    archive.branch(26, (1, 10 * SEGMENT), (4, 15 * SEGMENT), (11, LOG + 20))
    found = opened(archive)
    assert found.lineage(named(found, "a")) == {
        26: 2**63, 11: LOG + 20, 4: 15 * SEGMENT, 1: 10 * SEGMENT,
    }  # fmt: skip
    assert found.along(named(found, "a")) == "26"


def test_timeline_that_has_archived_no_segment_yet_is_the_newest(archive: Archive) -> None:
    archive.backup("a", 1, 1, 1)
    archive.write(1, (1, 2))
    archive.branch(2, (1, 2 * SEGMENT))
    found = opened(archive)
    assert found.lineage(named(found, "a")) == {2: 2**63, 1: 2 * SEGMENT}


def test_repository_that_began_on_a_later_timeline_follows_the_backups_own(
    archive: Archive,
) -> None:
    """It lacks that timeline's history, by whose number PostgreSQL would ask for it."""
    archive.backup("a", 5, 1, 1)
    archive.write(5, (1, 2))
    found = opened(archive)
    assert found.along(named(found, "a")) == "current"
    assert found.pick("", None).label == "a"


@pytest.mark.parametrize(("label", "leads"), [
    ("a", True), ("b", True), ("c", False), ("d", False), ("e", True),
])  # fmt: skip
def test_backups_of_what_was_given_up_do_not_lead_on(
    archive: Archive, label: str, leads: bool
) -> None:
    found = opened(grown(archive))
    backup = named(found, label)
    assert found.leads_on(backup, found.lineage(backup)) is leads


@pytest.mark.parametrize(("beyond", "leads"), [(-1, True), (0, True), (1, False)])
def test_backup_that_ends_where_its_timeline_was_left_leads_on(
    archive: Archive, beyond: int, leads: bool
) -> None:
    archive.backup("a", 1, 1, 1)
    archive.write(1, (1, 2))
    found = opened(archive)
    backup = named(found, "a")
    lineage = {2: 2**63, 1: backup.end - beyond}
    assert found.leads_on(backup, lineage) is leads


# Which backup.


def test_newest_that_leads_on_is_picked(archive: Archive) -> None:
    grown(archive)
    assert opened(archive).pick("", None).label == "e"
    archive.backups.pop()
    assert opened(archive).pick("", None).label == "b"


@pytest.mark.parametrize(("minutes", "label"), [
    (0, "a"), (19, "a"), (20, "b"), (35, "b"), (40, "e"), (500, "e"),
])  # fmt: skip
def test_newest_before_a_time_is_picked(archive: Archive, minutes: int, label: str) -> None:
    until = NOON + timedelta(minutes=minutes)
    assert opened(grown(archive)).pick("", until).label == label


def test_time_before_all_backups_is_refused(archive: Archive) -> None:
    until = NOON - timedelta(seconds=1)
    assert refusal(opened(grown(archive)).pick, "", until) == (
        "no backup is from before 2026-01-01 11:59:59+00:00: the oldest ended"
        " 2026-01-01 12:00:00+00:00"
    )


def test_backup_is_picked_by_its_name_wherever_it_leads(archive: Archive) -> None:
    found = opened(grown(archive))
    assert found.pick("d", None).label == "d"
    assert refusal(found.pick, "x", None) == "there is no backup x; there are a, d, b, c, e"


def test_where_none_leads_on_one_has_to_be_named(archive: Archive) -> None:
    archive.backup("a", 1, 2, 3)
    archive.write(1, range(2, 6))
    archive.write(2, range(2, 4))
    archive.branch(2, (1, 2 * SEGMENT))
    assert refusal(opened(archive).pick, "", None) == (
        "no backup was made since the last restore went back behind all of them: choose one,"
        " BACKUP=a"
    )


def test_backups_of_another_database_do_not_lead_to_this_one(archive: Archive) -> None:
    """Of a stack that was destroyed: its timelines have the same numbers."""
    archive.backup("old", 1, 1, 1, minutes=0)
    archive.write(1, (1, 2))
    archive.backup("new", 1, 1, 1, minutes=10, database=2)
    archive.write(1, (1, 2), "17-2")
    found = opened(archive)
    assert found.pick("", None).label == "new"
    assert "no backup is from before" in refusal(found.pick, "", NOON)
    assert found.pick("old", None).label == "old"


def test_no_backup_is_refused(archive: Archive) -> None:
    assert refusal(opened(archive).pick, "", None) == (
        f"there is no backup in {archive.place}: make backup"
    )


@pytest.mark.parametrize(("there", "line"), [
    ((), "there is no backup in {}: make backup"),
    (("key-1",), "no backup in {} was made without a key, there are those made with key-1:"
                 " give that key as stack_backup_key"),
    (("key-1", "key-2"), "no backup in {} was made without a key, there are those made with key-1"
                         " and with key-2: give that key as stack_backup_key"),
])  # fmt: skip
def test_backups_under_another_key_are_named(
    archive: Archive, there: tuple[str, ...], line: str
) -> None:
    (archive.place / "backup").rmdir()
    for name in there:
        (archive.place.parent / name / "backup").mkdir(parents=True)
    assert refusal(opened(archive).backups) == line.format(archive.place.parent)


def test_backups_without_a_key_are_named_to_who_gives_one(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "backups/key-9")
    (tmp_path / "backups/plain/backup").mkdir(parents=True)
    assert "was made with this key, there are those made without a key: give that" in refusal(
        opened(archive).backups
    )


@pytest.mark.parametrize("code", [0, 2])
def test_repository_without_a_backup_is_legible(archive: Archive, code: int) -> None:
    archive.status["code"] = code
    assert opened(archive).backups() == []


def test_repository_that_cannot_be_read_says_why(archive: Archive) -> None:
    archive.status = {"code": 99, "message": "other\n  raised"}
    assert refusal(opened(archive).backups) == (
        f"the backups in {archive.place} cannot be read: other raised"
    )


# The log behind a backup.


def test_end_is_the_last_segment_along_the_lineage(archive: Archive) -> None:
    found = opened(grown(archive))
    for label in ("a", "b", "e"):
        assert found.end(named(found, label)) == "00000003000000000000000C"


@pytest.mark.parametrize("gap", [4, 6])
def test_gap_on_a_timeline_that_was_left_is_named_by_its_own_name(
    archive: Archive, gap: int
) -> None:
    grown(archive)
    name = repository.segment(1, gap * SEGMENT)
    next(archive.folder().glob(f"*/{name}-*")).unlink()
    found = opened(archive)
    assert refusal(found.end, named(found, "a")) == (
        f"the archive lacks {name}, so that what was written from there on is in no backup:"
        " TIME= before that, or BACKUP=a"
    )
    assert found.end(named(found, "b")) == "00000003000000000000000C"


def test_gap_on_the_newest_timeline_is_named(archive: Archive) -> None:
    grown(archive)
    next(archive.folder().glob("*/00000003000000000000000B-*")).unlink()
    found = opened(archive)
    assert refusal(found.end, named(found, "e")).startswith(
        "the archive lacks 00000003000000000000000B,"
    )


def test_segment_in_which_a_timeline_was_left_is_there_in_either_name(archive: Archive) -> None:
    """The old one has it up to the end of the server that was left, the new one altogether."""
    grown(archive)
    next(archive.folder().glob("*/000000010000000000000008-*")).unlink()
    found = opened(archive)
    assert found.end(named(found, "a")) == "00000003000000000000000C"


def test_end_in_the_segment_in_which_a_timeline_was_left_has_the_new_ones_name(
    archive: Archive,
) -> None:
    archive.backup("a", 1, 1, 1)
    archive.write(1, range(1, 6))
    archive.write(2, (5,))
    archive.branch(2, (1, 5 * SEGMENT + 100))
    found = opened(archive)
    assert found.end(named(found, "a")) == "000000020000000000000005"


def test_segments_behind_the_place_where_a_timeline_was_left_close_no_gap(
    archive: Archive,
) -> None:
    grown(archive)
    next(archive.folder().glob("*/000000030000000000000009-*")).unlink()
    found = opened(archive)
    assert "000000010000000000000009" in found.segments(named(found, "a"))
    assert "lacks 000000030000000000000009" in refusal(found.end, named(found, "a"))


def test_log_goes_on_over_the_end_of_a_log_file(archive: Archive) -> None:
    archive.backup("a", 1, 253, 254)
    archive.write(1, range(253, 259))
    found = opened(archive)
    assert found.end(named(found, "a")) == "000000010000000100000002"
    next(archive.folder().glob("*/000000010000000100000000-*")).unlink()
    assert "lacks 000000010000000100000000" in refusal(found.end, named(found, "a"))


def test_what_is_half_archived_is_not_there(archive: Archive) -> None:
    archive.backup("a", 1, 1, 1)
    archive.write(1, (1, 2))
    folder = archive.folder() / "0000000100000000"
    (folder / "000000010000000000000003.partial-00.zst").touch()
    (folder / "000000010000000000000004.00000028.backup").touch()
    found = opened(archive)
    assert found.end(named(found, "a")) == "000000010000000000000002"


# What pgbackrest says of a backup.

VALID = """stanza: stackyard
status: ok
  archiveId: 17-1, total WAL checked: 3, total valid WAL: 3
  backup: a, status: valid, total files checked: 971, total valid files: 971
"""


NO_MANIFEST = "its manifest cannot be read (pgbackrest verify)"


@pytest.mark.parametrize(("said", "reason"), [
    (VALID.replace("status: ok", "status: error").replace("valid, total", "invalid, total")
     + "    missing: 0, checksum invalid: 2, size invalid: 0, other: 1\n",
     "invalid: 2, other: 1 (pgbackrest verify)"),
    (VALID.replace("status: ok", "status: error") + "    missing: 1, other: 0\n",
     "missing: 1 (pgbackrest verify)"),
    (VALID.replace("backup: a", "backup: b"), NO_MANIFEST),
    (VALID.replace("checked: 971", "checked: 0"), NO_MANIFEST),
    ("", NO_MANIFEST),
])  # fmt: skip
def test_damaged_backup_is_refused(archive: Archive, said: str, reason: str) -> None:
    archive.backup("a", 1, 1, 3)
    archive.write(1, (1, 2, 3))
    archive.said = said
    found = opened(archive)
    assert refusal(found.verify, named(found, "a")) == (
        f"backup a is damaged, and nothing was touched: {reason}, choose another one: BACKUP=label"
    )


@pytest.mark.parametrize("number", [255, 256, 257])
def test_backup_needs_all_segments_from_its_start_to_its_end(archive: Archive, number: int) -> None:
    archive.backup("a", 1, 255, 257)
    archive.write(1, range(250, 260))
    archive.said = VALID
    found = opened(archive)
    found.verify(named(found, "a"))
    name = repository.segment(1, number * SEGMENT)
    next(archive.folder().glob(f"*/{name}-*")).unlink()
    assert refusal(found.verify, named(found, "a")).startswith(
        f"backup a is damaged, and nothing was touched: the archive lacks {name}, choose"
    )


def test_segment_of_another_timeline_is_not_the_backups(archive: Archive) -> None:
    archive.backup("a", 1, 1, 3)
    archive.write(1, (1, 3))
    archive.write(2, (2,))
    archive.said = VALID
    found = opened(archive)
    assert "lacks 000000010000000000000002" in refusal(found.verify, named(found, "a"))


# Whatever was restored.


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Draw restores: for each timeline behind the first, its parent and where it left that."""
    drawn: list[tuple[int, int]] = []
    for timeline in range(2, draw(st.integers(1, 6)) + 1):
        parent = draw(st.integers(1, timeline - 1))
        # Later than where its parent began.
        begun = drawn[parent - 2][1] if parent > 1 else 0
        drawn.append((parent, begun + draw(st.integers(1, 3 * SEGMENT))))
    return drawn


@given(restores=histories(), data=st.data())
def test_a_backup_leads_on_where_its_timeline_is_an_ancestor_and_was_left_later(
    tmp_path_factory: pytest.TempPathFactory, restores: list[tuple[int, int]], data: st.DataObject
) -> None:
    archive = Archive(tmp_path_factory.mktemp("lab") / "backups/plain")
    (archive.place / "backup").mkdir(parents=True)
    ancestors: dict[int, list[tuple[int, int]]] = {1: []}
    for timeline, (parent, left) in enumerate(restores, 2):
        ancestors[timeline] = [*ancestors[parent], (parent, left)]
        archive.branch(timeline, *ancestors[timeline])
    newest = len(restores) + 1
    timeline = data.draw(st.integers(1, newest))
    last = data.draw(st.integers(0, 20))
    archive.backup("a", timeline, last, last)
    archive.write(timeline, [last])
    found = opened(archive)
    backup = named(found, "a")
    lineage = found.lineage(backup)
    assert lineage == {newest: 2**63, **dict(ancestors[newest])}
    expected = timeline == newest or any(
        number == timeline and backup.end <= left for number, left in ancestors[newest]
    )
    assert found.leads_on(backup, lineage) is expected
    if expected:
        assert found.pick("", None) == backup
    else:
        refusal(found.pick, "", None)
    assert found.along(backup) == ("current" if timeline == newest else str(newest))
